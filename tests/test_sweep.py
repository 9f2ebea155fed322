"""Sweeps: combinations, what is refused before anything runs, and what a run that fails leaves."""

import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import psutil
import pytest
from toys import FACTS, MEASURING, environment, make_project, site, write_chapter, write_results

from lib.files import ROOT
from lib.report import repeats
from lib.report.results import ResultsError, frame
from lib.site import engine, guard, sweep
from lib.site.contents import BookError
from lib.site.sweep import Sweep

# --- what is to be run ---------------------------------------------------------------


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path, "01_a")


def planned(project, seeds=(0, 1), **grid):
    return Sweep("s", "01_a", "demo", grid or {"level": [1, 2], "rate": [0.1, 0.5]}, list(seeds), project)


def test_a_grid_is_read_from_names_and_values():
    assert sweep.grid("sigma=0.1,0.3 hidden=[64],[64,32] data=folder:x") == {
        "sigma": [0.1, 0.3],
        "hidden": [[64], [64, 32]],
        "data": ["folder:x"],
    }


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "SET is empty"),
        ("  ", "SET is empty"),
        ("sigma", "'sigma' is no parameter with values"),
        ("sigma=", "'sigma=' is no parameter with values"),
        ("sigma=[0.1", "is no parameter with values"),
        ("=3", "'=3' is no parameter with values"),
        ("sigma=1 sigma=2", "sigma is there twice"),
        ("sigma=1,1", "sigma has a value twice"),
        ("seed=1,2", "say SEEDS="),
        ("sigma='1", "cannot be read"),
    ],
)
def test_what_is_no_grid_is_refused(text, why):
    with pytest.raises(BookError, match=why):
        sweep.grid(text)


def test_every_combination_is_a_run_for_each_seed_in_a_folder_of_its_own(project):
    runs = planned(project).runs()
    assert len(runs) == 8 and len({run.results for run in runs}) == 8
    assert runs[1].results == "_build/sweeps/s/level-1+rate-0.1/seed-1.json"
    assert dict(runs[-1].settings) == {"level": 2, "rate": 0.5}


def test_a_folder_is_named_so_that_shells_and_nodes_read_it():
    long = {f"parameter_{number}": number for number in range(20)}
    cases = ({"a": [64, 32]}, {"a": [64], "b": 32}, {"a": "x/../y z"}, {"a": "x y z"}, long, long | {"parameter_19": 0})
    names = [sweep.called(settings) for settings in cases]
    assert len(set(names)) == len(names)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_.+-") and len(name) < 130 for name in names)


def test_a_run_gets_the_profiles_values_with_its_own_last(project):
    one = Sweep("s", "01_a", "laptop", {"rate": [1e-6], "level": [7]}, [3], project)
    (run,) = one.runs()
    said = one.arguments(run.folder.rpartition("/")[2], "3")
    assert said.index("-p seed 3") < said.index("-y '{rate: 1.0e-06}' -y '{level: 7}'")
    assert "-y '{level: 3}'" in said


def test_everything_wrong_with_a_sweep_is_said_before_it_runs(project):
    with pytest.raises(BookError) as error:
        sweep.check(planned(project, level=[1, 0], rate=[2, "0.5"], lvl=[1]))
    for part in ("level = 0: it must be", "rate = 2.0: it must be", "rate = '0.5': a number", "lvl: unknown. Did"):
        assert part in str(error.value)
    assert "level = 1" not in str(error.value)


def test_more_than_a_thousand_runs_must_be_meant(project):
    many = planned(project, range(501), level=[1, 2])
    with pytest.raises(BookError, match=r"1,002 runs.*CONFIRM=yes"):
        sweep.check(many)
    sweep.check(many, confirmed=True)
    sweep.check(planned(project, range(500), level=[1, 2]))


def test_a_name_that_leaves_the_folder_is_refused(project):
    for name in ("../x", "", ".hidden", "a b"):
        with pytest.raises(BookError, match="name a sweep"):
            sweep.check(Sweep(name, "01_a", "demo", {"level": [1]}, [0], project))


def test_a_plan_is_read_as_it_was_saved(project):
    planned(project).save()
    assert sweep.read("s", project) == planned(project)
    with pytest.raises(BookError, match="no sweep 'other' yet"):
        sweep.read("other", project)
    (project / "_build" / "sweeps" / "s" / "sweep.json").write_text("{")
    with pytest.raises(BookError, match="damaged"):
        sweep.read("s", project)


def test_data_that_must_be_fetched_are_named_once(project):
    source = "from lib.report.parameters import Text\n\ndataset: Text = 'digits'  # set\nkinds: list[str] = []  # sets"
    write_chapter(project, "01_a", parameters=source)
    one = planned(project, dataset=["digits", "mnist"], kinds=[["mnist", "svhn"]])
    assert sorted(name for name, _ in one.data().values()) == ["mnist", "svhn"]


def test_what_a_cluster_is_asked_for_follows_what_runs_took(tmp_path):
    known = make_project(tmp_path / "known", "01_a")
    write_results(known / "published" / "01_a" / "seed-0.json", seconds=601.0, peak_memory_gb=2.0)
    assert engine.minutes("01_a", "laptop", known) == 5 + 21 and engine.megabytes("01_a", "laptop", known) == 3000
    assert engine.minutes("01_a", "laptop.custom", known) == 26
    assert engine.minutes("01_a", "demo", known) == 20 and engine.megabytes("01_a", "paper", known) == 8000


# --- what came of it -----------------------------------------------------------------


def test_a_frame_has_a_row_a_run_with_all_there_is(tmp_path):
    paths = [write_results(tmp_path / f"{seed}.json", seed, 2.0 + seed, chapter="01_a") for seed in (0, 1)]
    found = frame(paths)
    assert list(found["height"]) == [2.0, 3.0] and list(found["seed"]) == [0, 1] and list(found["level"]) == [3, 3]
    assert list(found["seconds"]) == [200.0, 200.0] and found["commit"][0] == FACTS["commit"]
    with pytest.raises(ResultsError, match="no results at"):
        frame([tmp_path / "gone.json"])


def test_a_number_that_has_a_parameters_name_does_not_hide_it(tmp_path):
    path = write_results(tmp_path / "0.json", parameters={"height": [3, 4], "seed": 0})
    assert frame([path]).loc[0, "height"] == "[3, 4]" and frame([path]).loc[0, "number_height"] == 2.0


def test_means_are_taken_over_seeds_and_bars_are_their_deviation():
    runs = pd.DataFrame({"x": [1, 1, 10, 10], "y": [1.0, 3.0, 5.0, 5.0], "seed": [0, 1, 0, 1], "k": "a"})
    drawn = repeats.means(runs, "x", "y", label="y, m ↓")
    (axes,) = drawn.axes
    assert axes.get_ylabel() == "y, m ↓" and axes.get_xscale() == "log"
    assert list(axes.lines[0].get_ydata()) == [2.0, 5.0]
    (bar, none) = axes.collections[0].get_segments()
    assert bar[:, 1] == pytest.approx([2 - 2**0.5, 2 + 2**0.5]) and none[:, 1] == pytest.approx([5, 5])
    with pytest.raises(ValueError, match="five parameters"):
        repeats.means(runs, "x", "y", list("abcde"))


def test_a_number_or_parameter_that_is_not_there_is_not_drawn(project):
    one = planned(project, [0], level=[1, 2])
    for run in one.runs():
        write_results(project / run.results, 0, run.settings["level"])
    found = sweep.table(one)
    assert sweep.figure(found, one).name == "height.png"
    alone = planned(project, [0], level=[1], **{f"p{number}": [number] for number in range(6)})
    for run in alone.runs():
        write_results(project / run.results, 0)
    assert sweep.figure(sweep.table(alone), alone).exists(), "what does not vary needs no place"
    with pytest.raises(BookError, match=r"Y='hight' is no number of this chapter: height\."):
        sweep.figure(found, one, y="hight")
    with pytest.raises(BookError, match=r"X='rate' is no parameter of this sweep: level\."):
        sweep.figure(found, one, x="rate")


# --- a run that ends with its engine -------------------------------------------------

WRITER = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"


def guarded(engine_pid, code):
    command = [sys.executable, "-m", "lib.site.guard", str(engine_pid), sys.executable, "-c", code]
    return subprocess.Popen(command, cwd=ROOT, env=environment(ROOT))


def test_a_guarded_command_ends_as_it_would_alone():
    for code, status in (("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", 137), ("", 0)):
        assert guarded(os.getpid(), code).wait(30) == status


def test_an_engine_that_is_killed_takes_its_runs_with_it():
    engine_ = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    guard_ = guarded(engine_.pid, WRITER)
    watched = psutil.Process(guard_.pid)
    end = time.monotonic() + 60
    while len(started := watched.children(recursive=True)) < 2:
        assert time.monotonic() < end
        time.sleep(0.05)
    engine_.send_signal(signal.SIGKILL)  # and nobody waits for it: it is a zombie
    assert guard_.wait(30) == 1
    _, alive = psutil.wait_procs(started, timeout=10)
    assert not alive
    engine_.wait()
    assert guarded(engine_.pid, WRITER).wait(30) == 1, "nothing starts for an engine that is gone"


HOLDER = "from pathlib import Path; from lib.site import guard; print(guard.take_over(Path({!r})), flush=True); input()"


def test_a_lock_is_put_away_only_when_nobody_holds_the_project(tmp_path):
    lock = tmp_path / ".snakemake" / "locks" / "0.output.lock"
    lock.parent.mkdir(parents=True)
    lock.write_text("x")
    command = [sys.executable, "-c", HOLDER.format(str(tmp_path))]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8"}
    with subprocess.Popen(command, cwd=ROOT, env=environment(ROOT), **pipes) as first:
        assert "The last run here was killed: going on" in first.stdout.readline() and not lock.exists()
        lock.write_text("x")
        said = guard.take_over(tmp_path)
        assert f"process {first.pid}." in said and lock.exists(), "another engine is at work"
        first.kill()
    assert "was killed" in guard.take_over(tmp_path) and not lock.exists()


# --- Snakemake -----------------------------------------------------------------------

SLOW = "import time\nif level == 3:\n    raise ValueError('three cannot be')\ntime.sleep(level)\n" + MEASURING


def asked(*more):
    return ["s", "--chapter", "01", "--set", "level=1,2,3", "--seeds", "0", *more]


def test_a_run_that_fails_is_a_row_and_only_what_is_missing_runs_again(tmp_path):
    project = tmp_path / "a space"
    project.mkdir()
    make_project(project, "01_a")
    write_chapter(project, "01_a", SLOW)
    said = site(project, "sweep", *asked(), fails=True)
    failed = "failed: ValueError: three cannot be, in code cell 3 (import time)"
    assert f"level=3 seed=0: {failed}" in said and "2 of 3 runs have results" in said
    assert "2 of 3 runs done, 0 running, 1 failed" in said and "RuleException" not in said
    folder = project / "_build" / "sweeps" / "s"
    found = pd.read_csv(folder / "results.csv")
    assert list(found["status"]) == ["done", "done", failed] and list(found["height"][:2]) == [2.0, 4.0]
    assert list(found["profile"][:2]) == ["demo.custom"] * 2 and (folder / "height.png").exists()
    written = {path: path.stat().st_mtime_ns for path in folder.glob("*/seed-0.json")}
    assert len(written) == 2 and not list((project / "_build" / "checkpoints").glob("**/seed*"))

    said = site(project, "sweep", "s", "--report", fails=True)
    assert failed in said and "runs done" not in said

    # Mended, and killed in the middle: the same command goes on.
    write_chapter(project, "01_a", MEASURING.replace("toy.height(level)", "toy.height(level) + 1"))
    said = site(project, "sweep", *asked(), "--", "--dry-run", fails=True)
    write_chapter(project, "01_a", "import time\ntime.sleep(9)\n" + MEASURING)
    command = [sys.executable, "-m", "lib.site.sweep", *asked(), "--", "--cores", "1"]
    engine_ = subprocess.Popen(command, cwd=project, env=environment(project), stderr=subprocess.DEVNULL)
    end = time.monotonic() + 240
    while not (done := [path for path, date in written.items() if path.exists() and path.stat().st_mtime_ns != date]):
        assert time.monotonic() < end and engine_.poll() is None
        time.sleep(0.1)
    time.sleep(4)  # until Snakemake has noted that it is whole
    engine_.kill()
    engine_.wait()
    one = done[0]
    first = one.stat().st_mtime_ns
    said = site(project, "sweep", *asked())
    assert "going on from what it left" in said and "3 of 3 runs have results" in said
    assert len(pd.read_csv(folder / "results.csv").query("status == 'done'")) == 3
    assert json.loads(one.read_text())["numbers"]["height"]["value"] in (2.0, 4.0)
    assert one.stat().st_mtime_ns == first, "what was done is not done again"

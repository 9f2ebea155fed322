"""The engine under kills, wrong dates, company and settings of the user's, on a project of two small chapters.

What survives ends in the same results; what cannot go on says why and what to do.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from toys import KERNEL, MEASURING, commit_all, environment, git, make_project, snake, write_chapter

from lib import commits, files
from lib.report.results import Results
from lib.site import book, engine
from lib.site import environment as settings_file


@pytest.fixture
def project(tmp_path):
    (tmp_path / "a space").mkdir()
    return make_project(tmp_path / "a space" / "book", "01_a")


def height(project):
    return Results.read([project / "_build/results/demo/01_a/seed-0.json"])["height"].mean


# --- dates -------------------------------------------------------------------------------------


def dated(path, year):
    os.utime(path, times=(seconds := (year - 1970) * 31_556_952, seconds))


def test_digests_decide_and_not_dates(project, tried):
    """Unpacked archives, rsync -a and cp -p bring files that are older than what was made; clocks go wrong."""
    snake(project, "chapters")
    made = project / "_build/results/demo/01_a/seed-0.json"
    assert height(project) == 2
    library, lock = project / "lib/toy.py", project / "requirements.txt"
    library.write_text("def height(level):\n    return 3.0 * level\n")
    dated(library, 2001)
    snake(project, "chapters")
    assert height(project) == 3, "a library file changed and is dated earlier"
    tried("faults", "wrong dates")
    before = made.stat().st_mtime_ns
    lock.write_text(lock.read_text() + "other==1.0\n")
    dated(lock, 2001)
    snake(project, "chapters")
    assert made.stat().st_mtime_ns != before, "the lock changed and is dated earlier"
    tried("faults", "wrong dates")
    for path in made.parent.iterdir():
        dated(path, 2090)
    library.write_text("def height(level):\n    return 4.0 * level\n")
    snake(project, "chapters")
    assert height(project) == 4, "the results are dated in the future"
    tried("faults", "wrong dates")
    write_chapter(project, "01_a", MEASURING.replace("height(level)", "height(level) + 1"))
    dated(project / "book/01_a.ipynb", 2001)
    snake(project, "chapters")
    assert height(project) == 5, "the notebook changed and is dated earlier"
    tried("faults", "wrong dates")


# --- kills -------------------------------------------------------------------------------------

KILLS = {
    "the kernel": ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", r"kernel died.*lack of memory"),
    "papermill": ("import os, signal, time\nos.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(1)", "lack of memory"),
    "papermill, gently": (
        "import os, signal, time\nos.kill(os.getppid(), signal.SIGTERM)\ntime.sleep(1)",
        "killed|end",
    ),
    "memory": (
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (1 << 31, 1 << 31))\nx = bytearray(1 << 32)",
        "MemoryError",
    ),
    "a full disk": ("raise OSError(28, 'No space left on device')", "disk is full: free some room"),
}


@pytest.mark.parametrize("what", KILLS)
def test_a_killed_chapter_says_where_and_why_and_runs_again(project, what, tried):
    tried("faults", "kills")
    cell, said = KILLS[what]
    write_chapter(project, "01_a", f"{cell}\n{MEASURING}")
    output = snake(project, "chapters", fails=True)
    last = output.strip().splitlines()[-8:]
    assert re.search(said, "\n".join(last)), output
    assert re.search(r"Chapter 01_a-0 failed in code cell 3 \(import|Chapter 01_a-0 failed in", "\n".join(last)), output
    assert not list(project.glob("_build/results/**/*.json")), "nothing is left that could be taken for a result"
    write_chapter(project, "01_a")
    snake(project, "chapters")
    assert height(project) == 2


def started(project, *arguments):
    """Snakemake, at the moment when its chapter measures."""
    command = [sys.executable, "-m", "snakemake", "--cores", "1", *arguments, "chapters"]
    run = subprocess.Popen(command, cwd=project, env=environment(project), stderr=subprocess.PIPE, encoding="utf-8")
    for _ in range(6000):
        if (project / "measuring").exists():
            return run
        time.sleep(0.1)
    run.kill()
    raise AssertionError(f"nothing measured: {run.communicate()[1]}")


SLOWLY = f"""\
import time
from pathlib import Path

Path({{folder!r}}, "measuring").touch()
time.sleep({{seconds}})
{MEASURING}"""


def slow(project, seconds):
    write_chapter(project, "01_a", SLOWLY.format(folder=str(project), seconds=seconds))


def test_after_a_killed_make_nothing_runs_on_and_the_next_one_goes_on(project, tried):
    slow(project, 600)
    run = started(project)
    children = psutil.Process(run.pid).children(recursive=True)
    assert any("papermill" in " ".join(child.cmdline()) for child in children)
    run.send_signal(signal.SIGKILL)
    run.wait()
    _, left = psutil.wait_procs(children, timeout=20)
    assert not left, left
    tried("faults", "two at once")
    write_chapter(project, "01_a")
    assert "The last run here was killed" in snake(project, "chapters", "--rerun-incomplete")
    assert height(project) == 2
    tried("faults", "kills")


def test_of_two_makes_at_once_the_second_says_who_works_here(project, tried):
    slow(project, 20)
    run = started(project)
    output = snake(project, "chapters", fails=True)
    assert f"Another make works here, process {run.pid}." in output
    assert run.wait() == 0 and height(project) == 2
    tried("faults", "two at once")


# --- what papermill says -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("nbclient.exceptions.DeadKernelError: Kernel died", r"code cell 2 \(second\)\nits kernel died"),
        ("OSError: [Errno 28] No space left on device", "the disk is full: free some room"),
        ("RuntimeError: [enforce fail at inline_container.cc:664]", "the disk is full"),
        ("RuntimeError: Kernel didn't respond in 60 seconds", "did not start in time: try again"),
        ("ValueError: something else", "ValueError: something else"),
        ("", "it was killed: for lack of memory"),
    ],
)
def test_papermills_last_words_are_explained(tmp_path, capsys, said, told, tried):
    tried("faults", "messages")
    cells = [new_code_cell("first"), new_code_cell("second", metadata={"papermill": {"status": "running"}})]
    path = tmp_path / "01_a-0.ipynb"
    nbformat.write(new_notebook(cells=cells, metadata=KERNEL), path)
    path.with_suffix(".txt").write_text(f"Traceback\n{said}\n")
    book.report_failures([path])
    assert re.search(told, capsys.readouterr().err)


# --- the user's own settings -------------------------------------------------------------------


def settings_of_a_user(folder):
    """Each would change or stop a run if it reached one."""
    for name in ("lib.py", "matplotlib.py", "IPython.py"):
        (folder / name).write_text("raise SystemExit('not this one')")
    startup = folder / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00.py").write_text("import os\nos._exit(1)")
    kernel = folder / "share" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    spec = {"argv": ["/bin/false", "{connection_file}"], "display_name": "Python 3", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    (folder / "matplotlibrc").write_text("text.usetex: True\nbackend: no")
    (folder / "startup.py").write_text("import os\nos._exit(1)")
    return {
        "MPLBACKEND": "no",
        "MATPLOTLIBRC": str(folder),
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_PATH": str(folder / "share"),
        "PYTHONSTARTUP": str(folder / "startup.py"),
        "PYTHONIOENCODING": "latin-1",
        "GIT_DIR": str(folder / "nowhere"),
        "HOME": "/proc/no-home",
        "XDG_CACHE_HOME": str(folder / "cache"),  # as make has it, for Snakemake
        "LC_ALL": "C",
    }


def test_no_setting_of_the_users_reaches_a_run(project, tmp_path, tried):
    mine = tmp_path / "mine"
    mine.mkdir()
    settings = settings_of_a_user(mine)
    write_chapter(project, "01_a", MEASURING + "\nimport os\nprint('µ ±', sorted(os.environ))")
    commit = commit_all(project)
    snake(project, "chapters", PYTHONPATH=f"{project}{os.pathsep}{mine}", PYTHONUTF8="1", **settings)
    facts = Results.read([project / "_build/results/demo/01_a/seed-0.json"]).provenance[0]
    assert facts["commit"] == commit, "a GIT_DIR means another repository"
    executed = (project / "_build/results/demo/01_a/seed-0.ipynb").read_text(encoding="utf-8")
    assert "µ ±" in executed and not re.search("MATPLOTLIBRC|PYTHONSTARTUP|GIT_DIR", executed)
    tried("faults", "settings of the user's", len(settings) + 1)


SETTLED = Path(sys.prefix) / settings_file.SETTINGS


@pytest.mark.skipif(not SETTLED.exists(), reason="make did not set this environment up")
def test_papermill_by_hand_sees_the_projects_settings_too(tmp_path, tried):
    mine, work = tmp_path / "mine", tmp_path / "work"
    mine.mkdir()
    work.mkdir()
    settings = settings_of_a_user(mine)
    (work / "lib.py").write_text("another = True")
    told = "import lib.report, os\nprint('found', lib.report.__file__, os.environ.get('MPLBACKEND') == 'no')"
    notebook = new_notebook(cells=[new_code_cell(told)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
    nbformat.write(notebook, work / "in.ipynb")
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    kept |= {name: settings[name] for name in ("MPLBACKEND", "MATPLOTLIBRC", "IPYTHONDIR")}
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", "in.ipynb", "out.ipynb"]
    run = subprocess.run(command, cwd=work, env=kept, capture_output=True, encoding="utf-8")
    assert run.returncode == 0, run.stderr
    (output,) = nbformat.read(work / "out.ipynb", 4).cells[-1].outputs
    assert re.fullmatch(rf"found (?!{re.escape(str(work))}).*/lib/report/__init__.py False\n", output.text)
    tried("faults", "settings of the user's", 4)


def test_the_environment_of_jobs_keeps_what_is_no_setting():
    kept = engine.settings({"PATH": "/bin", "LWL_DATA": "x", "CUDA_VISIBLE_DEVICES": "1", "MPLBACKEND": "Agg"})
    assert kept["PATH"] == "/bin" and kept["LWL_DATA"] == "x" and kept["CUDA_VISIBLE_DEVICES"] == "1"
    assert "MPLBACKEND" not in kept and kept["PYTHONUTF8"] == "1"


# --- places ------------------------------------------------------------------------------------


def test_a_project_within_another_repository_names_no_commit_of_it(tmp_path, tried):
    tried("faults", "places")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "-m", "Another project")
    (tmp_path / "inside").mkdir()
    assert commits.head(tmp_path) and commits.head(tmp_path / "inside") is None


def test_where_the_project_cannot_be_written_things_go_to_the_users_cache(tmp_path, monkeypatch, tried):
    tried("faults", "places")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(files.os, "access", lambda path, mode: False)
    files.work.cache_clear()
    assert files.work(tmp_path / "project") == tmp_path / "cache" / "learning-without-labels"
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    files.work.cache_clear()
    assert files.work(tmp_path / "project").is_dir(), "nor is there a home"
    files.work.cache_clear()
    with pytest.raises(files.WriteError, match=r"LWL_RESULTS"):
        files.refuse_unwritable(tmp_path / "x" / "y.json")


def test_a_build_folder_may_be_a_link(project, tmp_path, tried):
    tried("faults", "places")
    (tmp_path / "elsewhere").mkdir()
    (project / "_build").symlink_to(tmp_path / "elsewhere")
    for _ in range(2):
        snake(project, "--config", "profile=demo", "--", "book")
    assert (tmp_path / "elsewhere" / "html" / "index.html").exists() and (project / "_build").is_symlink()

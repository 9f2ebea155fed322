"""The engine, on a project with two small chapters, in a folder whose name has a space.

Snakemake takes two seconds to start, so each test does several things.
"""

import re
import shutil

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from toys import (
    KERNEL,
    MEASURING,
    TELLING,
    commit_all,
    make_project,
    site,
    snake,
    write_chapter,
    write_profile,
    write_results,
    write_toc,
)

from lib import code
from lib.report.results import Results

HTML = ["--config", "measure=no", "--allowed-rules", "tell", "page", "html", "--", "html"]
"""What make html asks for."""

NUMBERS = """\
from lib.site import published

print("claimed", *[claim["statement"] for found in published.told_claims().values() for claim in found])
print("published", *[results["height"].mean for results in published.published_results().values()])"""

CLAIMING = TELLING + "\nchapter.claims(chapter.Claim('It is high.', '000', 'holds', '2 m'))"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engine") / "a space" / "book"
    folder.mkdir(parents=True)
    make_project(folder, "01_a", "02_b")
    write_chapter(folder, "02_b", telling=CLAIMING)
    cells = [new_markdown_cell("# Results", id="title"), new_code_cell(NUMBERS, id="code")]
    nbformat.write(new_notebook(cells=cells, metadata=KERNEL), folder / "book" / "results.ipynb")
    write_toc(folder, "01_a", "02_b", "results")
    snake(folder, "book")
    return folder


def stamps(project, run="demo"):
    found = (project / "_build" / "results" / run).glob("*/*.json")
    return {f"{path.parent.name}/{path.stem}": path.stat().st_mtime_ns for path in found}


def measured_again(project, target="chapters", run="demo"):
    before = stamps(project, run)
    snake(project, target)
    after = stamps(project, run)
    return {name.partition("/")[0] for name in after if after[name] != before.get(name)}


def html(project, name):
    return (project / "_build" / "html" / "book" / f"{name}.html").read_text(encoding="utf-8")


def result(project, run, seed=0):
    return Results.read([project / "_build" / "results" / run / "01_a" / f"seed-{seed}.json"])


def test_the_first_build_measures_every_chapter_and_tells_it(project):
    assert stamps(project).keys() == {"01_a/seed-0", "02_b/seed-0"}
    assert "Demo data, not results" in html(project, "01_a") and "How this was run" in html(project, "01_a")
    assert "It is 2.00\xa0m high." in html(project, "01_a") and "claimed It is high." in html(project, "results")
    executed = project / "_build" / "results" / "demo" / "01_a" / "seed-0.ipynb"
    assert "It is 2.00" in executed.read_text(encoding="utf-8"), "and leaves the executed notebook to read"
    assert result(project, "demo").provenance[0]["profile"] == "demo"


def planned(project, **variables):
    """How many jobs of each rule Snakemake would run."""
    listed = re.findall(r"^(\w+) +(\d+)$", snake(project, "--dry-run", "book", **variables), re.M)
    return {rule: int(count) for rule, count in listed if rule not in ("book", "total")}


@pytest.mark.parametrize(
    ("name", "line", "jobs"),
    [
        ("requirements.txt", "new==1.0", {"measure": 2, "tell": 2, "page": 1, "html": 1}),
        ("lib/report/explorer.js", "// newer", {"tell": 2, "page": 1, "html": 1}),
        ("lib/site/published.py", "# newer", {"page": 1, "html": 1}),
        ("_config.yml", "# newer", {"html": 1}),
    ],
)
def test_what_has_changed_runs_what_is_made_of_it_and_no_more(project, name, line, jobs):
    path = project / name
    before = path.read_bytes()
    path.write_bytes(before + line.encode() + b"\n")
    try:
        assert planned(project) == jobs
    finally:
        path.write_bytes(before)


def test_addresses_build_the_book_again_and_arguments_of_own_runs_nothing(project):
    assert planned(project, LWL_ARGS="-p level 9") == {}
    assert planned(project, LWL_SITE="https://me.example") == {"html": 1}
    assert planned(project, LWL_REPOSITORY="https://github.com/me/book") == {"html": 1}


def test_words_comments_dates_and_files_that_it_does_not_use_measure_nothing(project):
    for path in (*project.glob("lib/**/*.py"), *project.glob("book/*.ipynb"), project / "requirements.txt"):
        path.touch()
    (project / "lib" / "wgan.py").write_text("x = 1\n")
    (project / "lib" / "toy.py").write_text('def height(level):\n    """Of it."""\n    return 2.0 * level\n')
    write_chapter(project, "01_a", "# A comment.\n" + MEASURING, "say('Other words.')", "A better sentence.")
    write_profile(project, **{"01_a": "{level: 3, rate: 0.5}", "02_b": "{level: 3}"})
    assert measured_again(project, "book") == set()
    assert "Other words." in html(project, "01_a") and "A better sentence." in html(project, "01_a")


def test_what_changes_the_numbers_of_one_chapter_measures_that_one(project):
    write_chapter(project, "01_a", MEASURING + "\nx = 1")
    assert measured_again(project) == {"01_a"}


def test_profiles_seeds_and_custom_runs_have_their_own_places(project):
    before = stamps(project)
    write_profile(project, **{"01_a": "{rate: 2.0e-6}", "02_b": "{level: 3}"})
    targets = site(project, "book", "target", "01", "--profile", "laptop", "--seeds", "0", "2").split()
    targets += site(project, "book", "target", "01", "--custom").split()
    assert "SEEDS='0 x': whole numbers are wanted" in site(
        project, "book", "target", "01", "--seeds", "0", "x", fails=True
    )
    shutil.copy(project / "book" / "profiles" / "laptop.yaml", project / "book" / "profiles" / "my-own.v2.yaml")
    targets += site(project, "book", "target", "02", "--profile", "my-own.v2").split()
    # (Whoever told results by hand has their names in the environment; they are not taken for a run's.)
    snake(project, *targets, LWL_ARGS="-y 'level: 17'", LWL_TELL="/nowhere/seed-0.json")
    assert stamps(project, "my-own.v2").keys() == {"02_b/seed-0"}
    snake(project, "--dry-run", "--config", "profile=my-own.v2", "--", "_build/told/my-own.v2/02_b.ipynb")
    assert result(project, "laptop", 2).provenance[0]["parameters"] == {"level": 1, "rate": 2e-6, "seed": 2}
    assert result(project, "laptop", 2)["height"].mean == 2.5
    assert result(project, "demo.custom").provenance[0]["parameters"]["level"] == 17
    assert result(project, "demo.custom").provenance[0]["profile"] == "demo.custom"
    assert stamps(project) == before
    output = snake(project, *targets, fails=True, LWL_ARGS="-p seed 3")
    assert "say SEED" in output and "Traceback" not in output


def test_a_failed_chapter_keeps_its_notebook_ends_the_output_and_builds_no_book(project):
    write_chapter(project, "01_a", "print('so far')\nraise ValueError('the level is off')")
    output = snake(project, "book", fails=True)
    last = output.strip().splitlines()[-3:]
    assert last[0] == "Chapter 01_a-0 failed in code cell 3 (print('so far'))"
    assert last[1] == "ValueError: the level is off"
    kept = project / "_build" / "logs" / "demo" / "01_a-0.ipynb"
    assert last[2].endswith("_build/logs/demo/01_a-0.ipynb") and "so far" in kept.read_text(encoding="utf-8")
    # A cell that cannot tell throws no measured result away.
    write_chapter(project, "01_a", telling="say('{gone}', other=1)")
    output = snake(project, "book", fails=True)
    assert "A cell failed after the results were written" in output
    assert "01_a cannot be told: its cell 'telling'" in output and "KeyError: 'gone'" in output
    assert stamps(project).keys() == {"01_a/seed-0", "02_b/seed-0"}
    write_chapter(project, "01_a")
    assert measured_again(project, "book") == set()


def test_a_book_of_published_results_measures_nothing(project):
    write_profile(project, **{"01_a": "{level: 3}", "02_b": "{level: 3}"})
    commit = commit_all(project)
    seeds = (0, 1)
    for name in ("01_a", "02_b"):
        came_from = {"chapter": name, "commit": commit, "code": code.of_chapter(name, code.read_from(project))}
        for seed in seeds:
            path = project / "_build" / "results" / "laptop" / name / f"seed-{seed}.json"
            write_results(path, seed, 2.0 + seed, **came_from)
        assert "commit both" in site(project, "publish", "store", name[:2], "--profile", "laptop", "--seeds", "0", "1")
    assert site(project, "publish", "check").splitlines() == ["01_a: up to date", "02_b: up to date"]
    shutil.rmtree(project / "_build")
    snake(project, *HTML)
    assert not (project / "_build" / "results").exists()
    assert "Demo data" not in html(project, "01_a") and "laptop, 2 runs" in html(project, "01_a")
    assert "published 2.5 2.5" in html(project, "results"), "the page of numbers follows"
    write_chapter(project, "01_a", MEASURING + "\nx = 1", "say('New words.')")
    snake(project, *HTML)
    assert "Measured by an earlier version" in html(project, "01_a") and "New words." in html(project, "01_a")
    assert "01_a: seed 0 (" in site(project, "publish", "check", fails=True)


def test_what_was_never_measured_is_said(project):
    write_chapter(project, "03_c")
    write_toc(project, "01_a", "02_b", "03_c", "results")
    output = snake(project, *HTML, fails=True)
    assert "03_c has no published results and no demo run that could be shown: run `make book`" in output
    write_toc(project, "01_a", "02_b", "results")


def test_chapter_seven_is_a_notebook_a_file_a_block_and_a_line(project):
    placed = "# The library\n\n```{eval-rst}\n.. automodule:: lib.toy\n   :members:\n```\n"
    (project / "book" / "api.md").write_text(placed, encoding="utf-8")
    write_toc(project, "01_a", "02_b", "07_seven", "results", "api")
    write_profile(project, **{"01_a": "{level: 2}", "02_b": "{level: 3}", "07_seven": "{level: 5}"})
    write_chapter(project, "07_seven", MEASURING.replace("toy", "seven"), CLAIMING)
    seven = '"""The seventh idea."""\n\n\ndef height(level: int) -> float:\n    """Of it."""\n    return 7.0 * level\n'
    (project / "lib" / "seven.py").write_text(seven)
    snake(project, "book")
    assert "It is 7.00\xa0m high." in html(project, "07_seven")
    assert "Demo data" in html(project, "07_seven") and "Demo data" not in html(project, "02_b")
    assert "lib.seven.height" in html(project, "api") and "claimed It is high. It is high." in html(project, "results")

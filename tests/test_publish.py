"""Storing results and checking them, on a project of its own with its own repository."""

import json
import os

import numpy as np
import pytest
from toys import commit_all, git, make_project, write_chapter, write_profile, write_results

from lib import code
from lib.report.results import Results
from lib.site import publish, published
from lib.site.contents import BookError


@pytest.fixture
def project(tmp_path):
    project = make_project(tmp_path, "01_a")
    commit_all(project)
    return project


def run(project, seed=0, height=2.0, profile="laptop", **facts):
    """Results of a run of the committed code."""
    ours = {
        "commit": git(project, "rev-parse", "--short=10", "HEAD"),
        "code": code.of_chapter("01_a", code.read_from(project)),
        "profile": profile,
    }
    path = project / "_build" / "results" / profile / "01_a" / f"seed-{seed}.json"
    return write_results(path, seed, height, **{**ours, **facts})


def store(project, *seeds):
    return publish.store("01_a", "laptop", seeds or (0,), project)


def test_results_are_stored_whole_of_the_first_seed_and_of_others_what_was_kept_of_every_run(project):
    for seed in (0, 1, 10):
        run(project, seed, 2.0 + seed)
    stored = store(project, 0, 1, 10)
    assert [path.relative_to(project).as_posix() for path in stored] == [
        f"published/01_a/seed-{seed}.json" for seed in (0, 1, 10)
    ]
    assert published.paths("01_a", project) == stored
    results = Results.read(stored)
    assert results["height"].values == (2.0, 3.0, 12.0) and results.array("walk").shape == (2, 2)
    assert [curve[1] for curve in results.arrays("curve")] == [2.0, 3.0, 12.0]
    with np.load(stored[1].with_suffix(".npz")) as arrays:
        assert arrays.files == ["curve"]
    assert published.are_valid("01_a", project) and publish.check("01_a", project) == [
        "missing: seeds 2, 3, 4, 5, 6, 7, 8, 9"
    ]
    assert published.published_results(project).keys() == {"01_a"}


def test_seeds_can_be_stored_one_by_one(project):
    for seed in (0, 1):
        run(project, seed)
        store(project, seed)
    assert Results.read(published.paths("01_a", project)).runs == 2
    run(project, 2, parameters={"level": 4, "rate": 0.5, "seed": 2})
    with pytest.raises(BookError, match="differ in level"):
        store(project, 2)


def another_place(project, **facts):
    """A run that was put where one of seed 0 and the laptop profile belongs."""
    found = run(project, **facts)
    target = project / "_build" / "results" / "laptop" / "01_a" / "seed-0.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    for suffix in (".npz", ".json"):
        found.with_suffix(suffix).rename(target.with_suffix(suffix))


def no_commit(project):
    run(project, commit="abcdef0123 with changes")


def unknown_commit(project):
    run(project, commit="unknown")


def other_commit(project):
    run(project, commit="abcdef0123")


def other_code(project):
    run(project, code={**code.of_chapter("01_a", code.read_from(project)), "lib/toy.py": "0" * 16})


def too_large(project):
    path = run(project)
    results = Results.read([path])
    results.keep("noise", np.random.default_rng(0).integers(0, 256, 1_600_000, np.uint8))
    results.save(path, results.provenance[0])


def a_path(project):
    run(project, data={"title": f"folder {project}/data/x"})


def a_path_in_an_array(project):
    path = run(project)
    results = Results.read([path])
    results.keep("names", np.array([f"{project}/data/x.png"]))
    results.save(path, results.provenance[0])


def damaged(project):
    run(project).with_suffix(".npz").write_bytes(b"")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda project: None, r"There are no results at .*seed-0\.json"),
        (lambda project: another_place(project, profile="own"), "holds a run of profile own, seed 0: remove it"),
        (lambda project: another_place(project, seed=3), "holds a run of profile laptop, seed 3: remove it"),
        (lambda project: another_place(project, chapter="02_b"), "holds results of 02_b, not of 01_a"),
        (no_commit, "no commit holds .abcdef0123 with changes"),
        (unknown_commit, "no commit holds .unknown"),
        (other_commit, "abcdef0123 is not in this repository"),
        (other_code, r"lib/toy\.py differed"),
        (too_large, r"1\.6 MB, and 1\.5 are allowed"),
        (a_path, "names a path of this machine"),
        (a_path_in_an_array, r"names a path of this machine, .*/data/x\.png"),
        (damaged, r"seed-0\.npz is not the file"),
    ],
)
def test_what_cannot_be_stood_for_is_not_stored(project, make, message):
    make(project)
    with pytest.raises(BookError, match=message):
        store(project)
    assert not (project / "published").exists()


def test_demo_runs_are_not_stored(project):
    run(project, profile="demo")
    with pytest.raises(BookError, match="Demo runs are not published"):
        publish.store("01_a", "demo", [0], project)


def test_runs_of_different_code_do_not_stand_beside_each_other(project):
    run(project)
    store(project)
    (project / "lib" / "toy.py").write_text("def height(level):\n    return 3.0 * level\n")
    commit_all(project)
    run(project, 1)
    with pytest.raises(BookError, match=r"published/01_a/seed-1\.json and .* they differ in lib/toy\.py"):
        store(project, 1)
    assert len(published.paths("01_a", project)) == 1
    run(project)
    store(project, 0, 1)


def test_a_callers_git_variables_mean_another_repository(project, monkeypatch):
    run(project)
    monkeypatch.setenv("GIT_DIR", str(project / "elsewhere"))
    monkeypatch.setenv("GIT_WORK_TREE", str(project / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(project / "elsewhere"))
    assert store(project)
    assert not (project / "elsewhere").exists() and "GIT_DIR" in os.environ


# --- checking ------------------------------------------------------------------------


@pytest.fixture
def stored(project):
    for seed in (0, 1):
        run(project, seed)
    store(project, 0, 1)
    return project


def test_what_is_not_published_is_said(project):
    assert publish.check("01_a", project) == ["not published: the page shows the demo run"]


def test_prose_comments_and_files_that_it_does_not_use_make_no_results_old(stored):
    write_chapter(stored, "01_a", measuring="# A comment.\n" + measuring(stored), telling="1", prose="Other.")
    (stored / "lib" / "wgan.py").write_text("x = 1\n")
    assert publish.check("01_a", stored) == []


def measuring(project):
    return code.measuring_sources((project / "book" / "01_a.ipynb").read_text(encoding="utf-8"))[0]


def test_changed_measuring_cells_files_and_parameters_are_said(stored):
    write_chapter(stored, "01_a", measuring=measuring(stored) + "\nx = 1")
    assert not published.are_valid("01_a", stored)
    (stored / "lib" / "toy.py").write_text("def height(level):\n    return 3.0 * level\n")
    write_profile(stored, **{"01_a": "{level: 4}"})
    said = publish.check("01_a", stored)
    assert sum("measuring cells changed since; the page says so" in line for line in said) == 2
    assert sum("older than lib/toy.py" in line for line in said) == 2
    assert said[-1] == "level was 3, and is 4 in the laptop profile" and len(said) == 5


def test_missing_and_damaged_runs_are_said(stored):
    (stored / "published" / "01_a" / "seed-0.json").unlink()
    assert "missing: seed 0" in publish.check("01_a", stored)
    (stored / "published" / "01_a" / "seed-1.json").write_text("{")
    assert "seed-1.json is damaged" in publish.check("01_a", stored)[0]
    assert not published.are_valid("01_a", stored)


def test_files_that_are_no_runs_are_left_alone(stored):
    for name in ("seed-x.json", "seed-.json", "notes.json"):
        (stored / "published" / "01_a" / name).write_text("{}")
    assert len(published.paths("01_a", stored)) == 2
    page = json.loads((stored / "published" / "01_a" / "seed-1.json").read_text(encoding="utf-8"))
    assert page["provenance"]["profile"] == "laptop"

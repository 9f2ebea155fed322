"""Which results the book shows, and what pages of numbers read."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from toys import make_project, write_results

from lib.site import engine, published
from lib.site.contents import BookError


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path, "01_a", "02_b")


def put(project, place, *seeds, **facts):
    return [write_results(project / place / "01_a" / f"seed-{seed}.json", seed, **facts) for seed in seeds]


def test_the_default_book_shows_published_results_and_else_the_demo_run(project):
    with pytest.raises(BookError, match=r"01_a has no published results and no demo run .* run `make book`"):
        published.shown("01_a", "demo", project)
    demo = put(project, "_build/results/demo", 0, profile="demo")
    assert published.shown("01_a", "demo", project) == demo
    stored = put(project, "published", 0, 2, 10)
    assert published.shown("01_a", "demo", project) == stored, "in the order of their numbers"
    own = put(project, "_build/results/laptop", 1)
    assert published.shown("01_a", "laptop", project) == own


def test_snakemake_is_asked_for_what_a_page_needs_and_no_more(project):
    def asked(profile="demo", measuring=True):
        files = engine.results("01_a", profile, ["0"], measuring, project)
        assert files[1::2] == [name.replace(".json", ".npz") for name in files[::2]]
        return files[::2]

    demo = ["_build/results/demo/01_a/seed-0.json"]
    assert asked() == demo and asked(measuring=False) == []
    put(project, "published", 0, code={"cells": "0" * 16})
    stored = ["published/01_a/seed-0.json"]
    assert asked() == stored + demo, "results of other cells may lack what the page shows"
    assert asked(measuring=False) == stored
    put(project, "published", 0, code=_code(project))
    assert asked() == stored
    put(project, "_build/results/laptop", 1)
    assert asked("laptop") == [f"_build/results/laptop/01_a/seed-{seed}.json" for seed in (1, 0)]
    assert asked("laptop", measuring=False) == ["_build/results/laptop/01_a/seed-1.json"]


def _code(project):
    from lib import code

    return code.of_chapter("01_a", code.read_from(project))


def test_pages_of_numbers_read_published_results_by_chapter(project):
    assert published.published_results(project) == {}
    (path,) = put(project, "published", 0)
    assert published.published_results(project)["01_a"]["height"].mean == 2.0
    path.parent.rename(path.parent.with_name("02_b"))
    with pytest.raises(BookError, match=r"02_b/seed-0\.json holds results of 01_a"):
        published.published_results(project)
    path.parent.with_name("02_b").rename(path.parent)
    path.with_suffix(".npz").write_bytes(b"")
    with pytest.raises(BookError, match=r"seed-0\.npz"):
        published.published_results(project)


def test_pages_of_numbers_read_what_chapters_claimed_as_they_were_told(project, monkeypatch):
    assert published.told_claims(root=project) == {}
    claim = {"statement": "It grows.", "report": "000", "outcome": "holds", "evidence": "2 m"}
    metadata = {"scrapbook": {"name": "claims", "mime_prefix": "application/papermill.record/"}, "record": [claim]}
    cell = new_code_cell("", outputs=[new_output("display_data", {"text/plain": ""}, metadata=metadata)])
    for profile, name, cells in (("demo", "01_a", [cell]), ("demo", "02_b", []), ("paper", "02_b", [cell])):
        path = project / "_build" / "told" / profile / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(new_notebook(cells=cells), path)
    assert published.told_claims(root=project) == {"01_a": [claim]}
    monkeypatch.setenv("LWL_PROFILE", "paper")
    assert published.told_claims(root=project) == {"02_b": [claim]}

"""Telling cells alone: what they have, what they have not, and what the page says."""

import nbformat
import pytest
from toys import FACTS, make_project, text_of, write_chapter, write_results

from lib import code
from lib.site import contents, tell
from lib.site.contents import BookError
from lib.site.tell import TellError


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("telling"), "01_a")


@pytest.fixture
def results(project, tmp_path):
    """Two runs, of the measuring cells that the chapter has."""
    cells = {"code": code.of_chapter("01_a", code.read_from(project))}
    return [write_results(tmp_path / f"seed-{s}.json", s, 2.0 + s, **cells) for s in (0, 1)]


def test_telling_cells_run_on_results_and_measuring_cells_do_not(project, results):
    write_chapter(project, "01_a", measuring="raise RuntimeError('measured')")
    told = tell.tell("01_a", results, project)
    assert [cell.get("id") for cell in told.cells] == [
        "title", "parameters", "opening", "prose", "measuring", "finish", "telling",
    ]  # fmt: skip
    measuring, finish, telling = told.cells[4:]
    assert not measuring.outputs and not finish.outputs and measuring.source.startswith("raise")
    assert "It is 2.50\xa0m high." in text_of(told) and telling.execution_count


HAVING_NOTHING = """\
import os, socket, urllib.request
from pathlib import Path

import matplotlib

here = [name for name in ("LWL_DATA", "LWL_CHECKPOINTS", "LWL_CACHE") if Path(os.environ[name]).exists()]
print("found", here, os.listdir(), Path.home().name.startswith("lwl-tell-"), matplotlib.rcParams["font.size"])
print("backend", matplotlib.get_backend(), "GIT_DIR" in os.environ, "MINE" in globals(), "socket" in dir())
for ask in (
    lambda: urllib.request.urlopen("https://example.org"),
    lambda: socket.create_connection(("127.0.0.1", 9)),
    lambda: socket.socket().connect(("127.0.0.1", 9)),
):
    try:
        ask()
    except OSError as error:
        print(error)
print("Ein Maß: ½ · ‖z‖", open("x", "w").encoding, level)"""


def test_a_telling_cell_finds_neither_data_nor_network_nor_the_users_settings(project, results, tmp_path, monkeypatch):
    home = tmp_path / "home"
    for name, text in {
        "ipython/profile_default/startup/mine.py": "MINE = 1",
        "matplotlib/matplotlibrc": "font.size: 30",
        "data/x.txt": "data",
    }.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("IPYTHONDIR", str(home / "ipython"))
    monkeypatch.setenv("MPLCONFIGDIR", str(home / "matplotlib"))
    monkeypatch.setenv("MPLBACKEND", "svg")
    monkeypatch.setenv("LWL_DATA", str(home / "data"))
    monkeypatch.setenv("GIT_DIR", str(home))
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    monkeypatch.setenv("LC_ALL", "C")
    write_chapter(project, "01_a", telling=HAVING_NOTHING)
    told = text_of(tell.tell("01_a", results, project))
    assert "found [] [" in told and "] True 10.0" in told
    assert "backend inline False False True" in told or "matplotlib_inline.backend_inline False False True" in told
    assert told.count("no network while a page is told") == 3
    assert "Ein Maß: ½ · ‖z‖ utf-8 3" in told, "and parameters are those that the runs used"


def test_an_error_names_chapter_cell_and_what_went_wrong(project, results):
    write_chapter(project, "01_a", telling="# Of it\nmodel.eval()")
    with pytest.raises(TellError, match=r"(?s)01_a .* cell 'telling' \(# Of it\).*NameError: .*'model'") as caught:
        tell.tell("01_a", results, project)
    assert not caught.value.missing
    write_chapter(project, "01_a", telling="print(run.results['heigth'])")
    with pytest.raises(TellError, match=r"no number called 'heigth'\. Did you mean 'height'") as caught:
        tell.tell("01_a", results, project)
    assert caught.value.missing
    write_chapter(project, "01_a", prose="It is {eval}`level`, or {eval}`run.results['width']`.")
    with pytest.raises(
        TellError, match=r"told: \{eval\}`run\.results\['width'\]` in its cell 'prose' failed"
    ) as caught:
        tell.tell("01_a", results, project)
    assert caught.value.missing


def test_prose_quotes_what_its_place_says_and_not_what_later_cells_make_of_it(project, results):
    write_chapter(
        project, "01_a", telling="level = 99", prose="It is {eval}`print(1) or level`: {eval}`run.results['height']`."
    )
    told = tell.tell("01_a", results, project)
    assert [cell.source for cell in told.cells if cell.get("id") == "prose"] == ["It is 3: 2.50\xa0m."]
    assert len(told.cells) == 7


# --- pages ---------------------------------------------------------------------------


def published(project, **facts):
    return write_results(project / "published" / "01_a" / "seed-0.json", **facts)


def demo(project, **facts):
    path = project / "_build" / "results" / "demo" / "01_a" / "seed-0.json"
    return write_results(path, height=7.0, profile="demo", **facts)


@pytest.fixture
def chapter(tmp_path):
    project = make_project(tmp_path, "01_a")
    return project, {"code": code.of_chapter("01_a", code.read_from(project))}


def test_published_results_are_told_without_a_banner_and_with_how_they_were_made(chapter):
    project, today = chapter
    published(project, **today)
    demo(project, **today)
    page = tell.page("01_a", "demo", project)
    assert "2.00\xa0m" in text_of(page)
    assert [cell.get("id") for cell in page.cells[:2]] == ["title", "parameters"]
    last = page.cells[-1].source
    assert last.startswith("::::{admonition} How this was run\n:class: dropdown\n")
    for fact in ("toy data", "5 images for training, 1 for testing", "0123456789ab", "laptop, 1 run"):
        assert fact in last
    for fact in ("abcdef0123", "A processor, 1 thread |", "3 minutes", "0.5 GB", "2026-01-02", "numpy 2.0"):
        assert fact in last
    assert "| `level` | **`3`** | `1` | of it |" in last and "| `rate` | `0.5` |  | of change |" in last
    nbformat.validate(page)


def test_changed_prose_lib_and_comments_bring_no_banner_and_changed_measuring_cells_do(chapter):
    project, today = chapter
    published(project, **today)
    (project / "lib" / "toy.py").write_text("def height(level):\n    return 3.0 * level\n")
    write_chapter(project, "01_a", measuring="# A comment.\n" + measuring(project), prose="Better.")
    assert tell.page("01_a", "demo", project).cells[1].id == "parameters"
    write_chapter(project, "01_a", measuring=measuring(project) + "\nx = 1")
    page = tell.page("01_a", "demo", project)
    assert "Measured by an earlier version of this chapter's code" in page.cells[1].source
    assert "`abcdef0123` (2026-01-02)" in page.cells[1].source and "2.00\xa0m" in text_of(page)


def measuring(project):
    return next(c.source for c in contents.notebook("01_a", project).cells if c.get("id") == "measuring")


def test_what_old_results_lack_is_told_from_the_demo_run_and_the_page_says_so(chapter):
    project, today = chapter
    published(project, code={"cells": "1" * 16})
    write_chapter(project, "01_a", telling="print(run.results['width'])")
    with pytest.raises(TellError, match=r"(?s)width.* are of earlier measuring cells\. Say `make book`"):
        tell.page("01_a", "demo", project)
    path = demo(project, **today)
    path.write_text(path.read_text().replace('"height"', '"width"'))
    page = tell.page("01_a", "demo", project)
    assert "Demo data, not results" in page.cells[1].source
    assert "Results are published, but" in page.cells[1].source


def test_what_valid_results_lack_is_an_error(chapter):
    project, today = chapter
    published(project, **today)
    demo(project, **today)
    write_chapter(project, "01_a", telling="print(run.results['width'])")
    with pytest.raises(TellError, match="width"):
        tell.page("01_a", "demo", project)


def test_a_profile_asked_for_is_told_and_not_what_is_published(chapter):
    project, today = chapter
    published(project, **today)
    with pytest.raises(BookError, match="01_a has no run that could be shown: run `make book PROFILE=paper`"):
        tell.page("01_a", "paper", project)
    own = project / "_build" / "results" / "paper" / "01_a" / "seed-0.json"
    write_results(own, height=9.0, profile="paper", **today)
    page = tell.page("01_a", "paper", project)
    assert "9.00\xa0m" in text_of(page) and "paper, 1 run" in page.cells[-1].source


def test_damaged_results_are_named(chapter):
    project, today = chapter
    path = published(project, **today)
    path.with_suffix(".npz").write_bytes(b"")
    with pytest.raises(BookError, match=r"seed-0\.npz"):
        tell.page("01_a", "demo", project)
    assert FACTS["profile"] == "laptop"

"""Chapters that do not measure and tell apart yet; deleted with ``lib.site.old_way``."""

import base64
import io
import json

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image
from toys import commit_all, git

from lib.site import old_way as published
from lib.site.contents import BookError

CODE = "from lib import used\nprint(1)"
FACTS = {
    "data": "MNIST",
    "images": "5 for training, 2 for testing",
    "data_sha256": "0123456789abcdef",
    "date": "2026-01-01",
    "device": "CPU, 2 threads",
    "torch": "2.14.1",
    "seconds": 12.3,
    "peak_memory_gb": 1.2,
    "parameters": {"epochs": 7},
}


def notebook(code=CODE, prose="Some prose.", facts=None, text="1\n"):
    cells = [
        new_markdown_cell("# Title"),
        new_code_cell("epochs: int = 3  # passes", metadata={"tags": ["parameters"]}),
        new_markdown_cell(prose),
        new_code_cell(code),
    ]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    if facts is not None:
        metadata = {"scrapbook": {"name": "provenance", "mime_prefix": "application/papermill.record/"}}
        cells[3].outputs = [
            new_output("stream", name="stdout", text=text),
            new_output("display_data", {"text/plain": ""}, metadata={**metadata, "record": facts}),
        ]
        cells[3].metadata["papermill"] = {"duration": 1.0}
    return new_notebook(cells=cells)


@pytest.fixture
def project(tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / "lib").mkdir()
    (tmp_path / "_config.yml").write_text("title: Test\n")
    (tmp_path / "_toc.yml").write_text("root: book/intro\nchapters:\n  - file: book/01_x\n")
    (tmp_path / "book" / "intro.md").write_text("# Intro\n")
    (tmp_path / "lib" / "used.py").write_text("from lib.deeper import f\n")
    (tmp_path / "lib" / "deeper.py").write_text("def f():\n    return 1\n")
    (tmp_path / "lib" / "unused.py").write_text("")
    nbformat.write(notebook(), tmp_path / "book" / "01_x.ipynb")
    commit_all(tmp_path)
    return tmp_path


def run(project, profile="laptop", **changes):
    path = project / "_build" / "runs" / profile / "01_x.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {**FACTS, "commit": git(project, "rev-parse", "--short", "HEAD")}
    nbformat.write(notebook(**{"facts": facts, **changes}), path)


def publish(project):
    return published.publish("01_x", "laptop", root=project)


def shown(project):
    return published.page("01_x", "demo", project)


def test_publishing_stores_outputs_numbers_and_the_code_they_came_from(project):
    run(project)
    stored = nbformat.read(publish(project), 4)
    assert stored.cells[3].outputs[0].text == "1\n"
    assert "papermill" not in stored.cells[3].metadata
    numbers = json.loads((project / "published" / "01_x.json").read_text())
    assert numbers["profile"] == "laptop" and numbers["records"]["provenance"]["data"] == "MNIST"
    assert list(numbers["lib"]) == ["lib/deeper.py", "lib/used.py"]
    assert published.metrics(project) == {"01_x": numbers}


def test_a_published_run_is_shown_without_any_other(project):
    run(project)
    publish(project)
    box = shown(project).cells[1].source
    assert "**Profile**: laptop" in box and "Demo data" not in box


def test_changed_prose_keeps_the_published_outputs(project):
    run(project)
    publish(project)
    nbformat.write(notebook(prose="A better sentence."), project / "book" / "01_x.ipynb")
    page = shown(project)
    assert page.cells[3].source == "A better sentence." and page.cells[4].outputs[0].text == "1\n"
    assert published.staleness("01_x", project) is None


def test_changed_code_shows_the_demo_run_with_its_banner(project):
    run(project)
    publish(project)
    nbformat.write(notebook(code=CODE + "\n"), project / "book" / "01_x.ipynb")
    with pytest.raises(BookError, match="has not been executed with the demo profile"):
        shown(project)
    run(project, "demo", code=CODE + "\n", text="2\n")
    page = shown(project)
    assert (
        "Demo data, not results" in page.cells[1].source and "published run, but of other code" in page.cells[1].source
    )
    assert page.cells[4].outputs[0].text == "2\n"
    assert "code cells have changed" in published.staleness("01_x", project)


def test_a_profile_asked_for_is_shown_and_not_what_is_published(project):
    run(project)
    publish(project)
    run(project, "paper", text="3\n")
    page = published.page("01_x", "paper", project)
    assert page.cells[4].outputs[0].text == "3\n"


def test_a_run_is_as_old_as_its_commit_and_not_as_its_publication(project):
    run(project)
    (project / "lib" / "deeper.py").write_text("def f():\n    return 2\n")
    publish(project)
    assert published.staleness("01_x", project) == "older than lib/deeper.py"


def test_staleness_sees_code_of_the_library_that_the_chapter_uses(project):
    assert published.staleness("01_x", project) == "not published"
    run(project)
    publish(project)
    (project / "lib" / "unused.py").write_text("x = 1\n")
    (project / "lib" / "deeper.py").write_text('def f():\n    """A docstring."""\n    return 1\n')
    assert published.staleness("01_x", project) is None
    (project / "lib" / "deeper.py").write_text("def f():\n    return 2\n")
    assert published.staleness("01_x", project) == "older than lib/deeper.py"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"code": "print(2)"}, "cannot be published .its code cells"),
        ({"facts": {**FACTS, "commit": "abc1234 with changes"}}, "no commit names"),
        ({"text": "x" * 2_600_000}, "2.6 MB, more than 2.5"),
    ],
)
def test_what_cannot_be_stood_for_is_not_published(project, changes, message):
    with pytest.raises(BookError, match="there is no"):
        publish(project)
    run(project, **changes)
    with pytest.raises(BookError, match=message):
        publish(project)
    assert not (project / "published").exists()


def test_no_path_of_the_machine_is_published(project):
    run(project, text=f"{project}/data/MNIST is read\n")
    with pytest.raises(BookError, match="data/MNIST: print file names only"):
        publish(project)


def as_png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def pixels_of(png):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")).astype(int)


def test_grey_images_and_figures_are_stored_smaller_and_look_the_same():
    noise = np.random.default_rng(0).integers(0, 256, (80, 90, 1), np.uint8).repeat(3, 2)
    found = published.with_palette(as_png(noise))
    assert len(found) < len(as_png(noise)) and (pixels_of(found) == noise).all()


def test_photographs_keep_their_colours():
    noise = np.random.default_rng(0).integers(0, 256, (80, 90, 3), np.uint8)
    assert published.with_palette(as_png(noise)) == as_png(noise)


# --- merging -------------------------------------------------------------------------


def executed():
    ran = notebook(facts={**FACTS, "commit": "abc1234"})
    ran.cells[3].outputs += [
        new_output("stream", name="stderr", text="\r 10%|#   \r100%|####"),
        new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "0%|  |"}),
    ]
    injected = new_code_cell("# Parameters\nepochs = 7\n", metadata={"tags": ["injected-parameters"]})
    ran.cells.insert(2, injected)
    return ran


def test_a_page_takes_prose_from_the_source_and_outputs_from_the_run():
    page = published.merge(notebook(prose="New prose."), executed())
    assert page.cells[2].source == "New prose." and page.cells[3].outputs[0].text == "1\n"
    assert len(page.cells) == 4, "papermill's injected cell is no part of a page"


def test_progress_bars_do_not_reach_the_page():
    outputs = published.merge(notebook(), executed()).cells[3].outputs
    assert [output.output_type for output in outputs] == ["stream", "display_data"]


def test_outputs_never_stand_under_other_code():
    with pytest.raises(BookError, match="code cells"):
        published.merge(notebook(code="print(2)"), executed())


def test_demo_pages_say_that_they_are_no_results_and_what_was_set(project):
    run(project, "demo")
    box = shown(project).cells[1].source
    assert "Demo data, not results" in box and "`epochs=7`" in box


def test_no_page_is_made_from_missing_or_outdated_runs(project):
    with pytest.raises(BookError, match="01_x has not been executed with the demo profile"):
        shown(project)
    run(project, "demo", code="print(2)")
    with pytest.raises(BookError, match="01_x is out of date"):
        shown(project)


def test_long_runs_are_told_in_minutes():
    assert published._duration(12.3) == "12 s" and published._duration(4482.8) == "75 minutes"
    assert published._duration(600, 3000) == "60 minutes (50 minutes of training in an earlier go)"


def test_a_run_depends_on_the_lib_files_that_its_cells_import(project):
    before = published.digests("01_x", project)
    assert before.keys() == {"cells", "lib/used.py", "lib/deeper.py"}
    (project / "lib" / "unused.py").write_text("x = 1\n")
    nbformat.write(notebook(prose="Other."), project / "book" / "01_x.ipynb")
    assert published.digests("01_x", project) == before
    nbformat.write(notebook(code=CODE + "\n"), project / "book" / "01_x.ipynb")
    assert published.digests("01_x", project) != before


def test_a_page_that_did_not_change_is_laid_out_as_it_was(project):
    """Cells that are put in have names of their own, or every build would read every page anew."""
    run(project)
    publish(project)
    assert nbformat.writes(shown(project)) == nbformat.writes(shown(project))

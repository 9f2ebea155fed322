import base64
import io
import json
import subprocess

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from lib.site import book, published
from lib.site.book import BookError

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
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "-c", "user.name=Me", "-c", "user.email=me@example.org", "commit", "--quiet", "-m", "All")
    return tmp_path


def git(project, *arguments):
    return subprocess.run(["git", *arguments], cwd=project, capture_output=True, text=True, check=True).stdout.strip()


def run(project, profile="laptop", **changes):
    path = project / "_build" / "runs" / profile / "01_x.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {**FACTS, "commit": git(project, "rev-parse", "--short", "HEAD")}
    nbformat.write(notebook(**{"facts": facts, **changes}), path)


def publish(project):
    return published.publish("01_x", "laptop", root=project)


def shown(project):
    book.assemble("demo", project / "_build" / "source", root=project)
    return nbformat.read(project / "_build" / "source" / "book" / "01_x.ipynb", 4)


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
    book.assemble("paper", project / "_build" / "source", root=project)
    page = nbformat.read(project / "_build" / "source" / "book" / "01_x.ipynb", 4)
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

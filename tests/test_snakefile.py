"""The engine, on a copy of the project with two small chapters that import nothing."""

import os
import shutil
import subprocess
import sys
import time

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from lib.files import ROOT
from lib.site import book, published

PROVENANCE = """
from IPython.display import display
facts = {"data": "none", "images": "0", "data_sha256": "0" * 12, "date": "", "commit": "abc1234",
         "device": "", "torch": "", "seconds": 0, "peak_memory_gb": 0, "parameters": {"level": level}}
display({"application/papermill.record/text/plain": ""}, raw=True, metadata={
    "scrapbook": {"name": "provenance", "mime_prefix": "application/papermill.record/"}, "record": facts})
"""


def write_chapter(project, name, code="print(level)", prose="Prose."):
    parameters = new_code_cell("level: int = 1  # of it", metadata={"tags": ["parameters"]})
    cells = [new_markdown_cell(f"# {name}"), parameters, new_markdown_cell(prose), new_code_cell(code)]
    cells.append(new_code_cell(PROVENANCE, metadata={"tags": ["remove-cell"]}))
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), project / "book" / f"{name}.ipynb")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = tmp_path_factory.mktemp("project")
    (project / "book" / "profiles").mkdir(parents=True)
    (project / "lib").mkdir()
    for name in ("Snakefile", "requirements.txt", "_config.yml"):
        shutil.copy(ROOT / name, project / name)
    for name in ("__init__", "book", "published", "offline", "embed", "files"):
        shutil.copy(ROOT / "lib" / f"{name}.py", project / "lib")
    shutil.copy(ROOT / "book" / "references.bib", project / "book")
    shutil.copytree(ROOT / "book" / "images", project / "book" / "images")
    (project / "lib" / "used.py").write_text("")
    (project / "_toc.yml").write_text(
        "format: jb-book\nroot: book/intro\nchapters:\n- file: book/01_a\n- file: book/02_b\n"
    )
    (project / "book" / "intro.md").write_text("# Intro\n\nSome text.\n")
    (project / "book" / "profiles" / "laptop.yaml").write_text("01_a: {level: 2.0e-6}\n02_b: {level: 3}\n")
    write_chapter(project, "01_a")
    write_chapter(project, "02_b")
    snake(project, "book")
    return project


def snake(project, *arguments, fails=False, **environment):
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--max-checksum-file-size", "100MB"]
    environment = {**os.environ, "PYTHONPATH": str(project), **environment}
    result = subprocess.run(
        [*command, *arguments], cwd=project, env=environment, capture_output=True, text=True, timeout=200
    )
    assert (result.returncode != 0) == fails, result.stderr
    return result.stderr


def stamps(project, run="demo"):
    return {path.stem: path.stat().st_mtime_ns for path in (project / "_build" / "runs" / run).glob("*.ipynb")}


def ran(project, change):
    """Which chapters a build runs again after a change."""
    before = stamps(project)
    time.sleep(0.01)
    change()
    snake(project, "chapters")
    after = stamps(project)
    return {name for name in after if after[name] != before.get(name)}


def level(path):
    return book.records(nbformat.read(path, 4))["provenance"]["parameters"]["level"]


def page(project, name):
    return (project / "_build" / "html" / "book" / f"{name}.html").read_text()


def test_the_first_build_holds_every_executed_chapter(project):
    assert (project / "_build" / "html" / "index.html").exists()
    assert stamps(project).keys() == {"01_a", "02_b"}
    assert "Demo data, not results" in page(project, "01_a")


def test_only_what_changed_in_content_runs_again(project):
    def touch():
        for path in (*project.glob("lib/*.py"), *project.glob("book/*.ipynb"), project / "requirements.txt"):
            path.touch()

    assert ran(project, touch) == set()
    assert ran(project, lambda: write_chapter(project, "01_a", code="print(level + 1)")) == {"01_a"}
    assert ran(project, lambda: (project / "lib" / "used.py").write_text("x = 1\n")) == {"01_a", "02_b"}


def test_changed_prose_reaches_the_page_without_a_run(project):
    write_chapter(project, "02_b")
    snake(project, "chapters")
    assert ran(project, lambda: write_chapter(project, "02_b", prose="A better sentence.")) == set()
    snake(project, "book")
    assert "A better sentence." in page(project, "02_b")


def test_a_profile_sets_its_own_chapters_parameters(project):
    targets = ["_build/runs/laptop/01_a.ipynb", "_build/runs/laptop/02_b.ipynb"]
    snake(project, *targets)
    assert level(project / targets[0]) == 2e-6, "a small number must not arrive as text"
    before = stamps(project, "laptop")
    (project / "book" / "profiles" / "laptop.yaml").write_text("01_a: {level: 2.0e-6}\n02_b: {level: 4}\n")
    snake(project, *targets)
    after = stamps(project, "laptop")
    assert before["01_a"] == after["01_a"] and before["02_b"] != after["02_b"]


def test_custom_runs_lie_beside_the_profiles_own(project):
    before = stamps(project)
    snake(project, "_build/runs/demo.custom/01_a.ipynb", LWL_ARGS="-y 'level: 17'")
    assert level(project / "_build" / "runs" / "demo.custom" / "01_a.ipynb") == 17
    assert stamps(project) == before


def test_a_failed_chapter_keeps_its_notebook_ends_the_output_and_builds_no_book(project):
    index = project / "_build" / "html" / "index.html"
    before = index.stat().st_mtime_ns
    write_chapter(project, "01_a", code="print('so far')\nraise ValueError('the level is off')")
    output = snake(project, "book", fails=True)
    last = output.strip().splitlines()[-3:]
    assert last[0] == "Chapter 01_a failed in code cell 2 (print('so far'))"
    assert last[1] == "ValueError: the level is off"
    kept = project / "_build" / "logs" / "demo" / "01_a.ipynb"
    assert last[2].endswith("_build/logs/demo/01_a.ipynb") and "so far" in kept.read_text()
    assert not index.exists() or index.stat().st_mtime_ns == before
    write_chapter(project, "01_a")
    snake(project, "chapters")
    assert not kept.stat().st_size, "a good run must not leave an old failure behind"


def test_a_book_of_published_runs_needs_no_execution(project):
    snake(project, "_build/runs/laptop/01_a.ipynb", "_build/runs/laptop/02_b.ipynb")
    for name in ("01_a", "02_b"):
        published.publish(name, "laptop", root=project)
    shutil.rmtree(project / "_build")
    snake(project, "--allowed-rules", "html", "page", "--forcerun", "html", "--", "html")
    assert "**Profile**" not in page(project, "02_b") and "<strong>Profile</strong>: laptop" in page(project, "02_b")
    assert not (project / "_build" / "runs").exists()


def test_a_page_of_numbers_follows_what_is_published(project):
    code = "from lib.site import published\nprint('made of', *[run['profile'] for run in published.metrics().values()])"
    cells = [new_markdown_cell("# Results", id="title"), new_code_cell(code, id="code")]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), project / "book" / "results.ipynb")
    with (project / "_toc.yml").open("a") as toc:
        toc.write("- file: book/results\n")
    build = ["--allowed-rules", "html", "page", "--forcerun", "html", "--", "html"]
    snake(project, *build)
    assert "made of laptop laptop" in page(project, "results")
    numbers = project / "published" / "02_b.json"
    numbers.write_text(numbers.read_text().replace('"laptop"', '"paper"'))
    snake(project, *build)
    assert "made of laptop paper" in page(project, "results")

import json

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from lib.site import book
from lib.site.book import BookError

FACTS = {
    "data": "scikit-learn digits",
    "images": "5 for training, 2 for testing",
    "data_sha256": "0123456789abcdef",
    "date": "2026-01-01",
    "commit": "abc1234",
    "device": "CPU, 2 threads",
    "torch": "2.14.1",
    "seconds": 12.3,
    "peak_memory_gb": 1.2,
    "parameters": {"epochs": 7, "name": "x"},
}


def source(code="print(1)", prose="Some *prose*."):
    cells = [
        new_markdown_cell("# Title"),
        new_code_cell('epochs: int = 3  # passes\nname: str = "x"  # of it', metadata={"tags": ["parameters"]}),
        new_markdown_cell(prose),
        new_code_cell(code),
    ]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    return new_notebook(cells=cells)


def record(name, value):
    metadata = {"scrapbook": {"name": name, "mime_prefix": "application/papermill.record/"}, "record": value}
    return new_output("display_data", {"application/papermill.record/text/plain": "text"}, metadata=metadata)


def executed(**changes):
    notebook = source(**changes)
    notebook.cells[3].outputs = [
        new_output("stream", name="stdout", text="1\n"),
        new_output("stream", name="stderr", text="\r 10%|#   \r100%|####"),
        new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "0%|  |"}),
        record("mse", {"value": 0.5}),
        record("provenance", FACTS),
    ]
    notebook.cells[3].execution_count = 2
    injected = new_code_cell("# Parameters\nepochs = 7\n", metadata={"tags": ["injected-parameters"]})
    notebook.cells.insert(2, injected)
    return notebook


def test_a_page_takes_prose_from_the_source_and_outputs_from_the_run():
    page = book.merge(source(prose="New prose."), executed())
    assert page.cells[2].source == "New prose."
    assert page.cells[3].outputs[0].text == "1\n"
    assert len(page.cells) == 4, "papermill's injected cell is no part of a page"


def test_progress_bars_do_not_reach_the_page():
    outputs = book.merge(source(), executed()).cells[3].outputs
    assert [output.output_type for output in outputs] == ["stream", "display_data", "display_data"]
    assert not any("%|" in json.dumps(output) for output in outputs)


def test_outputs_never_stand_under_other_code():
    with pytest.raises(BookError, match="code cells"):
        book.merge(source(code="print(2)"), executed())


def test_the_code_digest_sees_code_and_not_prose(tmp_path):
    def digest(notebook):
        nbformat.write(notebook, tmp_path / "x.ipynb")
        return book.code_digest(tmp_path / "x.ipynb")

    assert digest(source()) == digest(source(prose="Other.")) == digest(executed())
    assert digest(source()) != digest(source(code="print(2)"))


def test_records_are_read_from_the_run():
    assert book.records(executed())["mse"] == {"value": 0.5}


def test_a_failure_names_cell_and_error():
    notebook = executed()
    assert book.failure(notebook) is None
    notebook.cells[-1].outputs = [new_output("error", ename="ValueError", evalue="no good", traceback=[])]
    assert book.failure(notebook) == "code cell 3 (print(1))\nValueError: no good"


@pytest.fixture
def project(tmp_path):
    (tmp_path / "book" / "profiles").mkdir(parents=True)
    (tmp_path / "lib").mkdir()
    (tmp_path / "_config.yml").write_text("title: Test\n")
    (tmp_path / "_toc.yml").write_text("root: book/intro\nchapters:\n  - file: book/01_x\n  - file: book/results\n")
    (tmp_path / "book" / "intro.md").write_text("# Intro\n")
    (tmp_path / "book" / "results.md").write_text("# Results\n")
    (tmp_path / "book" / "profiles" / "laptop.yaml").write_text("01_x:\n  epochs: 7\n")
    nbformat.write(source(), tmp_path / "book" / "01_x.ipynb")
    return tmp_path


def put_run(project, profile, notebook):
    path = project / "_build" / "runs" / profile / "01_x.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(notebook, path)


def assembled(project, profile):
    book.assemble(profile, project / "_build" / "source", root=project)
    return nbformat.read(project / "_build" / "source" / "book" / "01_x.ipynb", 4)


def test_chapters_are_the_notebooks_of_the_table_of_contents(project):
    assert book.chapters(project) == ["01_x"]


def test_demo_pages_say_that_they_are_no_results(project):
    put_run(project, "demo", executed())
    box = assembled(project, "demo").cells[1].source
    assert "Demo data, not results" in box
    assert "`epochs=7`" in box and "name" not in box
    assert (project / "_build" / "source" / "book" / "intro.md").exists() and (
        project / "_build" / "source" / "_toc.yml"
    ).exists()
    assert not (project / "_build" / "source" / "book" / "profiles").exists()


def test_a_page_says_which_part_of_the_time_an_earlier_go_took(project):
    run = executed()
    run.cells[4].outputs[-1] = record("provenance", FACTS | {"seconds": 250, "resumed_seconds": 600})
    put_run(project, "laptop", run)
    assert "14 minutes (10 minutes of training in an earlier go)" in assembled(project, "laptop").cells[1].source


def test_real_pages_say_where_their_numbers_come_from(project):
    put_run(project, "laptop", executed())
    box = assembled(project, "laptop").cells[1].source
    assert "Demo data" not in box
    for fact in ("scikit-learn digits", "laptop", "abc1234", "CPU, 2 threads", "12 s", "1.2 GB"):
        assert fact in box


def test_no_book_is_made_from_missing_or_outdated_runs(project):
    with pytest.raises(BookError, match="01_x has not been executed with the demo profile"):
        assembled(project, "demo")
    put_run(project, "demo", executed(code="print(2)"))
    with pytest.raises(BookError, match="01_x is out of date"):
        assembled(project, "demo")


def test_profiles_are_read_and_wrong_ones_refused(project):
    assert book.parameters("01_x", "demo", project) == {}
    assert book.parameters("01_x", "laptop", project) == {"epochs": 7}
    with pytest.raises(BookError, match=r"no profile 'labtop'. Known: demo, laptop"):
        book.parameters("01_x", "labtop", project)
    with pytest.raises(BookError, match="no parameters for '02_y'"):
        book.parameters("02_y", "laptop", project)


def test_assembling_never_empties_a_folder_of_the_project(project):
    put_run(project, "demo", executed())
    with pytest.raises(BookError, match="would be emptied"):
        book.assemble("demo", project / "book", root=project)
    assert (project / "book" / "intro.md").exists()


def test_addresses_bring_buttons_and_a_picture_only_when_they_are_known(project):
    put_run(project, "demo", executed())
    (project / "_config.yml").write_text("title: Test\nhtml: {}\nsphinx: {extra_extensions: [], config: {}}\n")
    (project / "book" / "static").mkdir()
    (project / "book" / "static" / "card.png").write_bytes(b"picture")
    out = project / "_build" / "source"

    def configuration(**addresses):
        book.assemble("demo", out, project, **addresses)
        return yaml.safe_load((out / "_config.yml").read_text())

    plain = configuration()
    assert "launch_buttons" not in plain and "repository" not in plain and plain["html"] == {}
    addressed = configuration(repository="https://github.com/me/book", site="https://me.example/book")
    assert addressed["repository"]["url"] == "https://github.com/me/book"
    assert addressed["html"]["use_edit_page_button"] and addressed["launch_buttons"]["colab_url"]
    assert addressed["sphinx"]["config"]["ogp_image"] == "https://me.example/book/_static/card.png"
    assert (out / "_static" / "card.png").exists()


def test_long_runs_are_told_in_minutes():
    assert book._duration(12.3) == "12 s" and book._duration(4482.8) == "75 minutes"
    assert book._duration(600, 3000) == "60 minutes (50 minutes of training in an earlier go)"

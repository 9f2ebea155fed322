"""Prose that quotes numbers, and what a page shows first."""

from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from lib.site import prose


def test_each_expression_is_asked_for_once_and_its_text_put_in_its_place():
    cells = [
        new_markdown_cell('It is {eval}`r["a"].text`, {eval}`1 + 1` and {eval}`1 + 1`.'),
        new_code_cell("x = '{eval}`not prose`'"),
    ]
    notebook = new_notebook(cells=cells)
    assert prose.expressions(notebook) == ['r["a"].text', "1 + 1"]
    asking = prose.asking(["1 + 1", "'ü'"])
    said = []
    exec(asking.source, {"print": said.append})
    asking.outputs = [new_output("stream", name="stdout", text=said[0])]
    assert prose.answers(asking) == {"1 + 1": "2", "'ü'": "ü"}
    prose.quoting(notebook, {'r["a"].text': "0.5 ± 0.1", "1 + 1": "2"})
    assert notebook.cells[0].source == "It is 0.5 ± 0.1, 2 and 2."
    assert "{eval}" in notebook.cells[1].source


def test_leading_cells_come_below_the_title_in_their_order():
    names = ["title", "measure", "later", "end"]
    cells = [new_markdown_cell(name, id=name) for name in ("title", "measure")]
    for name in ("picture", "finding"):
        cells.append(new_markdown_cell(name, id=name, metadata={"tags": ["lead"]}))
    cells += [new_markdown_cell(name, id=name) for name in names[2:]]
    notebook = new_notebook(cells=cells)
    prose.lead_first(notebook)
    assert [c.id for c in notebook.cells] == ["title", "picture", "finding", *names[1:]]

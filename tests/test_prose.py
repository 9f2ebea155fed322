"""Prose that quotes numbers, and what a page shows first."""

from unittest.mock import patch

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from lib.site import prose


def asked(*cells, **namespace):
    """A notebook whose questions were answered."""
    notebook = new_notebook(cells=list(cells))
    prose.ask(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            with patch("IPython.display.display") as display:
                exec(cell.source, namespace)
            for call in display.mock_calls:
                cell.outputs += [new_output("stream", text="debris"), new_output("display_data", data=call.args[0])]
    return notebook


def quoted(text, **namespace):
    notebook = asked(new_markdown_cell(text), **namespace)
    prose.quote(notebook)
    (cell,) = notebook.cells
    return cell.source


def test_texts_of_expressions_are_put_in_their_place():
    assert quoted("It is {eval}`r['a']`, {eval}`1 + 1` and {eval}`1 + 1`.", r={"a": "0.5 ± 0.1"}) == (
        "It is 0.5 ± 0.1, 2 and 2."
    )
    assert quoted("""{eval}`'"' + "it's" + '\\\\'` and {eval}`1 +\n  1`""") == "\"it's\\ and 2"
    assert quoted("No `eval` here.") == "No `eval` here."


def test_an_expression_has_the_values_of_its_place():
    cells = [new_code_cell("x = 1"), new_markdown_cell("{eval}`x`"), new_code_cell("x = '{eval}`not prose`'")]
    notebook = asked(*cells, new_markdown_cell("{eval}`x`"))
    prose.quote(notebook)
    assert [cell.source for cell in notebook.cells][1::2] == ["1", "{eval}`not prose`"] and len(notebook.cells) == 4


@pytest.mark.parametrize(
    ("expression", "error", "why"),
    [
        ("1 / 0", "ZeroDivisionError", "division by zero"),
        ("f(", "SyntaxError", "never closed"),
        ("x", "NameError", "x"),
    ],
)
def test_an_expression_that_fails_is_named(expression, error, why):
    notebook = asked(new_markdown_cell("{eval}`1`", id="one"), new_markdown_cell(f"{{eval}}`{expression}`", id="two"))
    with pytest.raises(prose.QuoteError) as caught:
        prose.quote(notebook)
    assert (caught.value.cell, caught.value.expression, caught.value.error) == ("two", expression, error)
    assert why in caught.value.why


def test_leading_cells_come_below_the_title_in_their_order():
    names = ["title", "measure", "later", "end"]
    cells = [new_markdown_cell(name, id=name) for name in ("title", "measure")]
    for name in ("picture", "finding"):
        cells.append(new_markdown_cell(name, id=name, metadata={"tags": ["lead"]}))
    cells += [new_markdown_cell(name, id=name) for name in names[2:]]
    notebook = new_notebook(cells=cells)
    prose.lead_first(notebook)
    assert [c.id for c in notebook.cells] == ["title", "picture", "finding", *names[1:]]

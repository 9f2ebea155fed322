"""Prose with numbers in it: what Markdown cells quote, and what a page shows first.

A Markdown cell writes ``{eval}`` and an expression in backticks, as MyST does, such as
a number of the results. JupyterLab evaluates it as the cell is shown; a page gets the
text of what the telling kernel says. Cells tagged ``lead`` stand where a notebook can
show them, behind what is measured; a page has them below its title.
"""

import re

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

LEAD = "lead"
ROLE = re.compile(r"\{eval\}`([^`]+)`")
ANSWERS = "application/vnd.lwl.answers+json"

ASKING = """\
def _quoted():
    from IPython.display import display

    answers = []
    for expression in {expressions!r}:
        try:
            found = eval(" ".join(expression.splitlines()), globals())
            answers.append({{"text": str(found)}})
        except Exception as error:
            answers.append({{"error": type(error).__name__, "why": str(error)}})
    display({{{mime!r}: answers}}, raw=True)


_quoted()
"""


class QuoteError(Exception):
    """An expression that a Markdown cell quotes failed."""

    def __init__(self, cell: str, expression: str, error: str, why: str) -> None:
        super().__init__(f"{expression}: {error}: {why}")
        self.cell, self.expression, self.error, self.why = cell, expression, error, why


def ask(notebook: NotebookNode) -> None:
    """Put a code cell behind each Markdown cell that quotes, in place.

    It evaluates what the cell quotes, there and not at the notebook's end: a later cell
    may give a name another meaning.
    """
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        if quoted := _expressions(cell):
            source = ASKING.format(expressions=quoted, mime=ANSWERS)
            cells.append(new_code_cell(source, metadata={"tags": [ANSWERS]}))
    notebook.cells = cells


def quote(notebook: NotebookNode) -> None:
    """Put the answers into the Markdown cells and take the code cells out, in place.

    Raises :class:`QuoteError` for an expression that failed.
    """
    cells: list[NotebookNode] = []
    for cell in notebook.cells:
        if ANSWERS in cell.metadata.get("tags", []):
            _put(cells[-1], cell)
        else:
            cells.append(cell)
    notebook.cells = cells


def _expressions(cell: NotebookNode) -> list[str]:
    """What a Markdown cell quotes, each expression once."""
    quoted = ROLE.findall(cell.source) if cell.cell_type == "markdown" else []
    return list(dict.fromkeys(quoted))


def _put(cell: NotebookNode, asked: NotebookNode) -> None:
    # (Beside the answers there may be what an expression printed or showed.)
    (answers,) = [
        output.data[ANSWERS]
        for output in asked.outputs
        if ANSWERS in output.get("data", {})
    ]
    found = dict(zip(_expressions(cell), answers, strict=True))
    for expression, answer in found.items():
        if "error" in answer:
            raise QuoteError(cell.get("id", ""), expression, **answer)
    cell.source = ROLE.sub(lambda match: found[match[1]]["text"], cell.source)


def lead_first(notebook: NotebookNode) -> None:
    """Move cells tagged ``lead`` below the first cell, in place and in their order."""
    leading = [c for c in notebook.cells if LEAD in c.metadata.get("tags", [])]
    others = [c for c in notebook.cells if LEAD not in c.metadata.get("tags", [])]
    notebook.cells = others[:1] + leading + others[1:]

"""Prose with numbers in it: what Markdown cells quote, and what a page shows first.

A Markdown cell writes ``{eval}`` and an expression in backticks, as MyST does, such as
a number of the results. JupyterLab evaluates it as the cell is shown; a page gets the
text of what the telling kernel says. Cells tagged ``lead`` stand where a notebook can
show them, behind what is measured; a page has them below its title.
"""

import json
import re
from collections.abc import Mapping

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

LEAD = "lead"
ROLE = re.compile(r"\{eval\}`([^`\n]+)`")


def expressions(notebook: NotebookNode) -> list[str]:
    """What Markdown cells quote, each expression once."""
    prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    return list(dict.fromkeys(ROLE.findall("\n".join(prose))))


def asking(quoted: list[str]) -> NotebookNode:
    """A code cell that prints each expression and its text, as JSON."""
    pairs = ", ".join(f"{text!r}: str({text})" for text in quoted)
    return new_code_cell(f"print(__import__('json').dumps({{{pairs}}}))", id="quoted")


def answers(cell: NotebookNode) -> dict[str, str]:
    """What the executed :func:`asking` cell printed."""
    return json.loads("".join(output.text for output in cell.outputs))


def quoting(notebook: NotebookNode, values: Mapping[str, str]) -> None:
    """Put the texts of expressions into the Markdown cells, in place."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = ROLE.sub(lambda found: values[found.group(1)], cell.source)


def lead_first(notebook: NotebookNode) -> None:
    """Move cells tagged ``lead`` below the first cell, in place and in their order."""
    leading = [c for c in notebook.cells if LEAD in c.metadata.get("tags", [])]
    others = [c for c in notebook.cells if LEAD not in c.metadata.get("tags", [])]
    notebook.cells = others[:1] + leading + others[1:]

"""Chapters' notebooks for tests: their cells, and settings so small that they run in seconds."""

import nbformat

from lib.files import ROOT


def read(name):
    return nbformat.read(ROOT / "book" / f"{name}.ipynb", 4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tiny(name):
    """Parameters with which the whole chapter runs in seconds: the notebook's metadata hold them."""
    return dict(read(name).metadata["tiny"])


def cells_of(name, upto, skip=("show-", "fig-", "say-", "sweep"), **parameters):
    """The namespace after a chapter's own cells up to the one named ``upto``, without what is only shown."""
    namespace = {}
    for cell in code_cells(read(name)):
        if not cell.id.startswith(skip):
            exec(compile(cell.source, cell.id, "exec"), namespace)
        if cell.id == "parameters":
            namespace |= {**tiny(name), "device": "cpu", **parameters}
        if cell.id == upto:
            return namespace
    raise AssertionError(f"no cell {upto}")

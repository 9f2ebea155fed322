"""Copies of the chapters that run in Google Colab: ``python -m lib.site.colab``.

Colab has its own Python, torch and notebook, and gets no project with a notebook. So a
copy begins with a cell that fetches the project and installs what is missing, and its
prose is plain Markdown: Colab knows no MyST. Prose that quotes numbers becomes a folded
cell that shows it with those of the run.
"""

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
from IPython.display import Markdown
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

from lib.files import ROOT, atomic_write
from lib.site import contents
from lib.site.prose import ROLE

BRANCH = "colab"
"""The branch that holds the copies; Colab opens notebooks from GitHub."""

SET_UP = """\
#@title Set-up: fetch the project and install what is missing (about a minute)
import subprocess
import sys
from pathlib import Path

project = Path("learning-without-labels").resolve()
if not project.exists():
    clone = ["git", "clone", "--quiet", "--depth", "1", {repository!r}]
    subprocess.run([*clone, str(project)], check=True)
install = [sys.executable, "-m", "pip", "install", "--quiet", "--editable"]
subprocess.run([*install, str(project)], check=True)
sys.path.insert(0, str(project))
from lib.site.colab import told"""

TOLD = """\
#@title Text with this run's numbers
told(r'''
{text}
''', globals())"""

NOTE = """\
> This is a copy of a chapter of *Learning Without Labels* for Colab. The first cell
> fetches the project; the parameters below it are small, so that everything runs in a
> few minutes without a GPU. Text that quotes numbers appears as the cells run."""


def told(text: str, names: dict[str, Any]) -> Markdown:
    """Prose with what it quotes, evaluated with a notebook's names."""

    def answer(match: re.Match[str]) -> str:
        return str(eval(" ".join(match[1].splitlines()), names))

    return Markdown(ROLE.sub(answer, text.strip()))


def copied(name: str, repository: str, root: Path = ROOT) -> NotebookNode:
    """A chapter for Colab; ``repository`` is the address to fetch the project from."""
    notebook = contents.notebook(name, root)
    chapter = int(name.partition("_")[0])
    plain = plainer("\n".join(c.source for c in _markdown(notebook)), chapter)
    first, *rest = notebook.cells
    set_up = new_code_cell(
        SET_UP.format(repository=repository),
        id="set-up",
        metadata={"cellView": "form"},
    )
    cells = [first, new_markdown_cell(NOTE, id="colab"), set_up]
    for cell in [first, *rest]:
        if cell.cell_type == "markdown":
            cell.source = plain(cell.source)
        if cell.cell_type == "markdown" and ROLE.search(cell.source):
            source = TOLD.format(text=cell.source)
            cell = new_code_cell(source, id=cell.id, metadata={"cellView": "form"})
        if cell is not first:
            cells.append(cell)
    notebook.cells = cells
    notebook.metadata["colab"] = {"provenance": [], "toc_visible": True}
    return notebook


def _markdown(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "markdown"]


def plainer(prose: str, chapter: int) -> Callable[[str], str]:
    """Turns MyST into Markdown; equations have the numbers that all the prose gives."""
    labels = re.findall(r"^\$\$ \((eq-[\w-]+)\)$", prose, re.M)
    numbers = {label: f"{chapter}.{i}" for i, label in enumerate(labels, 1)}

    def tagged(match: re.Match[str]) -> str:
        return f"\\tag{{{numbers[match[1]]}}}\n$$"

    def boxed(match: re.Match[str]) -> str:
        lines = re.sub(r"^:\w[\w-]*:.*\n?", "", match["text"], flags=re.M)
        if "dropdown" in match["text"].partition("\n\n")[0]:
            title = f"<details><summary><b>{match['title']}</b></summary>"
            return f"{title}\n\n{lines.strip()}\n\n</details>"
        body = "\n".join(f"> {line}".rstrip() for line in lines.strip().splitlines())
        return f"> **{match['title']}**\n>\n{body}"

    def plain(text: str) -> str:
        text = ROLE.sub(lambda quoted: " ".join(quoted[0].split("\n")), text)
        text = re.sub(r"^\$\$ \((eq-[\w-]+)\)$", tagged, text, flags=re.M)
        text = re.sub(
            r"\{eq\}`([\w-]+)`", lambda m: f"({numbers.get(m[1], m[1])})", text
        )
        text = re.sub(r"^\([\w-]+\)=\n", "", text, flags=re.M)
        text = re.sub(r"\s*\{cite:p\}`([\w, -]+)`", r" [\1]", text)
        text = re.sub(r"\{cite:t\}`([\w, -]+)`", r"[\1]", text)
        text = re.sub(r"\{numref\}`[\w-]+`", "the figure", text)
        text = re.sub(r"\{(?:doc|ref)\}`([^`<]+?)(?: <[^`]*>)?`", r"*\1*", text)
        box = r"^:::\{admonition\} (?P<title>.*)\n(?P<text>(?:.*\n)*?):::$"
        return re.sub(box, boxed, text, flags=re.M)

    return plain


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lib.site.colab", description=__doc__.splitlines()[0]
    )
    parser.add_argument("repository", help="the address that Colab is to clone")
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "colab")
    options = parser.parse_args(arguments)
    for name in contents.chapters():
        with atomic_write(options.out / f"{name}.ipynb") as temporary:
            nbformat.write(copied(name, options.repository), temporary)
    print(f"{len(contents.chapters())} notebooks for Colab: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

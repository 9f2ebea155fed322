"""What the book holds: chapters, pages of numbers, and the parameters that they get.

Everything is read from ``_toc.yml``, the notebooks and the profiles: nothing here names
a chapter.
"""

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import yaml

from lib import code
from lib.files import ROOT
from lib.report import parameters as declarations
from lib.report.parameters import Parameter

DEMO = "demo"
"""The profile whose values are the notebooks' own defaults."""


class BookError(Exception):
    """A page cannot be made; the message names the chapter and the remedy."""


def chapters(root: Path = ROOT) -> list[str]:
    """Names of the chapters, notebooks called ``01_…``, as ``_toc.yml`` has them."""
    return [name for name in _notebooks(root) if name[0].isdigit()]


def pages(root: Path = ROOT) -> list[str]:
    """Names of the other notebooks: quick, they show what the chapters measured."""
    return [name for name in _notebooks(root) if not name[0].isdigit()]


def _notebooks(root: Path) -> list[str]:
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    files = [Path(entry["file"]) for entry in toc["chapters"]]
    return [file.name for file in files if (root / file).with_suffix(".ipynb").exists()]


def find(start: str, root: Path = ROOT) -> str:
    """The chapter of this name, or the one whose name begins so, such as "01".

    Raises :class:`BookError` where none or several do.
    """
    names = chapters(root)
    found = [start] if start in names else [n for n in names if n.startswith(start)]
    if start and len(found) == 1:
        return found[0]
    what = "Say which chapter" if not start else f"{start!r} is no chapter"
    if start and found:
        what = f"{start!r} is the start of {len(found)} chapters"
    raise BookError(
        f"{what}: CHAPTER is one of {', '.join(names)}, or the start of one."
    )


def notebook(name: str, root: Path = ROOT) -> nbformat.NotebookNode:
    """The notebook of a chapter or page, as it is edited."""
    return nbformat.read(root / "book" / f"{name}.ipynb", 4)


def text(name: str, root: Path = ROOT) -> str:
    """The file of a chapter or page."""
    return (root / "book" / f"{name}.ipynb").read_text(encoding="utf-8")


def converted(chapter: str, root: Path = ROOT) -> bool:
    """Whether a chapter measures and tells apart."""
    return code.measures(text(chapter, root))


def declared(chapter: str, root: Path = ROOT) -> dict[str, Parameter]:
    """The parameters that a chapter declares, by name."""
    return declarations.declared(code.parameters_source(text(chapter, root)))


def parameters(chapter: str, profile: str, root: Path = ROOT) -> dict[str, Any]:
    """What a profile sets for a chapter; nothing for ``demo``.

    Raises :class:`BookError` for a profile that does not exist or has nothing for the
    chapter.
    """
    if profile == DEMO:
        return {}
    path = root / "book" / "profiles" / f"{profile}.yaml"
    if not path.exists():
        known = sorted(file.stem for file in path.parent.glob("*.yaml"))
        raise BookError(
            f"There is no profile {profile!r}. Known: {', '.join([DEMO, *known])}."
        )
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise BookError(f"book/profiles/{path.name} is no YAML: {error}") from error
    if chapter not in values:
        raise BookError(
            f"book/profiles/{path.name} has no parameters for {chapter!r}: "
            "add a block with that name."
        )
    return values[chapter] or {}


def effective(chapter: str, profile: str, root: Path = ROOT) -> dict[str, Any]:
    """All parameters that a converted chapter gets: its defaults and the profile's."""
    defaults = {name: p.default for name, p in declared(chapter, root).items()}
    return defaults | parameters(chapter, profile, root)


# --- executed notebooks --------------------------------------------------------------


def records(executed: nbformat.NotebookNode) -> dict[str, Any]:
    """What an executed notebook hands on to other pages, by name."""
    found = {}
    for cell in executed.cells:
        for output in cell.get("outputs", []):
            metadata = output.get("metadata", {})
            if "record" in metadata:
                found[metadata["scrapbook"]["name"]] = metadata["record"]
    return found


def failure(executed: nbformat.NotebookNode) -> str | None:
    """Where an execution stopped: the cell, its first line and the error; or None.

    Cells are counted as in the notebook that is edited, without papermill's own.
    """
    code_cells = [
        cell
        for cell in executed.cells
        if cell.cell_type == "code"
        and "injected-parameters" not in cell.metadata.get("tags", [])
    ]
    for number, cell in enumerate(code_cells, 1):
        for output in cell.outputs:
            if output.output_type == "error":
                first_line = (cell.source.strip().splitlines() or [""])[0]
                error = f"{output.ename}: {plain(output.evalue)}"
                return f"code cell {number} ({first_line})\n{error}"
    return None


def plain(message: str) -> str:
    """Without the colours of a terminal."""
    return re.sub(r"\x1b\[[0-9;]*m", "", message)


def is_cut_off(path: Path) -> bool:
    """Whether a notebook's file is not whole: its process was killed in writing it."""
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return True
    return False


def path_of_this_machine(written: str, root: Path = ROOT) -> str | None:
    """A path in the project's folder or the user's home that a text names; or None."""
    folders = [str(folder) for folder in (root, Path.home()) if len(folder.parts) > 2]
    folders += ["/root"] * (Path.home() == Path("/root"))
    names = "|".join(map(re.escape, folders))
    found = names and re.search(rf"(?:{names})(?:/[^\s\"']*)?(?![\w-])", written)
    return found.group() if found else None

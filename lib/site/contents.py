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
    toc = read_yaml(root / "_toc.yml")
    try:
        parts = toc.get("parts", [toc])
        listed = [entry["file"] for part in parts for entry in part["chapters"]]
        files = [Path(name) for name in (toc["root"], *listed)]
    except (AttributeError, KeyError, TypeError) as error:
        raise BookError(
            "_toc.yml is not as Jupyter Book wants it: `root:`, and `parts:`, each "
            f"with `chapters:` that are `- file: …` ({type(error).__name__}: {error})."
        ) from error
    for file in files:
        if files.count(file) > 1:
            raise BookError(f"_toc.yml lists {file} twice: remove one line.")
        if not any((root / file).with_suffix(s).exists() for s in (".ipynb", ".md")):
            raise BookError(f"_toc.yml lists {file}, and there is no such file.")
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
    return read_notebook(root / "book" / f"{name}.ipynb")


def text(name: str, root: Path = ROOT) -> str:
    """The file of a chapter or page, which is a notebook."""
    path = root / "book" / f"{name}.ipynb"
    read_json(path)
    return path.read_text(encoding="utf-8")


# --- files ---------------------------------------------------------------------------


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """A notebook. Raises :class:`BookError` for a file that is damaged."""
    try:
        return nbformat.reads(path.read_text(encoding="utf-8"), 4)
    except OSError as error:
        raise BookError(f"{path} cannot be read ({error.strerror}).") from error
    except Exception as error:
        raise _damaged(path, error) from error


def read_json(path: Path) -> dict[str, Any]:
    """An object of JSON. Raises :class:`BookError` for a file that is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("names and values are wanted")
    except OSError as error:
        raise BookError(f"{path} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise _damaged(path, error) from error
    return found


def _damaged(path: Path, error: Exception) -> BookError:
    made = "_build" in path.parts
    remedy = "remove it and make it again" if made else f"`git checkout {path.name}`"
    why = " ".join(str(error).split())[:120]
    return BookError(f"{path} is damaged or cut off ({why}): {remedy}, or restore it.")


class _Once(yaml.SafeLoader):
    """YAML in which a name stands once: of two, the last would count silently."""


def _mapping(loader: _Once, node: yaml.MappingNode) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in found:
            raise yaml.constructor.ConstructorError(
                None, None, f"{key} stands there twice", key_node.start_mark
            )
        found[key] = loader.construct_object(value_node, deep=True)
    return found


_Once.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_yaml(path: Path) -> dict[str, Any]:
    """Names and values. Raises :class:`BookError` for a file that holds none."""
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), _Once)
    except OSError as error:
        raise BookError(f"{path} cannot be read ({error.strerror}).") from error
    except (yaml.YAMLError, UnicodeDecodeError, TypeError) as error:
        why = " ".join(str(error).split())
        raise BookError(f"{path} is no YAML that can be read: {why}") from error
    if not isinstance(found, dict):
        raise BookError(f"{path} must hold names and values, `name: value`.")
    return found


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
    values = read_yaml(path)
    if chapter not in values:
        raise BookError(
            f"book/profiles/{path.name} has no parameters for {chapter!r}: "
            "add a block with that name."
        )
    found = values[chapter] or {}
    if not isinstance(found, dict):
        raise BookError(
            f"book/profiles/{path.name}, {chapter}: parameters are wanted, a line "
            "each, as in `  epochs: 3`."
        )
    return found


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
    for number, cell in enumerate(_code_cells(executed), 1):
        for output in cell.outputs:
            if output.output_type == "error":
                error = f"{output.ename}: {plain(output.evalue)}"
                return f"code cell {number} ({_first_line(cell)})\n{error}"
    return None


def last_cell(executed: nbformat.NotebookNode) -> str:
    """The cell that papermill was executing, counted as :func:`failure` counts."""
    for number, cell in enumerate(_code_cells(executed), 1):
        if cell.metadata.get("papermill", {}).get("status") in ("running", "failed"):
            return f"code cell {number} ({_first_line(cell)})"
    return "an unknown cell"


def _code_cells(executed: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """Those of the notebook that is edited, without papermill's own."""
    return [
        cell
        for cell in executed.cells
        if cell.cell_type == "code"
        and "injected-parameters" not in cell.metadata.get("tags", [])
    ]


def _first_line(cell: nbformat.NotebookNode) -> str:
    return (cell.source.strip().splitlines() or [""])[0]


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

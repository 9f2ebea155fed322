"""What code means, and what it needs: digests that comments and layout do not change.

A chapter's numbers come from its measuring cells and from the files of ``lib`` that
they import, directly or through others. These functions find that code and digest it.
"""

import ast
import hashlib
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lib.files import ROOT

MEASURE = "measure"
"""The tag of cells that compute; every other cell reads what they found."""

PRESENTING = ("lib.report", "lib.site")
"""Packages that present results and change none."""

Read = Callable[[str], str | None]
"""The text of a file of the project by its relative path; None where there is none."""


def read_from(root: Path = ROOT) -> Read:
    """Reads files as they are now."""

    def read(name: str) -> str | None:
        path = root / name
        return path.read_text(encoding="utf-8") if path.is_file() else None

    return read


# --- notebooks -----------------------------------------------------------------------


def cells(notebook: str) -> list[dict[str, Any]]:
    """The code cells of a notebook's text, each with ``source`` and ``tags``."""
    return [
        {
            "source": "".join(cell["source"]),
            "tags": cell["metadata"].get("tags", []),
        }
        for cell in json.loads(notebook)["cells"]
        if cell["cell_type"] == "code"
    ]


def measures(notebook: str) -> bool:
    """Whether a notebook measures and tells apart: it has cells that are tagged so."""
    return any(MEASURE in cell["tags"] for cell in cells(notebook))


def measuring_sources(notebook: str) -> list[str]:
    """The sources of the cells that measure."""
    return [cell["source"] for cell in cells(notebook) if MEASURE in cell["tags"]]


def parameters_source(notebook: str) -> str:
    """The parameters cell; empty where a notebook has none."""
    return next((c["source"] for c in cells(notebook) if "parameters" in c["tags"]), "")


# --- digests -------------------------------------------------------------------------


def digest(sources: Iterable[str]) -> str:
    """Of pieces of Python, by what they mean: 16 hex digits."""
    meanings = json.dumps([_meaning(source) for source in sources])
    return hashlib.sha256(meanings.encode()).hexdigest()[:16]


def _meaning(source: str) -> str:
    """Code without comments, docstrings and layout, the same text in every Python."""
    try:
        tree = ast.parse(source)
    except SyntaxError:  # IPython's own syntax, which Python cannot parse
        return source
    for node in ast.walk(tree):
        match getattr(node, "body", None):
            case [ast.Expr(value=ast.Constant(value=str())), *rest]:
                node.body = rest  # type: ignore[attr-defined]
        if getattr(node, "type_params", None) == []:  # new in Python 3.12
            del node.type_params  # type: ignore[attr-defined]
    # Python 3.13 leaves out what is empty unless it is asked for.
    return ast.dump(tree, **({"show_empty": True} if sys.version_info[1] > 12 else {}))


def of_chapter(name: str, read: Read | None = None) -> dict[str, str]:
    """Digests of the code that a chapter's numbers come from, by name.

    ``cells`` stands for its measuring cells, the others are files of ``lib``.
    """
    read = read or read_from()
    notebook = read(f"book/{name}.ipynb")
    if notebook is None:
        return {}
    sources = measuring_sources(notebook)
    return {"cells": digest(sources), **of_library(sources + _opening(notebook), read)}


def _opening(notebook: str) -> list[str]:
    """The cells that are neither parameters nor measuring, for what they import."""
    found = [c for c in cells(notebook) if not {MEASURE, "parameters"} & set(c["tags"])]
    return [cell["source"] for cell in found[:1]]


def of_library(sources: Iterable[str], read: Read | None = None) -> dict[str, str]:
    """Digests of the files of ``lib`` that Python sources import, closed, by path."""
    read = read or read_from()
    waiting = set().union(*map(imported, sources))
    found: dict[str, str] = {}
    while waiting:
        module = waiting.pop()
        name = module.replace(".", "/") + ".py"
        presents = any(f"{module}.".startswith(f"{wing}.") for wing in PRESENTING)
        if name in found or presents or (text := read(name)) is None:
            continue
        found[name] = digest([text])
        waiting |= imported(text)
    return dict(sorted(found.items()))


def imported(source: str) -> set[str]:
    """The modules of ``lib`` that Python code imports, such as "lib.vae"."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return set()
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if module == "lib" or module.startswith("lib."):
                found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {
                alias.name for alias in node.names if alias.name.startswith("lib.")
            }
    return found


def changes(then: dict[str, str], now: dict[str, str]) -> list[str]:
    """What differs between two sets of digests, by name."""
    return [
        name
        for name in sorted(then.keys() | now.keys())
        if then.get(name) != now.get(name)
    ]


# --- pieces of the library -----------------------------------------------------------


def source_of(name: str, root: Path = ROOT) -> str:
    """The source of a function, class or method of ``lib``, such as "vae.VAE.encode".

    Read, not imported: a page that shows code does not load what the code needs. Raises
    KeyError for a name that is not there.
    """
    module, *path = name.split(".")
    text = (root / "lib" / f"{module}.py").read_text(encoding="utf-8")
    body: list[ast.stmt] = ast.parse(text).body
    node: Any = None
    for part in path:
        named = [n for n in body if getattr(n, "name", None) == part]
        if not named:
            raise KeyError(f"lib/{module}.py has no {'.'.join(path)}.")
        node, body = named[0], named[0].body  # type: ignore[attr-defined]
    decorators = [decorator.lineno for decorator in node.decorator_list]
    lines = text.splitlines()[min([node.lineno, *decorators]) - 1 : node.end_lineno]
    return "\n".join(line[node.col_offset :] for line in lines)

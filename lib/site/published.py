"""Runs that the book shows as results: ``published/<chapter>.ipynb`` and its numbers, ``published/<chapter>.json``.

They are committed, so that the book can be built without executing anything. Of the code that a run used,
its numbers keep a digest a file: so it can be said which runs are older than the library.
"""

import argparse
import ast
import base64
import hashlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from PIL import Image

from lib.files import ROOT, atomic_write, strip_docs
from lib.site.book import BookError, chapters, code_cells, merge, records

LIMIT = 2_500_000
"""Bytes of a published notebook, at most."""


def publish(chapter: str, profile: str, root: Path = ROOT) -> Path:
    """Store an executed chapter and its numbers under ``published``; returns the notebook's path.

    Raises :class:`BookError` for a run that is missing, not of the current code cells, not of committed code,
    too large, or that names a path of the machine.
    """
    run = root / "_build" / "runs" / profile / f"{chapter}.ipynb"
    if not run.exists():
        raise BookError(f"{chapter} has not been executed with the {profile} profile: there is no {run}.")
    source, executed = nbformat.read(root / "book" / f"{chapter}.ipynb", 4), nbformat.read(run, 4)
    try:
        page = merge(source, executed)
    except BookError as error:
        raise BookError(f"{chapter} cannot be published ({error}): execute it again.") from error
    numbers = records(executed)
    commit = numbers["provenance"]["commit"]
    if not re.fullmatch("[0-9a-f]+", commit):
        raise BookError(f"{chapter} was executed from code that no commit names ({commit}): commit, execute again.")
    for cell in page.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = with_palette(output.data["image/png"])
    text = nbformat.writes(page)
    if len(text.encode()) > LIMIT:
        raise BookError(
            f"{chapter} is {len(text.encode()) / 1e6:.1f} MB, more than {LIMIT / 1e6:.1f}: "
            "show fewer or smaller images and shorter GIFs."
        )
    if found := re.search(rf"(?:{re.escape(str(root))}|{re.escape(str(Path.home()))})/\S*", text):
        raise BookError(f"{chapter} shows a path of this machine, {found.group()}: print file names only.")
    path = root / "published" / f"{chapter}.ipynb"
    metrics = {"profile": profile, "lib": library_digests(source, root, commit), "records": numbers}
    with atomic_write(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(metrics, indent=1, ensure_ascii=False) + "\n")
    with atomic_write(path) as temporary:
        temporary.write_text(text)
    return path


def staleness(chapter: str, root: Path = ROOT) -> str | None:
    """Why a chapter's published run is not what its current code would give; None if nothing says so.

    A file of the library counts if the chapter uses it, comments and docstrings aside.
    """
    path = root / "published" / f"{chapter}.json"
    if not (path.exists() and path.with_suffix(".ipynb").exists()):
        return "not published"
    source = nbformat.read(root / "book" / f"{chapter}.ipynb", 4)
    if code_cells(source) != code_cells(nbformat.read(path.with_suffix(".ipynb"), 4)):
        return "code cells have changed since: the page shows the demo run"
    then, now = json.loads(path.read_text())["lib"], library_digests(source, root)
    changed = [name for name in sorted(then.keys() | now.keys()) if then.get(name) != now.get(name)]
    return f"older than {', '.join(changed)}" if changed else None


def with_palette(png: str) -> str:
    """A PNG (base64) stored with 256 colours if hardly a pixel changes by that: a figure shrinks to less than half.

    Grey images and most figures come out the same; photographs, which do not, are left as they are.
    """
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    small = image.quantize(256, dither=Image.Dither.NONE)
    change = np.abs(np.asarray(image, float) - np.asarray(small.convert("RGB"), float)).mean()
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True)
    found = base64.b64encode(buffer.getvalue()).decode()
    return found if change < 0.5 and len(found) < len(png) else png


def library_digests(source: nbformat.NotebookNode, root: Path = ROOT, commit: str = "") -> dict[str, str]:
    """A digest of each file of ``lib`` that a notebook imports, directly or through another, by its path.

    The files are read as they are, or as they were at a commit.
    """
    waiting = _imported("\n".join(code_cells(source)))
    digests: dict[str, str] = {}
    while waiting:
        name = f"lib/{waiting.pop()}.py"
        if name not in digests and (code := _code(root, name, commit)) is not None:
            digests[name] = hashlib.sha256(strip_docs(code).encode()).hexdigest()[:16]
            waiting |= _imported(code)
    return dict(sorted(digests.items()))


def _code(root: Path, name: str, commit: str) -> str | None:
    """A file of the project, now or at a commit; None if there is none."""
    if not commit:
        return (root / name).read_text() if (root / name).exists() else None
    shown = subprocess.run(["git", "show", f"{commit}:{name}"], cwd=root, capture_output=True, text=True, check=False)
    return shown.stdout if shown.returncode == 0 else None


def _imported(code: str) -> set[str]:
    """The modules of ``lib`` that Python code imports."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module == "lib":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lib."):
            found.add(node.module.removeprefix("lib."))
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("lib.") for alias in node.names if alias.name.startswith("lib.")}
    return found


def metrics(root: Path = ROOT) -> dict[str, dict[str, Any]]:
    """The published numbers of each chapter that has any, by chapter and name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted((root / "published").glob("*.json"))}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m lib.site.published", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("publish", help="store an executed chapter and its numbers")
    command.add_argument("chapter", choices=chapters())
    command.add_argument("--profile", required=True)
    commands.add_parser("check", help="say which published runs are older than the code they show or use")
    options = parser.parse_args(arguments)
    if options.command == "publish":
        try:
            path = publish(options.chapter, options.profile)
        except BookError as error:
            print(error, file=sys.stderr)
            return 1
        print(f"{path.relative_to(ROOT)}, {path.stat().st_size / 1e6:.2f} MB, and its .json: commit both.")
        return 0
    reasons = {chapter: staleness(chapter) for chapter in chapters()}
    for chapter, reason in reasons.items():
        print(f"{chapter}: {reason or 'up to date'}")
    return int(any(reasons.values()))


if __name__ == "__main__":
    sys.exit(main())

"""Chapters that do not measure and tell apart yet: pages from whole executed notebooks.

A page takes its prose from the source notebook and its outputs from an executed copy,
``published/<chapter>.ipynb`` or a profile's run, as long as their code cells are the
same. When every chapter is converted, this file and its test are deleted, with what
names it in ``book``, ``engine``, ``publish``, ``published`` and the Snakefile.
"""

import ast
import base64
import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from PIL import Image

from lib import code, commits
from lib.files import ROOT, atomic_write, strip_docs
from lib.report import embed
from lib.site import contents
from lib.site.contents import DEMO, BookError

PROGRESS = "application/vnd.jupyter.widget-view+json"
LIMIT = 2_500_000
"""Bytes of a published notebook, at most."""


# --- pages ---------------------------------------------------------------------------


def page(chapter: str, profile: str, root: Path = ROOT) -> nbformat.NotebookNode:
    """A chapter's page: today's prose, the outputs of its published or its own run.

    Raises :class:`BookError` for a chapter that was not executed, or whose code cells
    have changed since.
    """
    source = contents.notebook(chapter, root)
    executed = published(chapter, root) if profile == DEMO else None
    numbers = root / "published" / f"{chapter}.json"
    if executed is not None:
        shown = contents.read_json(numbers)["profile"]
    else:
        shown = profile
        run = run_path(chapter, profile, root)
        if not run.exists():
            raise BookError(
                f"{chapter} has not been executed with the {profile} profile: "
                "run `make book`."
            )
        executed = contents.read_notebook(run)
    try:
        made = merge(source, executed)
    except BookError as error:
        raise BookError(
            f"{chapter} is out of date ({error}): run `make book`."
        ) from error
    superseded = shown == DEMO and numbers.exists()
    facts = contents.records(executed)["provenance"]
    made.cells.insert(1, _box(shown, facts, source, superseded))
    return made


def run_path(chapter: str, profile: str, root: Path = ROOT) -> Path:
    """Where a profile's executed notebook is."""
    return root / "_build" / "runs" / profile / f"{chapter}.ipynb"


def published(chapter: str, root: Path = ROOT) -> nbformat.NotebookNode | None:
    """The published run if it is whole and has today's code cells; else None."""
    path = root / "published" / f"{chapter}.ipynb"
    if not (path.exists() and path.with_suffix(".json").exists()):
        return None
    executed = contents.read_notebook(path)
    same = code_cells(contents.notebook(chapter, root)) == code_cells(executed)
    return executed if same else None


def code_cells(notebook: nbformat.NotebookNode) -> list[str]:
    """The sources of a notebook's code cells, without the cell that papermill adds."""
    return [cell.source for cell in notebook.cells if _is_code(cell)]


def merge(
    source: nbformat.NotebookNode, executed: nbformat.NotebookNode
) -> nbformat.NotebookNode:
    """The source with the outputs of its executed copy; explorers get today's script.

    Raises :class:`BookError` if the code cells differ.
    """
    if code_cells(source) != code_cells(executed):
        raise BookError("its code cells are not those that were executed")
    made = nbformat.from_dict(source)
    outputs = iter([cell for cell in executed.cells if _is_code(cell)])
    for cell in made.cells:
        if cell.cell_type == "code":
            ran = next(outputs)
            cell.outputs = [_refreshed(o) for o in ran.outputs if not _is_debris(o)]
            cell.execution_count = ran.execution_count
    return made


def _is_code(cell: nbformat.NotebookNode) -> bool:
    injected = "injected-parameters" in cell.metadata.get("tags", [])
    return cell.cell_type == "code" and not injected


def _refreshed(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The output; how an explorer looks and answers is today's, its data stay."""
    html = output.get("data", {}).get("text/html", "")
    if "data-explorer-code" in html:
        output.data["text/html"] = embed.refresh(html)
    return output


def _is_debris(output: nbformat.NotebookNode) -> bool:
    """Progress bars: a widget's view, or lines redrawn with carriage returns."""
    if output.output_type == "stream":
        return output.name == "stderr" and "\r" in output.text
    return PROGRESS in output.get("data", {})


def _box(
    profile: str, facts: dict[str, Any], source: nbformat.NotebookNode, superseded: bool
) -> nbformat.NotebookNode:
    """What data, code and machine a page's numbers come from; a warning over demos."""
    given = {
        name: facts["parameters"][name]
        for name in _parameters_given(source, facts["parameters"])
    }
    changed = ", ".join(f"`{name}={value}`" for name, value in given.items())
    lines = [
        f"**Data**: {facts['data']}, {facts['images']} "
        f"(SHA-256 `{facts['data_sha256'][:12]}`).",
        f"**Profile**: {profile}"
        + (f", changed from the defaults: {changed}" if changed else "")
        + ".",
        f"**Run**: {facts['date']}, commit `{facts['commit']}`, {facts['device']}, "
        f"torch {facts['torch']}, "
        f"{_duration(facts['seconds'], facts.get('resumed_seconds', 0))}, "
        f"at most {facts['peak_memory_gb']} GB of memory.",
    ]
    text = "\n\n".join(lines)
    title, kind = "Where these numbers come from", "note"
    if profile == DEMO:
        title, kind = "Demo data, not results", "warning"
        warning = (
            "These pages were made on a small set that comes with scikit-learn, to "
            "show that everything works. Their numbers are measured, but they are not "
            "the results of this chapter."
        )
        if superseded:
            warning += (
                " (There is a published run, but of other code than this page's.)"
            )
        text = f"{warning}\n\n{text}"
    box = f":::{{admonition}} {title}\n:class: {kind}\n{text}\n:::"
    return nbformat.v4.new_markdown_cell(box, id="provenance")


def _duration(seconds: float, resumed: float = 0.0) -> str:
    def told(time: float) -> str:
        return f"{time:.0f} s" if time < 180 else f"{time / 60:.0f} minutes"

    # A run that went on from checkpoints took the time of both its parts.
    earlier = f" ({told(resumed)} of training in an earlier go)" if resumed >= 1 else ""
    return told(seconds + resumed) + earlier


def _parameters_given(
    source: nbformat.NotebookNode, values: dict[str, Any]
) -> list[str]:
    """The names whose values differ from the defaults in the parameters cell."""
    cell = next(c for c in source.cells if "parameters" in c.metadata.get("tags", []))
    defaults = {
        node.target.id: ast.literal_eval(node.value)
        for node in ast.parse(cell.source).body
        if isinstance(node, ast.AnnAssign)
    }
    return [name for name, value in values.items() if defaults.get(name) != value]


# --- what a run depends on -----------------------------------------------------------


def digests(chapter: str, root: Path = ROOT) -> dict[str, str]:
    """Of all that decides a run's outputs: the text of its code cells, and lib files.

    Figures are among the outputs, so files of ``lib.report`` count that a cell imports.
    """
    sources = code_cells(contents.notebook(chapter, root))
    read = code.read_from(root)
    report = {
        module.replace(".", "/") + ".py"
        for module in set().union(*map(code.imported, sources))
        if module.startswith("lib.report.")
    }
    texts = {name: text for name in sorted(report) if (text := read(name)) is not None}
    cells = hashlib.sha256(json.dumps(sources).encode()).hexdigest()[:16]
    presented = {name: code.digest([text]) for name, text in texts.items()}
    used = code.of_library([*sources, *texts.values()], read)
    return {"cells": cells, **presented, **used}


def library_digests(
    source: nbformat.NotebookNode, root: Path = ROOT, commit: str = ""
) -> dict[str, str]:
    """Of each file of ``lib`` that a notebook uses, now or as it was at a commit."""
    read = commits.reads(commit, root) if commit else code.read_from(root)
    return {
        name: hashlib.sha256(strip_docs(read(name) or "").encode()).hexdigest()[:16]
        for name in code.of_library(code_cells(source), read)
    }


# --- publishing ----------------------------------------------------------------------


def publish(chapter: str, profile: str, root: Path = ROOT) -> Path:
    """Store an executed chapter and its numbers under ``published``; gives its path.

    Raises :class:`BookError` for a run that is missing, not of the current code cells,
    not of committed code, too large, or that names a path of the machine.
    """
    run = run_path(chapter, profile, root)
    if not run.exists():
        raise BookError(
            f"{chapter} has not been executed with the {profile} profile: "
            f"there is no {run}."
        )
    source, executed = contents.notebook(chapter, root), contents.read_notebook(run)
    try:
        made = merge(source, executed)
    except BookError as error:
        raise BookError(
            f"{chapter} cannot be published ({error}): execute it again."
        ) from error
    numbers = contents.records(executed)
    commit = numbers["provenance"]["commit"]
    if not re.fullmatch("[0-9a-f]+", commit):
        raise BookError(
            f"{chapter} was executed from code that no commit names ({commit}): "
            "commit, execute again."
        )
    for cell in made.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = with_palette(output.data["image/png"])
    text = nbformat.writes(made)
    if len(text.encode()) > LIMIT:
        raise BookError(
            f"{chapter} is {len(text.encode()) / 1e6:.1f} MB, more than "
            f"{LIMIT / 1e6:.1f}: show fewer or smaller images and shorter GIFs."
        )
    if found := contents.path_of_this_machine(text, root):
        raise BookError(
            f"{chapter} shows a path of this machine, {found}: print file names only."
        )
    path = root / "published" / f"{chapter}.ipynb"
    stored = {
        "profile": profile,
        "lib": library_digests(source, root, commit),
        "records": numbers,
    }
    with atomic_write(path.with_suffix(".json")) as temporary:
        page = json.dumps(stored, indent=1, ensure_ascii=False)
        temporary.write_text(page + "\n", encoding="utf-8")
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def staleness(chapter: str, root: Path = ROOT) -> str | None:
    """Why a published run is not what the current code would give; or None."""
    path = root / "published" / f"{chapter}.json"
    if not (path.exists() and path.with_suffix(".ipynb").exists()):
        return "not published"
    source = contents.notebook(chapter, root)
    executed = contents.read_notebook(path.with_suffix(".ipynb"))
    if code_cells(source) != code_cells(executed):
        return "code cells have changed since: the page shows the demo run"
    then = contents.read_json(path)["lib"]
    # (Files that moved to lib.report make no numbers.)
    then = {name: mark for name, mark in then.items() if (root / name).exists()}
    changed = code.changes(then, library_digests(source, root))
    return f"older than {', '.join(changed)}" if changed else None


def with_palette(png: str) -> str:
    """A PNG (base64) with 256 colours, if hardly a pixel changes by that.

    Grey images and most figures come out the same at half the size; photographs, which
    do not, are left as they are.
    """
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    small = image.quantize(256, dither=Image.Dither.NONE)
    before, after = np.asarray(image, float), np.asarray(small.convert("RGB"), float)
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True)
    found = base64.b64encode(buffer.getvalue()).decode()
    alike = np.abs(before - after).mean() < 0.5
    return found if alike and len(found) < len(png) else png


def metrics(root: Path = ROOT) -> dict[str, dict[str, Any]]:
    """The numbers of published executed notebooks, by chapter and name."""
    return {
        path.stem: contents.read_json(path)
        for path in sorted((root / "published").glob("*.json"))
    }

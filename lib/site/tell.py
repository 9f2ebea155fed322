"""Telling cells executed on results, alone: ``python -m lib.site.tell --help``.

A chapter's parameters cell, its opening cell and every cell that is not tagged
``measure`` run in a fresh kernel that has the results and nothing else: no data set, no
checkpoint, no network, no settings of the user's. Pages are made from that.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import (
    CellExecutionError,
    CellTimeoutError,
    DeadKernelError,
)

from lib import code
from lib.files import ROOT, atomic_write
from lib.report.results import Results, ResultsError
from lib.site import contents, prose, provenance, published
from lib.site.contents import BookError

TIMEOUT = 300
"""Seconds that one telling cell may take; it reads and draws."""

RESULTS, PROFILE = "LWL_TELL", "LWL_PROFILE"

LACKING = """\
The published results are of earlier measuring cells. Say `make book` for a demo run to
show in their place, or publish new ones."""

NO_NETWORK = """\
import socket


def refuse(*_, **__):
    raise OSError("There is no network while a page is told: measure it.")


socket.socket.connect = socket.socket.connect_ex = refuse
socket.create_connection = socket.getaddrinfo = refuse
del refuse, socket
"""
"""What the kernel runs first."""


class TellError(BookError):
    """A telling cell failed; ``missing`` if it asked for what was not measured."""

    def __init__(self, message: str, missing: bool = False) -> None:
        super().__init__(message)
        self.missing = missing


def tell(
    chapter: str, results: Sequence[Path], root: Path = ROOT
) -> nbformat.NotebookNode:
    """A chapter's notebook with the outputs of its telling cells on these results.

    Raises :class:`TellError` with the chapter, the cell and the error.
    """
    paths = os.pathsep.join(str(path.resolve()) for path in results)
    return execute(chapter, {RESULTS: paths}, root)


def execute(
    name: str, variables: Mapping[str, str], root: Path = ROOT
) -> nbformat.NotebookNode:
    """A notebook executed in a bare kernel, without its measuring cells."""
    notebook = contents.notebook(name, root)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    prose.ask(notebook)
    with tempfile.TemporaryDirectory(prefix="lwl-tell-") as folder:
        client = NotebookClient(
            notebook,
            timeout=TIMEOUT,
            startup_timeout=120,
            skip_cells_with_tag=code.MEASURE,
            record_timing=False,
            # (ipykernel warns that it listens on this machine without encryption.)
            extra_arguments=["--IPKernelApp.log_level=ERROR"],
        )
        manager = client.create_kernel_manager()
        # This Python's kernel, whatever kernel the user has called "python3".
        manager.kernel_name = "python3"
        manager.kernel_spec_manager = KernelSpecManager(kernel_dirs=[])
        manager.connection_file = str(Path(folder) / "kernel.json")
        environment = {**_bare(Path(folder), root), **variables}
        try:
            client.execute(env=environment, cwd=folder)
        except CellExecutionError as error:
            raise _failed(name, notebook, error) from error
        except (CellTimeoutError, DeadKernelError) as error:
            raise TellError(f"{name} cannot be told: {error}") from error
    try:
        prose.quote(notebook)
    except prose.QuoteError as error:
        where = f"{{eval}}`{error.expression}` in its cell {error.cell!r}"
        raise _said(name, where, error.error, error.why) from error
    prose.lead_first(notebook)
    return notebook


def _failed(
    name: str, notebook: nbformat.NotebookNode, error: CellExecutionError
) -> TellError:
    cell = next(
        cell
        for cell in notebook.cells
        if any(o.output_type == "error" for o in cell.get("outputs", []))
    )
    line = (cell.source.strip().splitlines() or [""])[0]
    where = f"its cell {cell.get('id', '')!r} ({line})"
    return _said(name, where, error.ename, contents.plain(error.evalue))


def _said(name: str, where: str, error: str, why: str) -> TellError:
    message = f"{name} cannot be told: {where} failed with\n{error}: {why}"
    return TellError(message, missing=error == "MissingResult")


def _bare(folder: Path, root: Path) -> dict[str, str]:
    """The environment of a telling kernel: its own home, and nothing to find there."""
    ours = ("LWL_", "GIT_", "JUPYTER", "IPYTHON", "MPL", "MATPLOTLIB", "PYTHON", "XDG_")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(ours) and not name.lower().endswith("_proxy")
    }
    startup = folder / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00-no-network.py").write_text(NO_NETWORK, encoding="utf-8")
    # Not a new one each time: matplotlib lists the fonts again in an empty one, for
    # seconds.
    drawing = root / "_build" / "matplotlib"
    drawing.mkdir(parents=True, exist_ok=True)
    empty = {
        name: str(folder / name.lower())
        for name in ("LWL_DATA", "LWL_CHECKPOINTS", "LWL_CACHE", "JUPYTER_CONFIG_DIR")
    }
    return {
        **kept,
        **empty,
        "HOME": str(folder),
        "IPYTHONDIR": str(folder / "ipython"),
        "LWL_KERNEL": "telling",  # ipython_config.py leaves this profile in force
        "MPLCONFIGDIR": str(drawing),
        "PYTHONPATH": str(root),
        "PYTHONNOUSERSITE": "1",
        "PYTHONUTF8": "1",
        "TZ": "UTC",
    }


# --- pages ---------------------------------------------------------------------------


def page(chapter: str, profile: str, root: Path = ROOT) -> nbformat.NotebookNode:
    """A chapter's page: told on the results that the book shows, with where from.

    Published results are told as long as the telling cells find in them what they ask
    for; else the demo run, where there is one. Raises :class:`BookError` where there
    are no results or a telling cell fails.
    """
    paths = published.shown(chapter, profile, root)
    today = code.of_chapter(chapter, code.read_from(root))
    superseded = False
    try:
        told = tell(chapter, paths, root)
    except TellError as error:
        demo = published.measured(chapter, contents.DEMO, root)
        ours = profile == contents.DEMO and paths == published.paths(chapter, root)
        earlier = not published.are_of_these_cells(paths, today)
        if not (error.missing and ours and earlier):
            raise
        if not demo:
            raise TellError(f"{error}\n{LACKING}", missing=True) from error
        paths, superseded = demo, True
        told = tell(chapter, paths, root)
    facts = Results.read(paths).provenance
    declared = contents.declared(chapter, root)
    if banner := provenance.banner(facts, today, superseded):
        told.cells.insert(1, nbformat.v4.new_markdown_cell(banner, id="banner"))
    last = provenance.how_this_was_run(facts, declared)
    told.cells.append(nbformat.v4.new_markdown_cell(last, id="how-this-was-run"))
    return told


def page_of_numbers(
    name: str, profile: str, root: Path = ROOT
) -> nbformat.NotebookNode:
    """A page that shows what chapters measured and said, executed."""
    return execute(name, {PROFILE: profile}, root)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lib.site.tell", description=__doc__.splitlines()[0]
    )
    parser.add_argument("name", help="a chapter, or a page of numbers")
    parser.add_argument("--profile", default=contents.DEMO)
    parser.add_argument("--out", type=Path, required=True, help="the notebook to write")
    parser.add_argument(
        "--results",
        type=Path,
        nargs="+",
        help="the results to tell, in place of those that the book shows",
    )
    options = parser.parse_args(arguments)
    try:
        if options.name in contents.pages():
            told = page_of_numbers(options.name, options.profile)
        elif options.results:
            told = tell(contents.find(options.name), options.results)
        else:
            told = page(contents.find(options.name), options.profile)
    except (BookError, ResultsError) as error:
        print(error, file=sys.stderr)
        return 1
    with atomic_write(options.out) as temporary:
        nbformat.write(told, temporary)
    return 0


if __name__ == "__main__":
    sys.exit(main())

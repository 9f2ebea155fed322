"""Putting executed notebooks together for Jupyter Book: ``python -m lib.site.book --help``.

A page takes its prose from the source notebook and its outputs from an executed copy, as long as their
code cells are the same. So a changed sentence costs no run, and an output never stands under other code.
In the default book the executed copy is the published run where there is one, else the demo run.
"""

import argparse
import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import nbformat
import yaml

from lib.files import ROOT
from lib.report import embed

PROGRESS = "application/vnd.jupyter.widget-view+json"


class BookError(Exception):
    """The book cannot be put together; the message names the chapter and the remedy."""


def chapters(root: Path = ROOT) -> list[str]:
    """The names of the book's chapters, notebooks called ``01_…``, in the order of ``_toc.yml``."""
    return [name for name in _notebooks(root) if name[0].isdigit()]


def pages(root: Path = ROOT) -> list[str]:
    """The names of the other notebooks: without parameters, quick, they show what chapters measured."""
    return [name for name in _notebooks(root) if not name[0].isdigit()]


def _notebooks(root: Path) -> list[str]:
    toc = yaml.safe_load((root / "_toc.yml").read_text())
    files = [Path(entry["file"]) for entry in toc["chapters"]]
    return [file.name for file in files if (root / file).with_suffix(".ipynb").exists()]


def parameters(chapter: str, profile: str, root: Path = ROOT) -> dict[str, Any]:
    """What a profile sets for a chapter; nothing for ``demo``, whose values are the notebook's own defaults.

    Raises :class:`BookError` for a profile that does not exist or has nothing for the chapter.
    """
    if profile == "demo":
        return {}
    path = root / "book" / "profiles" / f"{profile}.yaml"
    if not path.exists():
        known = sorted(file.stem for file in path.parent.glob("*.yaml"))
        raise BookError(f"There is no profile {profile!r}. Known: demo, {', '.join(known)}.")
    values = yaml.safe_load(path.read_text())
    if chapter not in values:
        raise BookError(f"{path} has no parameters for {chapter!r}: add a block with that name.")
    return values[chapter]


def published(chapter: str, root: Path = ROOT) -> nbformat.NotebookNode | None:
    """The published run of a chapter if it is whole and its code cells are those of the source; else None."""
    path = root / "published" / f"{chapter}.ipynb"
    if not (path.exists() and path.with_suffix(".json").exists()):
        return None
    executed = nbformat.read(path, 4)
    return (
        executed if code_cells(nbformat.read(root / "book" / f"{chapter}.ipynb", 4)) == code_cells(executed) else None
    )


def code_digest(path: Path) -> str:
    """SHA-256 over what of a notebook decides its outputs: its code cells, not its prose."""
    return hashlib.sha256(json.dumps(code_cells(nbformat.read(path, 4))).encode()).hexdigest()


def code_cells(notebook: nbformat.NotebookNode) -> list[str]:
    """The sources of a notebook's code cells, without the cell that papermill adds."""
    return [cell.source for cell in notebook.cells if _is_code(cell)]


def merge(source: nbformat.NotebookNode, executed: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The source notebook with the outputs of its executed copy; explorers get today's script.

    Raises :class:`BookError` if the code cells differ.
    """
    if code_cells(source) != code_cells(executed):
        raise BookError("its code cells are not those that were executed")
    page = nbformat.from_dict(source)
    outputs = iter([cell for cell in executed.cells if _is_code(cell)])
    for cell in page.cells:
        if cell.cell_type == "code":
            ran = next(outputs)
            cell.outputs = [_refreshed(output) for output in ran.outputs if not _is_debris(output)]
            cell.execution_count = ran.execution_count
    return page


def records(executed: nbformat.NotebookNode) -> dict[str, Any]:
    """The numbers that a chapter recorded, by name, and where they came from under ``provenance``."""
    found = {}
    for cell in executed.cells:
        for output in cell.get("outputs", []):
            metadata = output.get("metadata", {})
            if "record" in metadata:
                found[metadata["scrapbook"]["name"]] = metadata["record"]
    return found


def assemble(profile: str, out: Path, root: Path = ROOT, repository: str = "", site: str = "") -> None:
    """Lay out in ``out`` what Jupyter Book builds: configuration, pages and executed chapters.

    With the repository's address the pages get buttons to edit and to run them elsewhere; with the site's
    they can be shared with a picture. Raises :class:`BookError` for a chapter that has not been executed,
    or whose code has changed since.
    """
    if out.exists() and not out.resolve().is_relative_to(root / "_build"):
        raise BookError(f"{out} exists and would be emptied: choose a new folder, or one in {root / '_build'}.")
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(root / "book", out / "book", ignore=shutil.ignore_patterns("*.ipynb", ".*", "profiles", "static"))
    shutil.copy(root / "_toc.yml", out)
    configuration = yaml.safe_load((root / "_config.yml").read_text())
    (out / "_config.yml").write_text(yaml.safe_dump(_addressed(configuration, repository, site), sort_keys=False))
    if (root / "book" / "static").is_dir():
        shutil.copytree(root / "book" / "static", out / "_static")
    for chapter in chapters(root):
        source = nbformat.read(root / "book" / f"{chapter}.ipynb", 4)
        executed = published(chapter, root) if profile == "demo" else None
        shown = json.loads((root / "published" / f"{chapter}.json").read_text())["profile"] if executed else profile
        if executed is None:
            run = root / "_build" / "runs" / profile / f"{chapter}.ipynb"
            if not run.exists():
                raise BookError(f"{chapter} has not been executed with the {profile} profile: run `make book`.")
            executed = nbformat.read(run, 4)
        try:
            page = merge(source, executed)
        except BookError as error:
            raise BookError(f"{chapter} is out of date ({error}): run `make book`.") from error
        superseded = shown == "demo" and (root / "published" / f"{chapter}.ipynb").exists()
        page.cells.insert(1, _provenance_box(shown, records(executed)["provenance"], source, superseded))
        nbformat.write(page, out / "book" / f"{chapter}.ipynb")
    for name in pages(root):
        source, executed = (nbformat.read(root / place / f"{name}.ipynb", 4) for place in ("book", "_build/pages"))
        nbformat.write(merge(source, executed), out / "book" / f"{name}.ipynb")


def _addressed(configuration: dict[str, Any], repository: str, site: str) -> dict[str, Any]:
    """Jupyter Book's configuration with what needs addresses that only the one who builds knows."""
    if repository:
        configuration["repository"] = {"url": repository, "branch": "main", "path_to_book": ""}
        configuration["html"] |= {"use_repository_button": True, "use_edit_page_button": True}
        configuration["launch_buttons"] = {
            "colab_url": "https://colab.research.google.com",
            "binderhub_url": "https://mybinder.org",
            "notebook_interface": "jupyterlab",
        }
    if site:
        site = site.rstrip("/") + "/"
        configuration["html"]["baseurl"] = site
        configuration["sphinx"]["extra_extensions"].append("sphinxext.opengraph")
        configuration["sphinx"]["config"] |= {
            "ogp_site_url": site,
            "ogp_image": site + "_static/card.png",
            "ogp_image_alt": configuration["title"],
            "ogp_social_cards": {"enable": False},
        }
    return configuration


def failure(executed: nbformat.NotebookNode) -> str | None:
    """Where a partly executed notebook stopped: the cell's number, its first line and the error; None if it did not."""
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, 1):
        for output in cell.outputs:
            if output.output_type == "error":
                first_line = (cell.source.strip().splitlines() or [""])[0]
                return f"code cell {number} ({first_line})\n{output.ename}: {output.evalue}"
    return None


def _provenance_box(
    profile: str, facts: dict[str, Any], source: nbformat.NotebookNode, superseded: bool
) -> nbformat.NotebookNode:
    """A box on the page: what data, code and machine its numbers come from, and a warning over demo data."""
    given = {name: facts["parameters"][name] for name in parameters_given(source, facts["parameters"])}
    lines = [
        f"**Data**: {facts['data']}, {facts['images']} (SHA-256 `{facts['data_sha256'][:12]}`).",
        f"**Profile**: {profile}"
        + (", changed from the defaults: " + ", ".join(f"`{k}={v}`" for k, v in given.items()) if given else "")
        + ".",
        f"**Run**: {facts['date']}, commit `{facts['commit']}`, {facts['device']}, torch {facts['torch']}, "
        f"{_duration(facts['seconds'], facts.get('resumed_seconds', 0))}, "
        f"at most {facts['peak_memory_gb']} GB of memory.",
    ]
    text = "\n\n".join(lines)
    if profile == "demo":
        warning = (
            "These pages were made on a small set that comes with scikit-learn, to show that "
            "everything works. Their numbers are measured, but they are not the results of this chapter."
            + " (There is a published run, but of other code than this page's.)"
            * superseded
        )
        text = f":::{{admonition}} Demo data, not results\n:class: warning\n{warning}\n\n{text}\n:::"
    else:
        text = f":::{{admonition}} Where these numbers come from\n:class: note\n{text}\n:::"
    return nbformat.v4.new_markdown_cell(text)


def _duration(seconds: float, resumed: float = 0.0) -> str:
    def told(time: float) -> str:
        return f"{time:.0f} s" if time < 180 else f"{time / 60:.0f} minutes"

    # A run that went on from checkpoints took the time of both its parts.
    return told(seconds + resumed) + (f" ({told(resumed)} of training in an earlier go)" if resumed >= 1 else "")


def parameters_given(source: nbformat.NotebookNode, values: dict[str, Any]) -> list[str]:
    """The names among ``values`` that differ from the defaults in the notebook's parameters cell."""
    import ast

    cell = next(cell for cell in source.cells if "parameters" in cell.metadata.get("tags", []))
    defaults = {
        node.target.id: ast.literal_eval(node.value)
        for node in ast.parse(cell.source).body
        if isinstance(node, ast.AnnAssign)
    }
    return [name for name, value in values.items() if defaults.get(name) != value]


def _is_code(cell: nbformat.NotebookNode) -> bool:
    return cell.cell_type == "code" and "injected-parameters" not in cell.metadata.get("tags", [])


def _refreshed(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The output; in an explorer, how it looks and answers is today's, as the pages' theme is. Its data stay."""
    page = output.get("data", {}).get("text/html", "")
    if "data-explorer-code" in page:
        output.data["text/html"] = embed.refresh(page)
    return output


def _is_debris(output: nbformat.NotebookNode) -> bool:
    """Progress bars that an executed notebook kept: a widget's view, or lines redrawn with carriage returns."""
    if output.output_type == "stream":
        return output.name == "stderr" and "\r" in output.text
    return PROGRESS in output.get("data", {})


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m lib.site.book", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("assemble", help="lay out what Jupyter Book builds, from executed chapters")
    command.add_argument("--profile", default="demo")
    command.add_argument("--out", type=Path, default=ROOT / "_build" / "source")
    command.add_argument("--repository", default="", help="its web address, for buttons to edit and run pages")
    command.add_argument("--site", default="", help="the address that the book will have")
    command = commands.add_parser("metrics", help="print the numbers that an executed chapter recorded, as JSON")
    command.add_argument("notebook", type=Path)
    command = commands.add_parser("failure", help="print where partly executed chapters stopped")
    command.add_argument("notebooks", type=Path, nargs="*")
    options = parser.parse_args(arguments)
    try:
        if options.command == "assemble":
            assemble(options.profile, options.out, ROOT, options.repository, options.site)
        elif options.command == "metrics":
            print(json.dumps(records(nbformat.read(options.notebook, 4)), indent=2))
        else:
            for path in options.notebooks:
                try:
                    error = failure(nbformat.read(path, 4))
                except nbformat.reader.NotJSONError:  # killed while it was written
                    error = f"an unknown cell: {path} was cut off"
                if error:
                    report = f"\nChapter {path.stem} failed in {error}\nIts notebook as far as it came: {path}"
                    print(report, file=sys.stderr, flush=True)
    except BookError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

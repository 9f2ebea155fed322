"""Putting told notebooks together for Jupyter Book: ``python -m lib.site.book``."""

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import yaml

from lib.files import ROOT
from lib.site import contents, engine, old_way
from lib.site.contents import (
    BookError,
    chapters,
    converted,
    failure,
    find,
    pages,
    parameters,
    records,
)
from lib.site.old_way import merge

__all__ = [
    "BookError",
    "assemble",
    "build",
    "chapters",
    "converted",
    "failure",
    "find",
    "merge",
    "pages",
    "parameters",
    "records",
]


# --- laying out ----------------------------------------------------------------------


def assemble(
    profile: str, out: Path, root: Path = ROOT, repository: str = "", site: str = ""
) -> None:
    """Lay out in ``out`` what Jupyter Book builds: configuration, pages and chapters.

    With the repository's address the pages get buttons to edit and to run them
    elsewhere; with the site's they can be shared with a picture. What is there already
    and the same is left alone, so that Sphinx makes again only what has changed. Raises
    :class:`BookError` for a chapter that was not told, or not executed.
    """
    if out.exists() and not out.resolve().is_relative_to((root / "_build").resolve()):
        raise BookError(
            f"{out} exists and would be emptied: choose a new folder, or one in "
            f"{root / '_build'}."
        )
    files = dict(_files(profile, root, repository, site))
    for path in [p for p in out.glob("**/*") if p.is_file() or p.is_symlink()]:
        if path.relative_to(out).as_posix() not in files:
            path.unlink()
    for name, content in files.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_bytes() != content:
            path.write_bytes(content)


def _files(
    profile: str, root: Path, repository: str, site: str
) -> Iterator[tuple[str, bytes]]:
    """What Jupyter Book is given, by path."""
    yield "_toc.yml", (root / "_toc.yml").read_bytes()
    configuration = contents.read_yaml(root / "_config.yml")
    addressed = _addressed(configuration, repository, site)
    yield "_config.yml", yaml.safe_dump(addressed, sort_keys=False).encode()
    for path in sorted((root / "book").glob("**/*")):
        place, *_ = parts = path.relative_to(root / "book").parts
        hidden = any(part.startswith((".", "__")) for part in parts)
        if (
            not path.is_file()
            or hidden
            or place == "profiles"
            or path.suffix == ".ipynb"
        ):
            continue
        content = path.read_bytes()
        if parts == ("api.md",):
            content = with_all_files(content.decode(), root).encode()
        static = place == "static"
        yield "/".join(("_static", *parts[1:]) if static else ("book", *parts)), content
    for name in chapters(root):
        told = root / "_build" / "told" / profile / f"{name}.ipynb"
        page = (
            _executed(told, name)
            if converted(name, root)
            else old_way.page(name, profile, root)
        )
        yield f"book/{name}.ipynb", _written(page)
    for name in pages(root):
        told = root / "_build" / "told" / profile / f"{name}.ipynb"
        yield f"book/{name}.ipynb", _written(_executed(told, name))


def _executed(path: Path, name: str) -> nbformat.NotebookNode:
    if not path.exists():
        raise BookError(f"{name} has not been told: run `make html`, or `make book`.")
    return contents.read_notebook(path)


def _written(page: nbformat.NotebookNode) -> bytes:
    for number, cell in enumerate(page.cells):  # the same page has the same bytes
        cell.setdefault("id", f"cell-{number}")
    return nbformat.writes(page).encode()


def with_all_files(api: str, root: Path = ROOT) -> str:
    """The page of the library, with the files of ``lib`` that it does not place."""
    placed = set(re.findall(r"automodule:: lib\.(\w+)", api))
    found = sorted(path.stem for path in (root / "lib").glob("*.py"))
    rest = [name for name in found if name not in placed and name != "__init__"]
    blocks = [
        f"```{{eval-rst}}\n.. automodule:: lib.{name}\n   :members:\n```"
        for name in rest
    ]
    return "\n\n".join([api.rstrip(), *(["## More"] if rest else []), *blocks]) + "\n"


def _addressed(
    configuration: dict[str, Any], repository: str, site: str
) -> dict[str, Any]:
    """The configuration with addresses that only the one who builds knows."""
    if repository:
        configuration["repository"] = {
            "url": repository,
            "branch": "main",
            "path_to_book": "",
        }
        configuration["html"] |= {
            "use_repository_button": True,
            "use_edit_page_button": True,
        }
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


# --- building ------------------------------------------------------------------------


def build(root: Path = ROOT) -> int:
    """Have Jupyter Book make pages of what is laid out; gives its exit status.

    Pages that did not change are kept, unless something changed that stands on all of
    them. After a failure nothing is kept: Sphinx would not warn again of a page that it
    has read.
    """
    built, source = root / "_build", root / "_build" / "source"
    mark, frame = built / "html" / ".frame", _frame(root)
    fresh = not mark.is_file() or mark.read_text(encoding="utf-8") != frame
    if fresh:
        _forget(root)
    mark.unlink(missing_ok=True)
    program = str(Path(sys.executable).with_name("jupyter-book"))
    command = [program, "build", "-W", "-n", "--keep-going", "--path-output", "."]
    status = subprocess.run([*command, str(source)], cwd=root, check=False).returncode
    if status:
        _forget(root)
    else:
        mark.write_text(frame, encoding="utf-8")
    return status


def _forget(root: Path) -> None:
    for name in ("html", ".doctrees", "jupyter_execute"):
        shutil.rmtree(root / "_build" / name, ignore_errors=True)


def _frame(root: Path) -> str:
    """Stands for what is on every page: contents, titles, looks, what makes them."""
    source = root / "_build" / "source"
    titles = [
        _title(path)
        for path in sorted((source / "book").glob("*"))
        if path.suffix in (".ipynb", ".md")
    ]
    files = [source / "_toc.yml", source / "_config.yml", root / "requirements.txt"]
    files += sorted((source / "_static").glob("**/*"))
    files += sorted((root / "lib" / "site").glob("*.py"))
    found = [hashlib.sha256(p.read_bytes()).hexdigest() for p in files if p.is_file()]
    return hashlib.sha256(json.dumps([titles, found]).encode()).hexdigest()


def _title(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = nbformat.reads(text, 4).cells
        text = next((c.source for c in cells if c.cell_type == "markdown"), "")
    lines = [line for line in text.splitlines() if line.startswith("# ")]
    return f"{path.name}: {lines[0] if lines else ''}"


# --- commands ------------------------------------------------------------------------


KILLED = (
    "it was killed: for lack of memory, most likely, or by hand. Ask for less (a "
    "smaller batch, fewer or smaller images), or measure one chapter at a time"
)
CAUSES = {
    r"DeadKernelError|Kernel died": f"its kernel died; {KILLED}",
    r"No space left on device|Disk quota exceeded|enforce fail at inline_container": (
        "the disk is full: free some room (`make clean` forgets what was made)"
    ),
    r"Kernel didn't respond": "its kernel did not start in time: try again",
}
"""What papermill's own last words mean."""


def report_failures(notebooks: list[Path]) -> None:
    """Print where partly executed chapters stopped, and why."""
    for path in notebooks:
        if error := _stopped(path):
            report = f"\nChapter {path.stem} failed in {error}"
            print(f"{report}\nIts notebook as far as it came: {path}", file=sys.stderr)
    sys.stderr.flush()


def _stopped(path: Path) -> str | None:
    """Where an execution stopped and why; None for one that did not."""
    if contents.is_cut_off(path):
        where, error = f"an unknown cell: {path} was cut off", None
    else:
        executed = nbformat.read(path, 4)
        where, error = contents.last_cell(executed), contents.failure(executed)
    log = path.with_suffix(".txt")
    said = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    found = [why for words, why in CAUSES.items() if re.search(words, said)]
    if error is not None:
        return "\n".join([error, *found])
    words = said.strip().splitlines()
    ended = words and re.match(r"[\w.]+(Error|Exception|Interrupt)\b", words[-1])
    why = found or ([words[-1]] if ended else [KILLED])
    return f"{where}\n{'; '.join(why)}.\nWhat papermill said: {log}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lib.site.book", description=__doc__.splitlines()[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("build", help="lay out told notebooks, make pages")
    command.add_argument("--profile", default=contents.DEMO)
    command.add_argument(
        "--repository",
        default="",
        help="its address, for buttons to edit and run pages",
    )
    command.add_argument(
        "--site", default="", help="the address that the book will have"
    )
    command = commands.add_parser(
        "target", help="print the files that a chapter's runs leave, for Snakemake"
    )
    command.add_argument("chapter", help="its name, or the start of it")
    command.add_argument("--profile", default=contents.DEMO)
    command.add_argument("--seeds", nargs="+", default=["0"])
    command.add_argument(
        "--custom", action="store_true", help="beside the profile's own runs"
    )
    command = commands.add_parser("metrics", help="print what a notebook hands on")
    command.add_argument("notebook", type=Path)
    command = commands.add_parser("failure", help="say where executed chapters stopped")
    command.add_argument("notebooks", type=Path, nargs="*")
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except BookError as error:
        print(error, file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    if options.command == "build":
        out = ROOT / "_build" / "source"
        assemble(options.profile, out, ROOT, options.repository, options.site)
        return build()
    if options.command == "target":
        chapter = find(options.chapter)
        found = engine.target(chapter, options.profile, options.seeds, options.custom)
        print(*found)
    elif options.command == "metrics":
        print(json.dumps(records(contents.read_notebook(options.notebook)), indent=2))
    else:
        report_failures(options.notebooks)
    return 0


if __name__ == "__main__":
    sys.exit(main())

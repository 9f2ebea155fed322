"""Which published numbers moved between two editions: ``python -m lib.site.editions``.

An edition is a commit with what it has in ``published/``. Numbers are compared by the
rule that decides all verdicts: beyond two standard errors over runs, or not.
"""

import argparse
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lib.files import ROOT
from lib.report.numbers import BETTER, WORSE, Number, difference, verdict
from lib.report.results import Results
from lib.site import published
from lib.site.contents import BookError

CHANCE = """\
A number is listed if its means differ by more than two standard errors over runs. With
few runs and many numbers, some are listed by chance: with three runs on each side,
about one in nine would be, were nothing changed."""

WORDS = {BETTER: "better", WORSE: "worse"}


def changes(old: Path, new: Path) -> Iterator[str]:
    """What a chapter's readers see otherwise, as Markdown, from two projects' folders.

    Chapters that are published as executed notebooks hold no runs and are left out.
    """
    names = dict.fromkeys([*_chapters(old), *_chapters(new)])
    for name in sorted(names):
        before, after = published.paths(name, old), published.paths(name, new)
        if _bytes(before) == _bytes(after):
            continue
        yield f"### {name}\n"
        if not before or not after:
            found = published.read(after or before, name)
            yield f"{'Published' if after else 'No longer published'}: {_about(found)}."
        else:
            yield from _compared(
                published.read(before, name), published.read(after, name)
            )
        yield ""


def _chapters(root: Path) -> list[str]:
    return [path.name for path in (root / "published").glob("*") if path.is_dir()]


def _bytes(paths: list[Path]) -> list[bytes]:
    return [path.read_bytes() for path in paths]


def _about(results: Results) -> str:
    facts = results.provenance
    runs = f"{results.runs} run{'s' * (results.runs != 1)}"
    commits = ", ".join(dict.fromkeys(f"`{run['commit']}`" for run in facts))
    return f"{runs} of profile {facts[0]['profile']}, code of {commits}"


def _compared(old: Results, new: Results) -> Iterator[str]:
    yield f"Now {_about(new)}; before {_about(old)}."
    data = [
        results.provenance[0].get("data", {}).get("sha256") for results in (old, new)
    ]
    if data[0] != data[1]:
        yield "The data are others, so the numbers are not comparable."
        return
    shared = [name for name in new if name in old]
    if all(set(old[name].values) <= set(new[name].values) for name in shared):
        yield "Runs were added; those that were there are the same."
        return
    moved = [name for name in shared if difference(new[name], old[name])]
    if moved:
        yield "\n| number | before | now | |\n|:--|--:|--:|:--|"
    for name in moved:
        yield _row(name, old[name], new[name])
    stayed = len(shared) - len(moved)
    added, gone = set(new) - set(old), set(old) - set(new)
    yield (
        f"\n{len(moved)} of {len(shared)} numbers moved beyond noise; for {stayed} the "
        f"runs show no difference. {len(added)} are new, {len(gone)} are gone."
    )


def _data(results: Results) -> str | None:
    return results.provenance[0].get("data", {}).get("sha256")


def _row(name: str, old: Number, new: Number) -> str:
    word = ""
    if new.better:
        word = WORDS.get(verdict(new, old).outcome, "")
    unit = f" {new.unit}" if new.unit else ""
    return f"| `{name}` | {old.text}{unit} | {new.text}{unit} | {word} |"


# --- editions in git -----------------------------------------------------------------


def extract(commit: str, folder: Path, root: Path = ROOT) -> None:
    """Put what a commit has in ``published/`` into a folder.

    Raises :class:`BookError` for what is no commit here, or has nothing published.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    command = ["git", "archive", "--format=tar", commit, "published"]
    found = subprocess.run(
        command, cwd=root, env=kept, capture_output=True, check=False
    )
    if found.returncode:
        why = found.stderr.decode().strip()
        raise BookError(f"{commit}: no edition of the book ({why}).")
    with tarfile.open(fileobj=io.BytesIO(found.stdout)) as archive:
        archive.extractall(folder, filter="data")


def between(old: str, new: str | None, root: Path = ROOT) -> str:
    """The changes from one commit to another, or to the files that are there now."""
    with tempfile.TemporaryDirectory(prefix="lwl-editions-") as name:
        extract(old, Path(name) / "old", root)
        after = root
        if new is not None:
            after = Path(name) / "new"
            extract(new, after, root)
        found = list(changes(Path(name) / "old", after))
    if not found:
        return "No published number changed."
    listed = any("| number |" in line for line in found)
    return "\n".join([*found, *([CHANCE] if listed else [])]).strip()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lib.site.editions", description=__doc__.splitlines()[0]
    )
    parser.add_argument("old", help="a commit, a tag or a branch")
    parser.add_argument("new", nargs="?", help="another; by default the files here")
    options = parser.parse_args(arguments)
    try:
        print(between(options.old, options.new))
    except BookError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Storing results for the book, checking them: ``python -m lib.site.publish --help``.

What is stored is committed: every number and picture of the book can be traced to a
commit, a data set and a machine.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lib import code, commits
from lib.files import ROOT, atomic_write
from lib.report.results import FREE, copy_for_publishing
from lib.site import contents, old_way, published
from lib.site.contents import DEMO, BookError

LIMIT = 1_500_000
"""Bytes of all published results of a chapter."""


# --- storing -------------------------------------------------------------------------


def store(
    chapter: str, profile: str, seeds: Sequence[int], root: Path = ROOT
) -> list[Path]:
    """Copy results of a profile's runs to ``published``, beside those there already.

    All arrays of the first seed, of the others those kept of every run. Nothing is
    stored unless everything can be stood for. Raises :class:`BookError` for results
    that are missing, damaged, another run's or no repeats of each other, of the demo
    profile, of code that no commit holds, too large, or that name a path of this
    machine.
    """
    if profile == DEMO:
        raise BookError(
            "Demo runs are not published: they show that everything works. "
            "Say PROFILE=laptop, or paper."
        )
    source = root / "_build" / "results" / profile / chapter
    stored = root / "published" / chapter
    with tempfile.TemporaryDirectory(prefix="lwl-publish-") as name:
        folder = Path(name) / "published" / chapter
        folder.mkdir(parents=True)
        for path in published.paths(chapter, root):
            shutil.copy(path, folder)
            if path.with_suffix(".npz").exists():
                shutil.copy(path.with_suffix(".npz"), folder)
        first = min([*seeds, *published.seeds(published.paths(chapter, root))])
        for seed in seeds:
            run = source / f"seed-{seed}.json"
            facts = published.read([run], chapter).provenance[0]
            _refuse_another_run(run, profile, seed, facts)
            _refuse_what_no_commit_holds(chapter, seed, facts, root)
            # (The whole of a run that was published alone, before a smaller seed.)
            copy_for_publishing(run, folder / run.name, seed == first)
        found = published.runs_in(folder)
        published.read(found, chapter)  # refuses what does not belong together
        _refuse_what_is_too_large(chapter, folder)
        _refuse_paths(chapter, found, root)
        targets = [stored / f"seed-{seed}.json" for seed in seeds]
        for target in targets:
            # The arrays first: numbers name the arrays that belong to them.
            for suffix in (".npz", ".json"):
                with atomic_write(target.with_suffix(suffix)) as temporary:
                    shutil.copy(folder / f"{target.stem}{suffix}", temporary)
    return targets


def _refuse_another_run(
    path: Path, profile: str, seed: int, facts: dict[str, Any]
) -> None:
    ran = facts["profile"], facts["parameters"]["seed"]
    if ran != (profile, seed):
        raise BookError(
            f"{path} holds a run of profile {ran[0]}, seed {ran[1]}: remove it, and "
            "run what its place is for."
        )


def _refuse_what_no_commit_holds(
    chapter: str, seed: int, facts: dict[str, Any], root: Path
) -> None:
    commit = facts["commit"]
    what = f"{chapter}, seed {seed}"
    if not commit.isalnum() or commit == "unknown":
        raise BookError(
            f"{what}: it ran from code that no commit holds ({commit}). "
            "Commit, remove the results, and run again."
        )
    if not commits.is_known(commit, root):
        raise BookError(
            f"{what}: its commit {commit} is not in this repository. "
            "Fetch it, or run again."
        )
    then = code.of_chapter(chapter, commits.reads(commit, root))
    if odd := code.changes(then, facts["code"]):
        raise BookError(
            f"{what}: it did not run the code of its commit {commit}; "
            f"{_names(odd)} differed. Commit, remove the results, and run again."
        )


def _refuse_what_is_too_large(chapter: str, folder: Path) -> None:
    size = sum(path.stat().st_size for path in folder.iterdir())
    if size > LIMIT:
        raise BookError(
            f"{chapter}: its results are {size / 1e6:.1f} MB, and {LIMIT / 1e6:.1f} "
            "are allowed. Keep images as uint8, fewer of them, or less of every run."
        )


def _refuse_paths(chapter: str, found: Sequence[Path], root: Path) -> None:
    for path in found:
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
            texts = [
                str(arrays[n]) for n in arrays.files if arrays[n].dtype.kind == "U"
            ]
        written = "\n".join([path.read_text(encoding="utf-8"), *texts])
        if named := contents.path_of_this_machine(written, root):
            raise BookError(
                f"{chapter}, {path.name}: it names a path of this machine, {named}. "
                "Record file names only, and run again."
            )


def _names(odd: Sequence[str]) -> str:
    return ", ".join("its measuring cells" if n == "cells" else n for n in odd)


# --- checking ------------------------------------------------------------------------


def check(chapter: str, root: Path = ROOT) -> list[str]:
    """What a run of today would have different from the published ones, a line each."""
    found = published.paths(chapter, root)
    if not found:
        return ["not published: the page shows the demo run"]
    try:
        runs = published.read(found, chapter)
    except BookError as error:
        return [str(error)]
    seeds = published.seeds(found)
    said = []
    if missing := sorted(set(range(max(seeds) + 1)) - set(seeds)):
        many = "s" if len(missing) > 1 else ""
        said.append(f"missing: seed{many} {', '.join(map(str, missing))}")
    today = code.of_chapter(chapter, code.read_from(root))
    for seed, facts in zip(seeds, runs.provenance, strict=True):
        run = f"seed {seed} ({facts['commit']}, {facts['date']})"
        odd = code.changes(facts["code"], today)
        if "cells" in odd:
            said.append(f"{run}: measuring cells changed since; the page says so")
        if files := [name for name in odd if name != "cells"]:
            said.append(f"{run}: older than {', '.join(files)}")
    return said + _other_parameters(chapter, runs.provenance[0], root)


def _other_parameters(chapter: str, facts: dict[str, Any], root: Path) -> list[str]:
    """Parameters that the profile of a run gives other values today."""
    profile, then = facts["profile"], facts["parameters"]
    try:
        now = contents.effective(chapter, profile, root)
    except BookError as error:
        return [f"its profile cannot be read: {error}"]
    names = [n for n in {**then, **now} if n not in FREE]
    return [
        f"{name} was {_value(then, name)}, "
        f"and is {_value(now, name)} in the {profile} profile"
        for name in names
        if name not in then or name not in now or then[name] != now[name]
    ]


def _value(values: dict[str, Any], name: str) -> str:
    return repr(values[name]) if name in values else "no parameter"


# --- commands ------------------------------------------------------------------------


def _store(options: argparse.Namespace) -> int:
    chapter = contents.find(options.chapter)
    if not contents.converted(chapter):
        path = old_way.publish(chapter, options.profile)
        size = path.stat().st_size / 1e6
        print(f"{path.relative_to(ROOT)}, {size:.2f} MB, and its .json: commit both.")
        return 0
    stored = store(chapter, options.profile, options.seeds)
    for path in stored:
        size = sum(path.with_suffix(s).stat().st_size for s in (".json", ".npz")) / 1e6
        print(f"{path.relative_to(ROOT)}, {size:.2f} MB with its .npz: commit both.")
    if (ROOT / "published" / f"{chapter}.ipynb").exists():
        print(f"published/{chapter}.ipynb and .json are no longer shown: remove both.")
    for line in check(chapter):
        print(f"Note: {line}")
    return 0


def _check() -> int:
    found = {
        name: check(name)
        if contents.converted(name)
        else [line for line in [old_way.staleness(name)] if line]
        for name in contents.chapters()
    }
    for chapter, lines in found.items():
        print(f"{chapter}: {'; '.join(lines) or 'up to date'}")
    return int(any(found.values()))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lib.site.publish", description=__doc__.splitlines()[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("store", help="copy results of runs to published/")
    command.add_argument("chapter", help="its name, or the start of it")
    command.add_argument("--profile", required=True)
    command.add_argument("--seeds", type=int, nargs="+", default=[0])
    commands.add_parser("check", help="say which published results are old, and why")
    options = parser.parse_args(arguments)
    try:
        return _store(options) if options.command == "store" else _check()
    except BookError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())

"""Results that the book shows: those in ``published/``, else those of a profile's runs.

Published results are committed: ``published/<chapter>/seed-0.json`` and the ``.npz``
beside it, a pair for each run.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lib import code
from lib.files import ROOT
from lib.report.results import Results, ResultsError
from lib.site.contents import (
    DEMO,
    BookError,
    chapters,
    converted,
    read_notebook,
    records,
)
from lib.site.old_way import metrics as metrics


def paths(chapter: str, root: Path = ROOT) -> list[Path]:
    """The published results of a chapter, in the order of their seeds."""
    return runs_in(root / "published" / chapter)


def measured(chapter: str, profile: str, root: Path = ROOT) -> list[Path]:
    """The results of a profile's own runs, in the order of their seeds."""
    return runs_in(root / "_build" / "results" / profile / chapter)


def runs_in(folder: Path) -> list[Path]:
    """The results in a folder, ``seed-<number>.json``, in the order of the numbers."""
    found = [
        p
        for p in folder.glob("seed-*.json")
        if p.stem.removeprefix("seed-").isdecimal()
    ]
    return sorted(found, key=_seed)


def _seed(path: Path) -> int:
    return int(path.stem.removeprefix("seed-"))


def seeds(found: Sequence[Path]) -> list[int]:
    """The seeds of runs, from the names of their files."""
    return list(map(_seed, found))


def shown(chapter: str, profile: str, root: Path = ROOT) -> list[Path]:
    """The results that a page is told on: published ones, or those of a profile.

    The default book shows published results whenever there are any. Raises
    :class:`BookError` where there are none.
    """
    found = paths(chapter, root) if profile == DEMO else []
    found = found or measured(chapter, profile, root)
    if not found:
        which = "" if profile == DEMO else f" PROFILE={profile}"
        nothing = "no published results and no demo run" if not which else "no run"
        raise BookError(
            f"{chapter} has {nothing} that could be shown: run `make book{which}`."
        )
    return found


def are_of_these_cells(found: Sequence[Path], today: Mapping[str, str]) -> bool:
    """Whether results come from measuring cells that mean what today's mean.

    Nothing else makes published results invalid: not prose, figures, lib or parameters.
    """
    return all(_cells(path) == today.get("cells") for path in found)


def _cells(path: Path) -> str | None:
    try:
        page = json.loads(path.read_text(encoding="utf-8"))
        return page["provenance"]["code"]["cells"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def are_valid(chapter: str, root: Path = ROOT) -> bool:
    """Whether a chapter's published results are of the measuring cells it has today."""
    today = code.of_chapter(chapter, code.read_from(root))
    return are_of_these_cells(paths(chapter, root), today)


# --- for pages of numbers ------------------------------------------------------------


def published_results(root: Path = ROOT) -> dict[str, Results]:
    """The published results of the converted chapters that have any, by chapter.

    Raises :class:`BookError` for damaged files.
    """
    found = {name: paths(name, root) for name in chapters(root)}
    return {
        name: read(files, name)
        for name, files in found.items()
        if files and converted(name, root)
    }


def told_claims(
    profile: str | None = None, root: Path = ROOT
) -> dict[str, list[dict[str, Any]]]:
    """The claims of reports with their verdicts, by chapter, as its page was told.

    Each has ``statement``, ``report``, ``outcome`` and ``evidence``. By default of the
    book that is being made. A chapter that was not told yet, or claims nothing, is left
    out.
    """
    profile = profile or os.environ.get("LWL_PROFILE", DEMO)
    found = {}
    for name in chapters(root):
        path = root / "_build" / "told" / profile / f"{name}.ipynb"
        if path.exists() and converted(name, root):
            found[name] = records(read_notebook(path)).get("claims", [])
    return {name: claims for name, claims in found.items() if claims}


def read(found: Sequence[Path], chapter: str) -> Results:
    """A chapter's runs as one. Raises :class:`BookError` where they are not that."""
    try:
        return Results.read(found, chapter)
    except ResultsError as error:
        raise BookError(str(error)) from error

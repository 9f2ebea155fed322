"""What Snakemake asks: which files a page needs, and digests of what it is made from.

Digests decide, not dates: a chapter is measured again if what it computes has changed
in meaning, and a page is told again if what it shows has changed.
"""

import hashlib
import json
import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from lib import code
from lib.files import ROOT
from lib.site import contents, old_way, published
from lib.site.contents import DEMO, BookError

CUSTOM = ".custom"
"""Ends the name of a profile's runs that got arguments of their own."""

UNKNOWN_MINUTES = {True: 20, False: 12 * 60}
"""What a run is given that nobody has measured: of the demo profile, of others."""
UNKNOWN_MEGABYTES = {True: 4_000, False: 8_000}

TELLING = (
    "lib/code.py",
    "lib/files.py",
    "lib/site/prose.py",
    "lib/site/provenance.py",
    "lib/site/tell.py",
)
"""What makes a told notebook, besides ``lib/report``."""


# --- where jobs run ------------------------------------------------------------------

SETTINGS = ("GIT_", "IPYTHON", "JUPYTER", "MATPLOTLIB", "MPL", "PYTHON")
"""How the names of settings of the user's begin that would reach a run."""


def settings(given: Mapping[str, str], root: Path = ROOT) -> dict[str, str]:
    """The environment of jobs: the project's settings in place of the user's.

    ``given`` is the user's own. No backend, profile, start-up file, kernel, library,
    repository or encoding of the user's changes what a chapter does.
    """
    own = root.absolute() / "_build" / "settings"
    kept = {k: v for k, v in given.items() if not k.startswith(SETTINGS)}
    return {
        **kept,
        "IPYTHONDIR": str(own / "ipython"),
        "JUPYTER_CONFIG_DIR": str(own / "jupyter"),
        "JUPYTER_DATA_DIR": str(own / "jupyter"),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "JUPYTER_RUNTIME_DIR": str(own / "runtime"),
        "MPLCONFIGDIR": str(root.absolute() / "_build" / "matplotlib"),
        "PYTHONNOUSERSITE": "1",
        "PYTHONPATH": str(root.absolute()),
        "PYTHONUTF8": "1",
    }


# --- what was asked for --------------------------------------------------------------


def profile(name: str, root: Path = ROOT) -> str:
    """The profile, if every chapter has it. Raises :class:`BookError` otherwise."""
    for chapter in contents.chapters(root):
        contents.parameters(chapter, name, root)
    return name


def seeds(text: int | str) -> list[str]:
    """Seeds such as "0 1 2". Raises :class:`BookError` for what are none."""
    found = str(text).split()
    if not found or not all(seed.isdecimal() and int(seed) < 2**32 for seed in found):
        raise BookError(
            f'SEEDS={text!r}: whole numbers are wanted, below 2³², such as "0 1 2".'
        )
    return list(dict.fromkeys(str(int(seed)) for seed in found))


def given(arguments: str) -> str:
    """papermill's arguments, each quoted, if they leave the seed alone.

    The seed names a file. Raises :class:`BookError` otherwise.
    """
    try:
        words = shlex.split(arguments)
    except ValueError as error:
        raise BookError(
            f"ARGS={arguments!r}: {error}. A quotation mark has no partner."
        ) from error
    if re.search(r"-\w+\s+['\"{\s]*seed\b", arguments):
        raise BookError("ARGS cannot set the seed of a run: say SEEDS=3, or so.")
    return shlex.join(words)


# --- measuring -----------------------------------------------------------------------


def code_of(chapter: str, root: Path = ROOT) -> str:
    """Stands for the code whose change runs a chapter again."""
    if not contents.converted(chapter, root):
        return json.dumps(old_way.digests(chapter, root))
    return json.dumps(code.of_chapter(chapter, code.read_from(root)))


def lock(root: Path = ROOT) -> str:
    """Stands for the versions of all packages; comments aside."""
    lines = (root / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.partition("#")[0].strip() for line in lines]
    return _short("\n".join(pin for pin in pins if pin).encode())


def arguments(
    chapter: str, run: str, seed: str = "", given: str = "", root: Path = ROOT
) -> str:
    """papermill's arguments for a run: its profile's, the seed, those given."""
    profile = run.removesuffix(CUSTOM)
    if contents.converted(chapter, root):
        values = contents.effective(chapter, profile, root)
        values.pop("seed", None)
    else:
        values = contents.parameters(chapter, profile, root)
    # As YAML, not as Python writes it: 1e-06 would come back as text.
    blocks = [
        yaml.safe_dump({name: value}, default_flow_style=True, width=10**9).strip()
        for name, value in values.items()
    ]
    parts = [f"-y {shlex.quote(block)}" for block in blocks]
    parts += [f"-p seed {seed}"] if seed else []
    return " ".join(parts + [given] * run.endswith(CUSTOM))


def target(
    chapter: str,
    profile: str,
    numbers: Iterable[int | str] = (0,),
    custom: bool = False,
    root: Path = ROOT,
) -> list[str]:
    """The files that a chapter's runs leave, for Snakemake to make, one a seed.

    Raises :class:`BookError` for an unknown profile and for seeds that are none.
    """
    contents.parameters(chapter, profile, root)
    each = seeds(" ".join(map(str, numbers)))
    run = profile + CUSTOM * custom
    if not contents.converted(chapter, root):
        return [f"_build/runs/{run}/{chapter}.ipynb"]
    return [f"_build/results/{run}/{chapter}/seed-{seed}.json" for seed in each]


# --- what a run costs ----------------------------------------------------------------


def minutes(chapter: str, run: str, root: Path = ROOT) -> int:
    """How long a cluster is asked to let a run go on: twice what the longest took."""
    seconds = [facts.get("seconds") for facts in _runs_like(chapter, run, root)]
    most = max((s for s in seconds if s), default=0)
    return 5 + math.ceil(2 * most / 60) if most else UNKNOWN_MINUTES[_is_demo(run)]


def megabytes(chapter: str, run: str, root: Path = ROOT) -> int:
    """How much memory a run is given on a cluster: half as much again as the most."""
    used = [facts.get("peak_memory_gb") for facts in _runs_like(chapter, run, root)]
    most = max((gigabytes for gigabytes in used if gigabytes), default=0)
    return math.ceil(1500 * most) if most else UNKNOWN_MEGABYTES[_is_demo(run)]


def _is_demo(run: str) -> bool:
    return run.removesuffix(CUSTOM) == DEMO


@cache
def _runs_like(chapter: str, run: str, root: Path) -> list[dict[str, Any]]:
    """Where results of a profile came from: those measured here, those published."""
    profile = run.removesuffix(CUSTOM)
    found = published.measured(chapter, profile, root) + published.paths(chapter, root)
    facts = []
    for path in found:
        try:
            facts.append(json.loads(path.read_text(encoding="utf-8"))["provenance"])
        except (OSError, ValueError, KeyError):  # told of where results are read
            continue
    return [run for run in facts if run.get("profile") == profile]


# --- telling -------------------------------------------------------------------------


def results(
    chapter: str,
    profile: str,
    seeds: Sequence[str],
    measuring: bool = True,
    root: Path = ROOT,
) -> list[str]:
    """The results that a chapter's page needs: published, measured, or to be measured.

    Where nothing may be measured, those that are there.
    """
    found = published.paths(chapter, root) if profile == DEMO else []
    own = []
    if not found or not published.are_valid(chapter, root):
        own = [_relative(p, root) for p in published.measured(chapter, profile, root)]
        own += target(chapter, profile, seeds, root=root) if measuring else []
    files = [_relative(path, root) for path in found]
    names = dict.fromkeys([*files, *own])
    return [n for name in names for n in (name, name.removesuffix(".json") + ".npz")]


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def told_from(name: str, root: Path = ROOT) -> str:
    """Stands for what a told notebook is made of besides results that can be measured.

    The notebook, published results, ``lib.report``, and the files of ``lib`` that its
    cells can show or import: those whose name stands in them.
    """
    notebook = contents.notebook(name, root)
    cells = [
        [cell.cell_type, cell.source, cell.metadata, cell.get("id", "")]
        for cell in notebook.cells
    ]
    words = set(re.findall(r"\w+", "\n".join(cell.source for cell in notebook.cells)))
    named = [path for path in (root / "lib").glob("*.py") if path.stem in words]
    report = [p for p in (root / "lib" / "report").glob("*") if p.is_file()]
    files = [*named, *report, *(root / name for name in TELLING)]
    # Their npz is named by a digest in each.
    files += published.paths(name, root)
    return _short(json.dumps([cells, _files(files, root)]).encode())


def numbers_from(name: str, root: Path = ROOT) -> str:
    """Stands for what a page of numbers is made of besides the told chapters."""
    stored = [
        p for p in (root / "published").glob("**/*") if p.suffix in (".json", ".csv")
    ]
    pages = [p for p in (root / "lib" / "site").glob("*.py") if p.is_file()]
    return _short(
        json.dumps([told_from(name, root), _files(stored + pages, root)]).encode()
    )


def book_from(root: Path = ROOT) -> str:
    """Stands for what the book is made of besides told and executed notebooks."""
    files = [root / "_toc.yml", root / "_config.yml"]
    for folder in ("book", "lib", "published"):
        files += [p for p in (root / folder).glob("**/*") if p.is_file()]
    hidden = [p for p in files if any(_is_hidden(part) for part in _parts(p, root))]
    return _short(json.dumps(_files(set(files) - set(hidden), root)).encode())


def _parts(path: Path, root: Path) -> tuple[str, ...]:
    return path.relative_to(root).parts


def _is_hidden(part: str) -> bool:
    return part.startswith(".") or part == "__pycache__"


def _files(paths: Iterable[Path], root: Path) -> list[list[str]]:
    names = {_relative(path, root): path for path in paths if path.is_file()}
    return [[name, _short(names[name].read_bytes())] for name in sorted(names)]


def _short(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]

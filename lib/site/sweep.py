"""Runs over a grid of parameters and seeds: ``python -m lib.site.sweep --help``.

A sweep is a chapter, a profile, values of some parameters, and seeds: a run for each
combination. All are checked before one runs. Snakemake runs what is missing, here or on
a cluster; a run that fails is a row that says why, and stops no other.
"""

import argparse
import hashlib
import itertools
import json
import logging
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import yaml

from lib.files import ROOT, atomic_write
from lib.report import parameters as declarations
from lib.report.parameters import ParameterError
from lib.report.results import ResultsError, frame
from lib.site import contents, engine
from lib.site.contents import BookError

if TYPE_CHECKING:
    import pandas

MOST = 1_000
"""Runs of a sweep that nobody has to confirm."""
COMES_ALONG = {"", "digits", "photo_digits"}
"""Data sets that need no preparing."""
DONE = "done"
TOLD = ("Exiting because a job execution failed", "At least one job did not complete")
"""What Snakemake says of runs that failed, before the table says which, and why."""


# --- what is to be run ---------------------------------------------------------------


@dataclass(frozen=True)
class Planned:
    """One run of a sweep: what is set, and where its files lie."""

    settings: Mapping[str, Any]
    seed: int
    folder: str

    @property
    def results(self) -> str:
        return f"{self.folder}/seed-{self.seed}.json"


@dataclass(frozen=True)
class Sweep:
    """A chapter at a profile, over a grid of parameters and over seeds."""

    name: str
    chapter: str
    profile: str
    grid: dict[str, list[Any]]
    seeds: list[int]
    root: Path = field(default=ROOT, compare=False)

    @property
    def folder(self) -> str:
        return f"_build/sweeps/{self.name}"

    def runs(self) -> list[Planned]:
        """All combinations, seeds innermost."""
        return [
            Planned(settings, seed, f"{self.folder}/{place}")
            for place, settings in self.settings.items()
            for seed in self.seeds
        ]

    @cached_property
    def settings(self) -> dict[str, dict[str, Any]]:
        """Combinations by the name of the folder in which their results lie."""
        return {called(settings): settings for settings in combinations(self.grid)}

    def arguments(self, place: str, seed: str) -> str:
        """papermill's arguments for a run: the profile's, with the combination's."""
        own = " ".join(
            f"-y {shlex.quote(_yaml(name, value))}"
            for name, value in self.settings[place].items()
        )
        run = self.profile + engine.CUSTOM
        return engine.arguments(self.chapter, run, seed, own, self.root)

    def data(self, place: str = "") -> dict[str, list[str]]:
        """The sets that must be there before a combination runs, or any of them.

        What to hand to ``lib.data.load``, by the file that says it is done.
        """
        found = {}
        base = contents.effective(self.chapter, self.profile, self.root)
        for settings in [self.settings[place]] if place else self.settings.values():
            values = base | settings
            names = [values.get("dataset", ""), *values.get("kinds", [])]
            for name in set(names) - COMES_ALONG:
                wanted = [name, values.get("data_root", "")]
                found[f"{self.folder}/data/{_digest(wanted)}.ready"] = wanted
        return found

    def save(self) -> None:
        """Write the plan where Snakemake, and nodes of a cluster, read it."""
        facts = asdict(self)
        del facts["root"]
        with atomic_write(self.root / self.folder / "sweep.json") as temporary:
            temporary.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def read(name: str, root: Path = ROOT) -> Sweep:
    """The sweep of this name, as it was planned last. BookError where none was."""
    path = root / "_build" / "sweeps" / name / "sweep.json"
    try:
        return Sweep(**json.loads(path.read_text(encoding="utf-8")), root=root)
    except FileNotFoundError:
        raise BookError(
            f"There is no sweep {name!r} yet: say which chapter, and what to set."
        ) from None
    except (ValueError, TypeError) as error:
        raise BookError(f"{path} is damaged ({error}): say the sweep anew.") from error


def grid(text: str) -> dict[str, list[Any]]:
    """Values by parameter, from ``sigma=0.1,0.3 hidden=[64],[64,32]``.

    Raises :class:`BookError` for what is none.
    """
    found: dict[str, list[Any]] = {}
    for part in _words(text):
        name, equals, values = part.partition("=")
        try:
            listed = yaml.safe_load(f"[{values}]")
        except yaml.YAMLError:
            listed = []
        if not name.isidentifier() or not equals or not listed:
            raise BookError(
                f"SET: {part!r} is no parameter with values: write name=1,2,3, "
                "with a space before the next name."
            )
        if name in found:
            raise BookError(f"SET: {name} is there twice: list its values once.")
        if name == "seed":
            raise BookError('SET cannot set the seed: say SEEDS="0 1 2", or so.')
        if len({repr(value) for value in listed}) < len(listed):
            raise BookError(f"SET: {name} has a value twice: {values}.")
        found[name] = listed
    if not found:
        raise BookError(
            'SET is empty, so there is no grid: say SET="sigma=0.1,0.3", or so. '
            "(For repeats of one setting, make chapter takes SEEDS.)"
        )
    return found


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise BookError(f"SET: {text!r} cannot be read: {error}.") from None


def combinations(grid: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """Every combination of the grid's values, the last parameter's innermost."""
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def check(sweep: Sweep, confirmed: bool = False) -> None:
    """Refuse a sweep that cannot run whole: :class:`BookError`, with all reasons.

    Parameters that the chapter does not declare, values out of their range, more runs
    than anyone starts by mistake. What depends on the data is refused by the run.
    """
    if not re.fullmatch(r"[\w.-]+", sweep.name) or sweep.name.startswith("."):
        raise BookError(
            f"NAME={sweep.name!r}: letters, digits, dots and dashes name a sweep."
        )
    if not contents.converted(sweep.chapter, sweep.root):
        raise BookError(
            f"{sweep.chapter} does not record results that a table could hold: "
            "none of its cells is tagged measure."
        )
    runs = len(sweep.seeds)
    for values in sweep.grid.values():
        runs *= len(values)
    if runs > MOST and not confirmed:
        raise BookError(
            f"These are {runs:,} runs, and more than {MOST:,} must be meant: "
            "say CONFIRM=yes."
        )
    declared = contents.declared(sweep.chapter, sweep.root)
    base = contents.effective(sweep.chapter, sweep.profile, sweep.root)
    problems: dict[str, None] = {}
    # Each parameter has a range of its own: a value that fails does so in any company.
    for name, values in sweep.grid.items():
        for value in values:
            try:
                declarations.check(declared, base | {name: value}, [name])
            except ParameterError as error:
                problems |= dict.fromkeys(str(error).splitlines()[1:])
    if problems:
        raise BookError("Nothing was run: SET needs mending:\n" + "\n".join(problems))


def called(settings: Mapping[str, Any]) -> str:
    """A combination as the name of a folder: ``sigma-0.1+latent_dim-2``.

    (Snakemake, on a node, reads commas and equal signs as its own.)
    """
    text = "+".join(f"{name}-{_plain(value)}" for name, value in settings.items())
    plain = re.sub(r"[^\w.+-]+", "_", text)
    if plain == text and len(text) <= 120:
        return text
    return f"{plain[:100]}+{_digest(dict(settings))}"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:8]


def _yaml(name: str, value: Any) -> str:
    """As YAML, in which 1e-06 would come back as text if Python wrote it."""
    return yaml.safe_dump({name: value}, default_flow_style=True, width=10**9).strip()


# --- what came of it -----------------------------------------------------------------


def table(sweep: Sweep) -> "pandas.DataFrame":
    """A row for each run: what was set, the seed, how it ended, and all it measured."""
    import pandas as pd

    rows = []
    for run in sweep.runs():
        settings = {name: _cell(value) for name, value in run.settings.items()}
        row = settings | {"seed": run.seed}
        try:
            (found,) = frame([sweep.root / run.results]).to_dict("records")
            rows.append({**row, "status": DONE, **found, **row})
        except ResultsError:
            rows.append(row | {"status": why(sweep, run)})
    return pd.DataFrame(rows).convert_dtypes()  # whole numbers, where runs are missing


def _cell(value: Any) -> Any:
    return str(value) if isinstance(value, list) else value


def why(sweep: Sweep, run: Planned) -> str:
    """Why a run has left no results, in one line."""
    log = sweep.root / log_of(run.folder, run.seed)
    try:
        if found := contents.failure(nbformat.read(log.with_suffix(".ipynb"), 4)):
            *_, cell, error = found.split("\n")[:2]
            return f"failed: {error}, in {cell}"
    except (OSError, ValueError):  # none, or cut off
        pass
    for path in sweep.data(Path(run.folder).name):
        if said := _last_line((sweep.root / path).with_suffix(".txt")):
            return f"failed: its data: {said}"
    said = _last_line(log.with_suffix(".txt"))
    return f"failed: {said}" if said else "not run"


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    written = [contents.plain(line).strip() for line in lines if line.strip()]
    return written[-1] if written else ""


def log_of(folder: str, seed: Any) -> str:
    """Where a run's notebook and output lie while it runs, and stay if it fails."""
    return f"_build/logs/{folder.removeprefix('_build/')}/seed-{seed}"


def figure(found: "pandas.DataFrame", sweep: Sweep, y: str = "", x: str = "") -> Path:
    """Draw a number over a parameter, mean ± deviation over seeds; gives the file.

    ``y`` is the first number that has a better side if none is named, ``x`` the first
    parameter with several values; others take colour, marker and panels. Raises
    :class:`BookError` for a number or parameter that is not there.
    """
    from lib.report import repeats

    about = numbers_of(found, sweep)
    judged = [name for name, number in about.items() if number.get("better")]
    y = y or [*judged, *about][0]
    if y not in about:
        raise BookError(f"Y={y!r} is no number of this chapter: {', '.join(about)}.")
    x = x or varied(sweep)[0]
    if x not in sweep.grid:
        raise BookError(
            f"X={x!r} is no parameter of this sweep: {', '.join(sweep.grid)}."
        )
    others = [name for name in varied(sweep) if name != x and len(sweep.grid[name]) > 1]
    if len(others) > 4:
        raise BookError(f"A figure shows five parameters; {len(others) + 1} vary here.")
    done = found[found["status"] == DONE]
    drawn = repeats.means(done, x, y, others, repeats.axis(y, **about[y]))
    path = sweep.root / sweep.folder / f"{y}.png"
    drawn.savefig(path)
    return path


def varied(sweep: Sweep) -> list[str]:
    """The parameters with several values; all of them where none has."""
    several = [name for name, values in sweep.grid.items() if len(values) > 1]
    return several or list(sweep.grid)


def numbers_of(found: "pandas.DataFrame", sweep: Sweep) -> dict[str, dict[str, Any]]:
    """What the runs measured: unit, form and better side by name of a number."""
    for run, status in zip(sweep.runs(), found["status"], strict=True):
        if status == DONE:
            page = json.loads((sweep.root / run.results).read_text(encoding="utf-8"))
            return page["numbers"]
    raise BookError("No run of this sweep has results yet: there is nothing to draw.")


# --- while it runs -------------------------------------------------------------------


class Count(logging.Handler):
    """Counts a sweep's runs from what Snakemake logs, and says where they are."""

    def __init__(self, total: int, rule: str = "sweep_run") -> None:
        super().__init__()
        self.rule, self.total, self.done = rule, total, 0
        self.running: set[int] = set()
        self.failed: set[int] = set()

    def emit(self, record: logging.LogRecord) -> None:
        event = getattr(record, "event", "")
        if event == "run_info":
            self.done = self.total - record.stats.get(self.rule, 0)
        elif event == "job_info" and record.rule_name == self.rule:
            self.failed.discard(record.jobid)  # it is tried again
            self.running.add(record.jobid)
        elif event == "job_error" and record.jobid in self.running:
            self.running.discard(record.jobid)
            self.failed.add(record.jobid)
        elif event == "job_finished" and record.job_id in self.running:
            self.running.discard(record.job_id)
            self.done += 1
        else:
            return
        print(self, file=sys.stderr, flush=True)

    def __str__(self) -> str:
        return (
            f"{self.done} of {self.total} runs done, "
            f"{len(self.running)} running, {len(self.failed)} failed"
        )


def watch(logger: logging.Logger, total: int) -> None:
    """Have Snakemake's logger say where a sweep is, and not what each job is about.

    (The Snakefile asks for it: Snakemake forgets handlers that were there before it.)
    """
    for handler in logger.handlers:
        handler.addFilter(_is_no_run)
    logger.addHandler(Count(total))


def _is_no_run(record: logging.LogRecord) -> bool:
    """Whether a message is a warning of Snakemake's own: a run has its row."""
    of_a_run = (
        getattr(record, "event", "") in ("job_error", "group_error")
        or getattr(record, "exception", "") == "RuleException"
        or any(text in record.getMessage() for text in TOLD)
    )
    return record.levelno >= logging.WARNING and not of_a_run


# --- commands ------------------------------------------------------------------------


def run(sweep: Sweep, on: str = "local", more: Sequence[str] = ()) -> None:
    """Have Snakemake run what is missing, ``on`` being a folder of ``profiles/``.

    In this process: whoever kills it kills the engine, with all that it runs.
    """
    from snakemake.cli import main as snakemake

    where = [
        "--profile",
        str(sweep.root / "profiles" / on),
        "--directory",
        str(sweep.root),
    ]
    config = ["--config", f"sweep={sweep.name}"]
    try:
        snakemake([*where, *config, *more, "--", "sweep"])
    except SystemExit:  # runs that failed are told of below
        return


def report(sweep: Sweep, y: str = "", x: str = "") -> int:
    """Write table and figure, say what came of the runs; 1 if some have no results."""
    found = table(sweep)
    path = sweep.root / sweep.folder / "results.csv"
    with atomic_write(path) as temporary:
        found.to_csv(temporary, index=False)
    bad = found[found["status"] != DONE]
    columns = [*varied(sweep), "seed", "status"]
    for line in itertools.islice(_lines(bad[columns]), 20):
        print(line)
    if len(bad) > 20:
        print(f"… and {len(bad) - 20} more, in the table.")
    print(f"{len(found) - len(bad)} of {len(found)} runs have results: {_shown(path)}")
    if len(bad) < len(found):
        print(f"Drawn: {_shown(figure(found, sweep, y, x))}")
    if len(bad):
        print("The same command again runs those that are missing.")
    return int(len(bad) > 0)


def _lines(rows: "pandas.DataFrame") -> Iterator[str]:
    for row in rows.to_dict("records"):
        status = row.pop("status")
        yield " ".join(f"{k}={v}" for k, v in row.items()) + f": {status}"


def _shown(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def _planned(options: argparse.Namespace) -> Sweep:
    """The sweep that is asked for: a new one, or by its name alone the one planned."""
    if not (options.chapter or options.set):
        return read(options.name)
    return Sweep(
        options.name,
        contents.find(options.chapter),
        engine.profile(options.profile),
        grid(options.set),
        list(dict.fromkeys(map(int, engine.seeds(options.seeds)))),
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lib.site.sweep",
        description=__doc__.splitlines()[0],
        epilog="What stands after -- goes to Snakemake: -- --cores 4",
    )
    parser.add_argument("name", help="names the folder in _build/sweeps")
    parser.add_argument("--chapter", default="", help="its name, or the start of it")
    parser.add_argument("--profile", default=contents.DEMO)
    parser.add_argument("--set", default="", help='"sigma=0.1,0.3 latent_dim=2,8"')
    parser.add_argument("--seeds", default="0", help='"0 1 2"')
    parser.add_argument("--y", default="", help="the number to draw")
    parser.add_argument("--x", default="", help="the parameter to draw it over")
    parser.add_argument("--on", default="local", help="a folder of profiles/: slurm")
    parser.add_argument(
        "--confirm", default="", help=f"yes, for more than {MOST:,} runs"
    )
    parser.add_argument("--report", action="store_true", help="run nothing")
    given = sys.argv[1:] if arguments is None else arguments
    cut = given.index("--") if "--" in given else len(given)
    options = parser.parse_args(given[:cut])
    try:
        sweep = _planned(options)
        check(sweep, options.confirm == "yes")
        sweep.save()
        if not options.report:
            run(sweep, options.on, given[cut + 1 :])
        return report(sweep, options.y, options.x)
    except BookError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())

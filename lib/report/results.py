"""What runs of a chapter measured: written once, read any time.

One run leaves two files, ``seed-0.json`` (numbers and where they came from) and
``seed-0.npz`` (arrays). Several runs that differ only in their seed are read as one:
numbers become means with a standard deviation, pictures are those of the first run.
"""

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lib.files import atomic_write
from lib.report.numbers import Number, verdict, write

if TYPE_CHECKING:
    import pandas

FORMAT = 1
FREE = {"seed", "device", "data_root"}
"""Parameters that are no part of what was measured."""
FACTS = (
    "chapter",
    "profile",
    "seconds",
    "peak_memory_gb",
    "device",
    "threads",
    "commit",
    "date",
)
"""What a table of runs says of each, besides parameters and numbers."""


class ResultsError(Exception):
    """Results cannot be read or written; the message names what, and the remedy."""


class MissingResult(ResultsError, KeyError):
    """A name was asked for that the runs did not measure."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass
class _RunResults:
    """What one run measured."""

    numbers: dict[str, dict[str, Any]] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    each_run: set[str] = field(default_factory=set)
    provenance: dict[str, Any] = field(default_factory=dict)


class Results:
    """The results of a chapter's runs, one or several.

    A measuring cell calls :meth:`record` and :meth:`keep`. Every other cell reads:
    ``results["fd_vae"]`` is a :class:`~lib.report.numbers.Number`,
    ``results.array("walk")`` an array of the first run.
    """

    def __init__(self, runs: Sequence[_RunResults] = ()) -> None:
        self._runs = list(runs) or [_RunResults()]

    # --- measuring -------------------------------------------------------------------

    def record(
        self,
        name: str,
        value: float,
        unit: str = "",
        form: str = "",
        better: str = "",
        report: float | None = None,
        image_error: float | None = None,
    ) -> None:
        """Keep a number of this run.

        ``unit`` such as "nats" or "dB"; ``form`` "", "%" (a fraction) or "count";
        ``better`` "low", "high" or ""; ``report``, what a report gave for the same;
        ``image_error``, a standard error over test images. Raises ValueError for a
        value that is not finite.
        """
        entry = _entry(name, value, unit, form, better, report, image_error)
        self._measuring().numbers[name] = entry

    def keep(self, name: str, array: Any, each_run: bool = False) -> None:
        """Keep an array of this run: curves, codes, images (as uint8, which is small).

        Published are the arrays of the first run; with ``each_run``, of all runs. Takes
        NumPy arrays and torch tensors. Raises ValueError for entries that are not
        finite.
        """
        array = np.asarray(array.detach().cpu() if hasattr(array, "detach") else array)
        if array.dtype == object:
            raise ValueError(f"{name}: an array of numbers is wanted.")
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        if array.dtype.kind in "fc" and not np.isfinite(array).all():
            raise ValueError(
                f"{name}: a result must be finite. What made it otherwise?"
            )
        # Where a cell is run again in JupyterLab, its newer finding counts.
        run = self._measuring()
        run.arrays[name] = array
        (run.each_run.add if each_run else run.each_run.discard)(name)

    def _measuring(self) -> _RunResults:
        if len(self._runs) > 1:
            raise ValueError("Results of several runs are read, not added to.")
        return self._runs[0]

    # --- telling ---------------------------------------------------------------------

    @property
    def runs(self) -> int:
        """How many runs these are."""
        return len(self._runs)

    @property
    def provenance(self) -> list[dict[str, Any]]:
        """Where the numbers came from, a run each."""
        return [run.provenance for run in self._runs]

    def __contains__(self, name: str) -> bool:
        return name in self._runs[0].numbers

    def __iter__(self) -> Any:
        return iter(self._runs[0].numbers)

    def __getitem__(self, name: str) -> Number:
        found = [_get(run.numbers, name, "number") for run in self._runs]
        values = tuple(entry["value"] for entry in found)
        about = {key: value for key, value in found[0].items() if key != "value"}
        return Number(values, **about)

    def verdict(
        self,
        first: str,
        second: str,
        better: str = "better",
        worse: str = "worse",
        which: str = "",
    ) -> str:
        """In words, whether one number is better than another, by the book's rule.

        ``which`` is "low" or "high", by default what the first number says is better.
        """
        return verdict(self[first], self[second], which).told(better, worse)

    def rows(self, names: Mapping[str, str], *patterns: str) -> list[list[Any]]:
        """Rows for a table: a text and, for its key, a number from each pattern.

        ``rows({"PCA": "pca"}, "mse_{}")`` gives ``[["PCA", results["mse_pca"]]]``. A
        number that only some rows have leaves the others' cells empty.
        """
        for pattern in patterns:
            if not any(pattern.format(key) in self for key in names.values()):
                self[pattern.format(next(iter(names.values())))]  # says what is missing
        return [
            [text, *(self._cell(pattern.format(key)) for pattern in patterns)]
            for text, key in names.items()
        ]

    def _cell(self, name: str) -> Number | str:
        if name not in self:
            return ""
        return self[name]

    def array(self, name: str) -> np.ndarray:
        """An array of the first run."""
        return _get(self._runs[0].arrays, name, "array")

    def arrays(self, name: str) -> list[np.ndarray]:
        """An array of every run; it was kept with ``each_run``."""
        return [_get(run.arrays, name, "array of every run") for run in self._runs]

    # --- files -----------------------------------------------------------------------

    def save(self, path: Path, provenance: Mapping[str, Any]) -> None:
        """Write ``path`` (.json), with more provenance, and the .npz beside it.

        The arrays are written first, and the numbers hold their digest: a reader sees
        both files of one run or an error, never a mixture.
        """
        (run,) = self._runs
        run.provenance |= provenance
        _write(path, run)

    @classmethod
    def read(cls, paths: Sequence[Path], chapter: str = "") -> "Results":
        """The runs of these .json files as one, in this order.

        Raises :class:`ResultsError` for files that are missing or damaged, for runs
        that are not repeats of each other, and, if ``chapter`` names one, for runs of
        another.
        """
        if not paths:
            raise ResultsError("No results were given to read.")
        runs = [_read(Path(path)) for path in paths]
        first = runs[0]
        whose = first.provenance.get("chapter")
        if chapter and whose != chapter:
            raise ResultsError(
                f"{paths[0]} holds results of {whose}, not of {chapter}."
            )
        seeds = [_parameters(run.provenance).get("seed") for run in runs]
        for path, run, seed in zip(paths, runs, seeds, strict=True):
            if odd := first.numbers.keys() ^ run.numbers.keys():
                raise ResultsError(
                    f"{path} and {paths[0]} did not measure the same: only one has "
                    f"{', '.join(sorted(odd))}. Run both with the same code."
                )
            if odd := _unlike(first.provenance, run.provenance):
                raise ResultsError(
                    f"{path} and {paths[0]} are no repeats of each other: they differ "
                    f"in {', '.join(odd)}. Only the seed may differ: run all of them "
                    "with the same code and parameters."
                )
            if seed is not None and seeds.count(seed) > 1:
                raise ResultsError(
                    f"{path} is not the only file with seed {seed}, and a run counts "
                    "once: remove the copies."
                )
        return cls(runs)


def frame(paths: Sequence[Path | str]) -> "pandas.DataFrame":
    """Runs as a table, a row each: parameters, every number, where it was measured.

    Unlike :meth:`Results.read`, it takes runs with different parameters. A list is
    written as text; a number that has a parameter's name is called ``number_name``.
    Raises :class:`ResultsError` for files that are missing or damaged.
    """
    import pandas as pd  # takes a second, and few need it

    return pd.DataFrame([_row(_read(Path(path))) for path in paths])


def _row(run: _RunResults) -> dict[str, Any]:
    facts = run.provenance
    row = {
        name: str(value) if isinstance(value, list) else value
        for name, value in _parameters(facts).items()
    }
    for name, entry in run.numbers.items():
        row[f"number_{name}" if name in row else name] = entry["value"]
    return row | {name: facts.get(name) for name in FACTS if name not in row}


def copy_for_publishing(source: Path, target: Path, first: bool) -> None:
    """Write a run's files anew at ``target``.

    All arrays of the first run, of later ones those kept with ``each_run``.
    """
    run = _read(source)
    arrays = {
        name: a for name, a in run.arrays.items() if first or name in run.each_run
    }
    _write(target, replace(run, arrays=arrays))


def _entry(
    name: str,
    value: float,
    unit: str = "",
    form: str = "",
    better: str = "",
    report: float | None = None,
    image_error: float | None = None,
) -> dict[str, Any]:
    """What is kept of a number, without what is not said. ValueError for no result."""
    entry: dict[str, Any] = {"value": float(value)}
    entry |= {"unit": unit, "form": form, "better": better}
    entry |= {
        key: figure if figure is None else float(figure)
        for key, figure in {"report": report, "image_error": image_error}.items()
    }
    for key, figure in entry.items():
        if isinstance(figure, float) and not math.isfinite(figure):
            which = name if key == "value" else f"{name}, {key}"
            raise ValueError(
                f"{which} = {figure}: a result must be finite. What made it so?"
            )
    if better not in ("", "low", "high"):
        raise ValueError(f'{name}: better={better!r}; say "low", "high" or "".')
    write(entry["value"], form=form)  # refuses an unknown form
    return {key: said for key, said in entry.items() if said not in ("", None)}


def _get(found: Mapping[str, Any], name: str, kind: str) -> Any:
    if name in found:
        return found[name]
    close = get_close_matches(name, found, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise MissingResult(f"The runs hold no {kind} called {name!r}.{hint}")


def _parameters(facts: Mapping[str, Any]) -> dict[str, Any]:
    return facts.get("parameters", {})


def _unlike(first: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What makes two runs no repeats of each other: chapter, parameters or code."""
    found = []
    for facts in (first, other):
        code = dict(facts.get("code", {}))
        code["measuring cells"] = code.pop("cells", None)
        found.append({"chapter": facts.get("chapter"), **_parameters(facts), **code})
    ours, theirs = found
    return [
        name
        for name in sorted(ours.keys() | theirs.keys())
        if name not in FREE and ours.get(name) != theirs.get(name)
    ]


def _write(path: Path, run: _RunResults) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **run.arrays)
    arrays = buffer.getvalue()
    page = {
        "format": FORMAT,
        "numbers": run.numbers,
        "arrays": {
            "sha256": hashlib.sha256(arrays).hexdigest(),
            "names": sorted(run.arrays),
            "each_run": sorted(run.each_run),
        },
        "provenance": run.provenance,
    }
    with atomic_write(path.with_suffix(".npz")) as temporary:
        temporary.write_bytes(arrays)
    with atomic_write(path) as temporary:
        text = json.dumps(page, indent=1, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def _read(path: Path) -> _RunResults:
    try:
        page = json.loads(path.read_text(encoding="utf-8"))
        stored = path.with_suffix(".npz").read_bytes()
    except FileNotFoundError as error:
        if not path.exists():
            raise ResultsError(f"There are no results at {path}.") from error
        raise ResultsError(
            f"{path.with_suffix('.npz')} is missing beside {path.name}: make both "
            "again or restore it."
        ) from error
    except (OSError, ValueError) as error:
        raise ResultsError(
            f"{path} is damaged ({error}): make it again or restore it."
        ) from error
    if not isinstance(page, dict) or page.get("format") != FORMAT:
        raise ResultsError(
            f"{path} is no results file of format {FORMAT}: make it again."
        )
    try:
        about = page["arrays"]
        if hashlib.sha256(stored).hexdigest() != about["sha256"]:
            raise ResultsError(
                f"{path.with_suffix('.npz')} is not the file that {path.name} was "
                "written with: make both again or restore both."
            )
        with np.load(io.BytesIO(stored), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        numbers = {n: _entry(n, **entry) for n, entry in page["numbers"].items()}
        facts = page["provenance"]
        for part in (facts, facts.get("parameters", {}), facts.get("code", {})):
            if not isinstance(part, dict):
                raise TypeError("where it came from is not said by name")
        return _RunResults(numbers, arrays, set(about["each_run"]), facts)
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        zipfile.BadZipFile,
    ) as error:
        raise ResultsError(
            f"{path} is damaged ({error!r}): make it again or restore it."
        ) from error

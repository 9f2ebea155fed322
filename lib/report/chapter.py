"""What a chapter does around its mathematics: check, measure, show and tell.

A chapter opens with :func:`start`. Run from the top, its measuring cells record what
they find in ``run.results``, and the last of them calls :meth:`Run.finish`, which
writes them. When the book is built, :func:`start` gives the results of published runs
instead, and only the telling cells are executed.
"""

import hashlib
import inspect
import json
import os
import platform
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from IPython.display import Markdown, display

from lib import code, commits
from lib.files import ROOT, refuse_unwritable, work
from lib.report import parameters as declared_parameters
from lib.report.numbers import NBSP, Number, claim, write
from lib.report.parameters import ParameterError
from lib.report.results import Results

TELL = "LWL_TELL"
"""The environment variable that names the results to tell, separated by os.pathsep."""

RECORD = "application/papermill.record/"
"""The prefix under which MyST-NB finds what an executed notebook hands on."""

VERSIONS = ("torch", "torchvision", "numpy", "scikit-learn", "scipy", "torchmetrics")


# --- a run ---------------------------------------------------------------------------

TITLES = {"folder:cifar10_png": "CIFAR-10 (PNG files)"}
"""What a folder's data set is, where its name does not say it to a reader."""


class Run:
    """One execution of a chapter: its parameters, device, checkpoints and results."""

    def __init__(self, name: str, parameters: dict[str, Any], results: Results) -> None:
        self.name, self.parameters, self.results = name, parameters, results
        self.resumed_seconds = 0.0
        """What trainings took over from checkpoints; a chapter adds it up."""
        self.declared: dict[str, declared_parameters.Parameter] = {}
        self._start = time.perf_counter()
        # Now, not when the run ends: what is edited meanwhile did not run.
        self._code = code.of_chapter(name)
        self._commit = _commit(name, self._code)

    @property
    def device(self) -> Any:
        """The torch device that the parameter ``device`` asks for."""
        import torch

        wanted = self.parameters.get("device", "auto")
        if wanted == "cuda" and not torch.cuda.is_available():
            raise ParameterError(
                "device = 'cuda', but torch sees no GPU here: use 'auto' or 'cpu'."
            )
        if wanted == "auto":
            wanted = "cuda" if torch.cuda.is_available() else "cpu"
        return torch.device(wanted)

    def at_most(self, **limits: tuple[float, str]) -> None:
        """Refuse parameters beyond what the data allow, all at once, by name.

        Each limit is (the largest value, what it is): ``batch_size=(n, "the images")``.
        """
        declared_parameters.refuse(
            [
                f"{name} = {self.parameters[name]}: at most {limit:,}, {what}."
                for name, (limit, what) in limits.items()
                if self.parameters[name] > limit
            ]
        )

    def checkpoint(self, label: str) -> Path:
        """Where a training keeps its state: a folder for each parameters and code."""
        import torch

        parts = (
            sorted(self.parameters.items()),
            torch.__version__,
            sorted(self._code.items()),
        )
        key = hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
        root = Path(os.environ.get("LWL_CHECKPOINTS") or work(ROOT) / "checkpoints")
        return root / self.name / key / label

    def use(self, data: Any) -> None:
        """Say which data this run measures on, a :class:`lib.data.ImageData`.

        Refuses parameters that these data do not allow, by what their types say.
        """
        self.results.provenance[0]["data"] = {
            "name": data.name,
            "title": TITLES.get(data.name, data.title),
            "classes": list(data.classes),
            "shape": list(data.shape),
            "training_images": len(data.train),
            "test_images": len(data.test),
            "sha256": data.digest(),
        }
        declared_parameters.check_data(self.declared, self.parameters, self.data)

    @property
    def data(self) -> dict[str, Any]:
        """The facts of :meth:`use`, in a run and when it is told."""
        return self.results.provenance[0]["data"]

    def finish(self) -> None:
        """Write this run's results and where they came from; say where they are."""
        import torch

        on_gpu = self.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated() if on_gpu else peak_resident_bytes()
        seconds = time.perf_counter() - self._start + self.resumed_seconds
        path = self._path()
        self.results.save(
            path,
            {
                "chapter": self.name,
                "profile": os.environ.get("LWL_PROFILE", "own"),
                "parameters": self.parameters,
                "date": datetime.now(UTC).strftime("%Y-%m-%d"),
                "commit": self._commit,
                "code": self._code,
                "device": torch.cuda.get_device_name() if on_gpu else processor(),
                "threads": None if on_gpu else torch.get_num_threads(),
                "system": f"{platform.system()} {platform.machine()}",
                "python": platform.python_version(),
                "versions": {name: metadata.version(name) for name in VERSIONS},
                "seconds": round(seconds, 1),
                "resumed_seconds": round(self.resumed_seconds, 1),
                "peak_memory_gb": peak and round(peak / 1e9, 2),
            },
        )
        shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
        beside = path.with_suffix(".npz").name
        say(f"Results of this run: `{shown}`, and `{beside}` beside it.")

    def _path(self) -> Path:
        if target := os.environ.get("LWL_RESULTS"):
            return Path(target)
        settings = {k: v for k, v in self.parameters.items() if k != "seed"}
        key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[
            :8
        ]
        seed = self.parameters.get("seed", 0)
        return work(ROOT) / "results" / "own" / self.name / key / f"seed-{seed}.json"


def start(name: str, namespace: dict[str, Any]) -> Run:
    """Begin a chapter: check its parameters, or take up results that are to be told.

    ``name`` is the notebook's, ``namespace`` its ``globals()``. The parameters are
    those that the parameters cell declares. Raises
    :class:`~lib.report.parameters.ParameterError` with all that is wrong with them.
    """
    history = namespace.get("In", [])
    cells = [source for source in history if declared_parameters.is_declaration(source)]
    if not cells:
        raise ParameterError(
            "Run the parameters cell, the first of the notebook, before this one."
        )
    declared = declared_parameters.declared(cells[-1])
    values = {key: namespace[key] for key in declared}
    given = declared_parameters.injected(history)
    if told := os.environ.get(TELL):
        paths = [Path(path) for path in told.split(os.pathsep)]
        results = Results.read(paths, chapter=name)
        # What the runs used; a parameter that is younger than they are has its default.
        values |= {
            k: v
            for k, v in results.provenance[0].get("parameters", {}).items()
            if k in values
        }
    else:
        results = Results()
        values = declared_parameters.check(declared, values, given)
    namespace.update(values)
    run = Run(name, values, results)
    run.declared = declared
    if not told:
        refuse_unwritable(run._path())  # now, not after an hour of training
    return run


# --- telling -------------------------------------------------------------------------


def show_code(*names: str) -> None:
    """Show the very code that runs: pieces of the library, "vae.gaussian_kl"."""
    for name in names:
        display(Markdown(f"```python\n{code.source_of(name)}\n```"))


def say(text: str, **values: Any) -> None:
    """Show a sentence, with ``{names}`` replaced by values, such as a run's numbers.

    A number is written with its unit, ``{name.text}`` with ± its deviation. Text is
    text, without HTML.
    """
    shown = {k: _text(v) if isinstance(v, str) else v for k, v in values.items()}
    display(Markdown(inspect.cleandoc(text.format(**shown) if values else text)))


def table(
    head: Sequence[str], rows: Sequence[Sequence[Any]], text_columns: int = 1
) -> None:
    """Show a table: ``text_columns`` columns to the left, then others to the right.

    Numbers are written with their deviation; a line below says what ± is. A verdict is
    a word, and stands in a text column.
    """
    lines = ["| " + " | ".join(map(_cell, row)) + " |" for row in (head, *rows)]
    lines.insert(1, "|" + ":--|" * text_columns + "--:|" * (len(head) - text_columns))
    numbers = [cell for row in rows for cell in row if isinstance(cell, Number)]
    runs = {number.runs for number in numbers if "±" in number.text}
    if runs:
        lines += ["", f"± is the standard deviation over {max(runs)} runs."]
    display(Markdown("\n".join(lines)))


def _cell(value: Any) -> str:
    if isinstance(value, Number):
        return value.text
    if isinstance(value, float):
        return write(value)
    # A bar ends a cell, even in code.
    return re.sub(r"(?<!\\)\|", r"\\|", _text(str(value)))


def _text(value: str) -> str:
    """Text on a line of its own Markdown, in which no HTML begins."""
    return re.sub(r"<(?=[a-zA-Z/!?])", "&lt;", value)


@dataclass(frozen=True)
class Claim:
    """A statement of a report, what became of it, and the numbers that decide.

    ``outcome`` is "holds", "fails" or "cannot be told"; ``report`` says whose it is.
    """

    statement: str
    report: str
    outcome: str
    evidence: str


def compared(results: Results, lines: str) -> list[Claim]:
    """Claims that one recorded number is below or above another, one a line.

    A line is ``report | statement | first < second`` with the numbers' names. Raises
    ValueError for a line that is not.
    """
    return [_compared(results, line) for line in lines.strip().splitlines()]


def _compared(results: Results, line: str) -> Claim:
    try:
        report, statement, relation = (part.strip() for part in line.split(" | "))
        first, sign, second = relation.split()
    except ValueError:
        raise ValueError(
            f"{line!r} is not: report | statement | first < second"
        ) from None
    ours, other = results[first], results[second]
    unit = f"{NBSP}{ours.unit}" if ours.unit else ""
    evidence = f"{ours.text} against {other.text}{unit}"
    return Claim(statement, report, claim(ours, sign, other), evidence)


def claims(*found: Claim, told: Sequence[Claim] = ()) -> None:
    """Show statements of reports with verdicts, and hand them to the results page.

    Those that the page has ``told`` already are handed on, too.
    """
    rows = [(c.statement, c.report, f"**{c.outcome}**", c.evidence) for c in found]
    head = ["statement", "report", "verdict", "measured here"]
    table(head, rows, text_columns=4)
    hand_on("claims", [asdict(c) for c in (*found, *told)])


def power(number: float) -> str:
    """A number such as a learning rate as mathematics: a power of ten if it is one."""
    digits, _, exponent = f"{number:.2e}".partition("e")
    digits, ten = f"{float(digits):g}", f"10^{{{int(exponent)}}}"
    if number >= (1e-3 if digits == "1" else 1e-4):
        return f"${number:g}$"
    return f"${ten}$" if digits == "1" else rf"${digits} \times {ten}$"


def hand_on(name: str, value: Any) -> None:
    """An output that shows nothing and that other pages can read."""
    about = {"scrapbook": {"name": name, "mime_prefix": RECORD}, "record": value}
    display({RECORD + "text/plain": ""}, metadata=about, raw=True)


def plain(text: str) -> str:
    """Text that is data, such as a class name, so that a page shows it as it is."""
    special = set("\\`*_{}[]()<>#+-.!|$&~^")
    return "".join("\\" + letter if letter in special else letter for letter in text)


# --- where a run came from -----------------------------------------------------------


def _commit(name: str, digests: Mapping[str, str]) -> str:
    """The commit of the code that runs; "with changes" if it means something else.

    What is edited without changing what is measured is no change. "unknown" outside a
    checkout of this project.
    """
    head = commits.head(ROOT)
    if head is None:
        return "unknown"
    committed = code.of_chapter(name, commits.reads(head, ROOT))
    changed = code.changes(committed, dict(digests))
    return head + (" with changes" if changed else "")


def processor() -> str:
    """The processor's name, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [
            line.partition(":")[2].strip()
            for line in lines
            if line.startswith("model name")
        ]
    except OSError:
        names = []
    return (names or [platform.processor() or platform.machine()])[0]


def peak_resident_bytes() -> float | None:
    """The most memory this process has held; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)

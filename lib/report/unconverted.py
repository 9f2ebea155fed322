"""What chapters 2 to 6 do around their mathematics until they measure and tell apart; see `chapter` for how.

Recorded numbers are outputs of the executed notebook and nothing else: the page takes them from there,
and so does ``python -m lib.site.book metrics``.
"""

import ast
import difflib
import hashlib
import inspect
import json
import math
import os
import platform
import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from IPython.display import Markdown, display

from lib import commits
from lib.checkpoint import Checkpoint
from lib.data import ImageData
from lib.files import ROOT, strip_docs, work
from lib.report.chapter import peak_resident_bytes

RECORD = "application/papermill.record/"
"""The prefix under which MyST-NB finds glued outputs."""


class ParameterError(ValueError):
    """Parameters of a chapter that cannot be meant; the message names each one and the remedy."""


# --- checking parameters ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """What a parameter's value must satisfy, and how to say so."""

    wanted: str
    holds: Callable[[Any], bool]


def at_least(low: float) -> Rule:
    """A finite number of at least ``low``."""
    return Rule(f"at least {low} and finite", lambda v: low <= v < math.inf)


def above(low: float, up_to: float = math.inf) -> Rule:
    """A finite number above ``low`` and at most ``up_to``."""
    return Rule(
        f"above {low}" + (f", at most {up_to}" if up_to < math.inf else " and finite"),
        lambda v: low < v <= up_to and v < math.inf,
    )


def between(low: float, high: float) -> Rule:
    """A number from ``low`` to ``high``, both included."""
    return Rule(f"from {low} to {high}", lambda value: low <= value <= high)


def one_of(*values: Any) -> Rule:
    """One of these values."""
    return Rule("one of " + ", ".join(map(repr, values)), lambda value: value in values)


def each(rule: Rule) -> Rule:
    """A list that is not empty and whose values all keep a rule."""
    return Rule(
        f"a list of values {rule.wanted}",
        lambda values: len(values) > 0 and all(map(rule.holds, values)),
    )


def check_parameters(
    namespace: Mapping[str, Any], rules: Mapping[str, Rule]
) -> dict[str, Any]:
    """The chapter's parameters by name, or a :class:`ParameterError` that lists everything wrong with them.

    The parameters cell annotates its names, so the namespace's annotations are the parameters and their
    types. papermill puts what it was given into a cell of its own that begins with "# Parameters";
    a name assigned there and not annotated is a typing error. A whole number is taken for a float.
    """
    types: dict[str, Any] = namespace.get("__annotations__", {})
    problems = [
        _unknown(name, types) for name in _injected(namespace) if name not in types
    ]
    values = {}
    for name, kind in types.items():
        value = namespace[name]
        if kind is float and type(value) is int:
            value = float(value)
        elif kind == list[float] and type(value) is list:
            value = [float(entry) if type(entry) is int else entry for entry in value]
        values[name] = value
        if problem := _mistyped(name, value, kind):
            problems.append(problem)
        elif name in rules and not rules[name].holds(value):
            problems.append(f"{name} = {value!r}: it must be {rules[name].wanted}.")
        elif name not in rules and kind in (int, float):
            problems.append(
                f"{name}: the chapter states no range for it; add one to the rules of `chapter.start`."
            )
    problems += [
        f"{name}: there is a rule for it but no such parameter."
        for name in rules.keys() - types.keys()
    ]
    if problems:
        raise ParameterError(_listed(problems))
    return values


def _listed(problems: Sequence[str]) -> str:
    return "these parameters need mending:\n" + "\n".join(f"  - {p}" for p in problems)


def _injected(namespace: Mapping[str, Any]) -> list[str]:
    """Names assigned in the last executed cell that papermill wrote; none in JupyterLab."""
    cells = [
        source
        for source in namespace.get("In", [])
        if source.lstrip().startswith("# Parameters")
    ]
    if not cells:
        return []
    return [
        target.id
        for statement in ast.parse(cells[-1]).body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    ]


def _unknown(name: str, types: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, types, n=1)
    return f"{name}: unknown. " + (
        f"Did you mean {close[0]}?" if close else f"Known: {', '.join(types)}."
    )


def _mistyped(name: str, value: Any, kind: Any) -> str | None:
    item = kind.__args__[0] if getattr(kind, "__origin__", None) is list else None
    if item is not None:
        if type(value) is list and all(type(entry) is item for entry in value):
            return None
        example = {float: "[0.1, 0.2]", int: "[64, 32]"}.get(item, "[a, b]")
        return (
            f"{name} = {value!r}: a list of {item.__name__} is wanted. With papermill, "
            f"write -y '{name}: {example}' (its -p takes no lists)."
        )
    if type(value) is kind:
        return None
    advice = {
        bool: "write True or False (in YAML true or false, without quotes)",
        int: "write a whole number without quotes",
        float: "write it with a dot and without quotes (YAML takes 1e-4 for text: write 1.0e-4)",
        str: "write it as text, in YAML with quotes",
    }
    return f"{name} = {value!r} is {type(value).__name__}, {kind.__name__} is wanted: {advice[kind]}."


def contradictions(name: str, p: Mapping[str, Any]) -> list[str]:
    """What of a chapter's parameters ``p`` would only fail after training.

    When a chapter is converted, these become limits of its types and its own checks.
    """
    checks: dict[str, list[tuple[str, Callable[[], bool], str]]] = {
        "04_wgan_gp": [
            ("steps", lambda: p["steps"] < 2, "it must be at least 2, for a curve"),
            ("inception_weights", lambda: p["inception_weights"] != "" and not Path(p["inception_weights"]).is_file(),
             "there is no such file. Leave it empty, or say where torchvision's weights are"),
        ],
        "06_unmixing": [
            ("kinds", lambda: len(set(p["kinds"])) < len(p["kinds"]),
             "two different sets are wanted: an image would be paired with itself"),
        ],
    }  # fmt: skip
    return [
        f"{key} = {p[key]!r}: {wanted}."
        for key, is_so, wanted in checks.get(name, [])
        if key in p and is_so()
    ]


# --- a run -----------------------------------------------------------------------------------------


class Run:
    """One execution of a chapter: its parameters, its device, its checkpoints and what it recorded."""

    def __init__(
        self, name: str, parameters: dict[str, Any], device: torch.device
    ) -> None:
        self.name, self.parameters, self.device = name, parameters, device
        self._start = time.perf_counter()
        self._checkpoints: list[Checkpoint] = []

    def checkpoint(self, label: str) -> Checkpoint:
        """Where a training of this run keeps its state: other parameters or other code, another folder."""
        key = hashlib.sha256(
            repr((sorted(self.parameters.items()), torch.__version__, _code())).encode()
        )
        root = Path(os.environ.get("LWL_CHECKPOINTS") or work(ROOT) / "checkpoints")
        self._checkpoints.append(
            Checkpoint(root / self.name / key.hexdigest()[:12] / label)
        )
        return self._checkpoints[-1]

    def record(
        self,
        name: str,
        value: float,
        form: str = ".3g",
        unit: str = "",
        error: float | None = None,
    ) -> None:
        """Glue a number to the page under ``name``, with ± its error if it has one.

        Raises ValueError for numbers that are not finite.
        """
        if not all(map(math.isfinite, (value, 0 if error is None else error))):
            raise ValueError(
                f"{name} = {value} ± {error}: a result must be finite. What made it so?"
            )
        text = plus_minus(value, error, form)
        _glue(name, text, {"value": value, "error": error, "unit": unit, "text": text})

    def finish(self, data: ImageData) -> None:
        """Record where the numbers of this run came from: data, code, machine, duration, memory."""
        on_gpu = self.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated() if on_gpu else peak_resident_bytes()
        facts = {
            "data": data.title,
            "images": f"{len(data.train):,} for training, {len(data.test):,} for testing",
            "data_sha256": data.digest(),
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            "commit": _commit(),
            "device": torch.cuda.get_device_name()
            if on_gpu
            else f"CPU, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}",
            "python": platform.python_version(),
            "torch": torch.__version__,
            "seconds": round(time.perf_counter() - self._start, 1),
            "resumed_seconds": round(
                sum(part.resumed_seconds for part in self._checkpoints), 1
            ),
            "peak_memory_gb": peak and round(peak / 1e9, 2),
            "parameters": self.parameters,
        }
        _glue("provenance", json.dumps(facts), facts)


def start(name: str, namespace: dict[str, Any], rules: Mapping[str, Rule]) -> Run:
    """Check a chapter's parameters before anything trains, choose the device, and begin its :class:`Run`.

    Parameters that the chapters share have their rules here: ``device`` is "auto", "cpu" or "cuda".
    """
    shared = {"device": one_of("auto", "cpu", "cuda"), "seed": between(0, 2**32 - 1)}
    known = namespace.get("__annotations__", {})
    rules = {**{key: rule for key, rule in shared.items() if key in known}, **rules}
    parameters = check_parameters(namespace, rules)
    if problems := contradictions(name, parameters):
        raise ParameterError(_listed(problems))
    namespace.update(parameters)
    device = parameters.get("device", "auto")
    if device == "cuda" and not torch.cuda.is_available():
        raise ParameterError(
            "device = 'cuda', but torch sees no GPU here: use device = 'auto' or 'cpu'."
        )
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision("high")
    return Run(name, parameters, torch.device(device))


def plus_minus(value: float, error: float | None, form: str) -> str:
    """A number as text, with ± its error if it has one."""
    return format(value, form) + (
        f" ± {format(error, form)}" if error is not None else ""
    )


def show_code(*objects: Any) -> None:
    """Show the source of functions or classes: the very code that runs, wherever the notebook is read."""
    for shown in objects:
        display(Markdown(f"```python\n{textwrap.dedent(inspect.getsource(shown))}```"))


def say(text: str) -> None:
    """Show a sentence that was computed: prose whose numbers and verdicts follow the run."""
    display(Markdown(inspect.cleandoc(text)))


def table(
    header: Sequence[str], rows: Sequence[Sequence[Any]], text_columns: int = 1
) -> None:
    """Show a table: the first ``text_columns`` columns to the left, numbers to the right."""
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (header, *rows)]
    lines.insert(1, "|" + ":--|" * text_columns + "--:|" * (len(header) - text_columns))
    display(Markdown("\n".join(lines)))


def _glue(name: str, text: str, value: dict[str, Any]) -> None:
    """What myst_nb.glue does, without importing Sphinx: an output that the page can quote and that shows nothing."""
    metadata = {"scrapbook": {"name": name, "mime_prefix": RECORD}, "record": value}
    display({RECORD + "text/plain": text}, metadata=metadata, raw=True)


def _code() -> list[str]:
    """The lib modules loaded so far that can change a trained weight, without their comments and docstrings."""
    loaded = {
        name: module
        for name, module in sys.modules.items()
        if name.startswith("lib.")
        and not name.startswith(("lib.files", "lib.report", "lib.site"))
    }
    return [
        strip_docs(Path(loaded[name].__file__).read_text(encoding="utf-8"))
        for name in sorted(loaded)
    ]


def _commit() -> str:
    """The commit of the code that ran, marked if the tree had changes; "unknown" outside a checkout of its own."""
    head = commits.head(ROOT)
    if head is None:
        return "unknown"
    changed = commits.git("status", "--porcelain", root=ROOT) != ""
    return head + " with changes" * changed

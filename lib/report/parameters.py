"""The parameters of a chapter: declared once, with type and range, and checked by both.

A chapter's parameters cell annotates each name with one of the types below::

    from lib.report.parameters import Count, Rate

    epochs: Count = 20  # passes over the training images
    rates: list[Rate] = [0.1]  # learning rates to compare

papermill lists them (``papermill --help-notebook``), :func:`check` checks them before
anything trains, and a test checks every profile against the same ranges. This module
imports nothing slow: it is the first thing a notebook loads.
"""

import ast
import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

MODULE = __name__


class ParameterError(ValueError):
    """Parameters that a chapter cannot use; the message names each and the remedy."""


# --- types ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, without ``low`` itself if ``above`` is set.

    With ``or_zero``, 0 as well, which then stands for all.
    """

    low: float
    high: float = math.inf
    above: bool = False
    or_zero: bool = False

    def holds(self, value: float) -> bool:
        if self.or_zero and value == 0:
            return True
        over = value > self.low if self.above else value >= self.low
        return over and value <= self.high and value < math.inf

    def __str__(self) -> str:
        if self.or_zero:
            return f"0, which means all, or at least {_plain(self.low)}"
        if self.above:
            most = f", at most {self.high:g}" if self.high < math.inf else " and finite"
            return f"above {self.low:g}{most}"
        if self.high < math.inf:
            return f"from {_plain(self.low)} to {_plain(self.high)}"
        return f"at least {_plain(self.low)}"


@dataclass(frozen=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    def holds(self, value: str) -> bool:
        return value in self.words

    def __str__(self) -> str:
        return "one of " + ", ".join(map(repr, self.words))


@dataclass(frozen=True)
class OfData:
    """What only the data can decide, once they are there: :func:`check_data`.

    A number is at most the data's number of ``what``, a name is one of its ``what``.
    """

    what: str

    def problem(self, value: Any, data: Mapping[str, Any]) -> str | None:
        """Why these data (the facts of ``Run.use``) do not allow a value; or None."""
        has = data[self.what]
        if isinstance(value, str):
            known = ", ".join(has[:20]) + ("…" if len(has) > 20 else "")
            return None if value in has else f"no such class. Choose one of: {known}."
        what = self.what.replace("_", " ")
        return None if value <= has else f"at most {has:,}, the {what}."


Count = Annotated[int, Range(1)]
"""A whole number, at least 1: epochs, images in a batch, widths."""
Some = Annotated[int, Range(0)]
"""A whole number, at least 0, where 0 means none, or all."""
Sample = Annotated[int, Range(50, or_zero=True)]
"""How many images to use; 0 means all. Fewer than 50 cannot be scored as a set."""
Several = Annotated[int, Range(2)]
"""A whole number, at least 2."""
Seed = Annotated[int, Range(0, 2**32 - 1)]
"""What random generators start from; NumPy takes 32 bits."""
Rate = Annotated[float, Range(0, 1, above=True)]
"""Above 0 and at most 1: learning rates, decays, shares that cannot be nothing."""
Fraction = Annotated[float, Range(0, 1)]
"""From 0 to 1, both included."""
Positive = Annotated[float, Range(0, above=True)]
"""Above 0 and finite."""
Sigma = Annotated[float, Range(0.01, 10)]
"""The standard deviation of pixel noise, pixels in [0, 1]."""
Dimension = Annotated[int, Range(2), OfData("training_images")]
"""Numbers in a code: at least 2, and no more than there are training images."""
ClassName = Annotated[str, OfData("classes")]
"""The name of a class of the data."""
Device = Annotated[str, Choice(("auto", "cpu", "cuda"))]
"""Where to compute; "auto" takes a GPU if torch sees one."""
Text = str
"""Any text."""
Flag = bool
"""True or False."""


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell."""

    name: str
    kind: Any
    default: Any
    help: str


# --- reading a parameters cell -------------------------------------------------------


def is_declaration(source: str) -> bool:
    """Whether a cell is a parameters cell: it takes its types from this module."""
    try:
        body = ast.parse(source).body
    except SyntaxError:  # a cell of IPython magics
        return False
    return any(
        isinstance(node, ast.ImportFrom) and node.module == MODULE for node in body
    )


def declared(source: str) -> dict[str, Parameter]:
    """The parameters that a cell declares, by name, in the order of its lines."""
    lines = source.splitlines()
    found = {}
    for node in ast.parse(source).body:
        if not isinstance(node, ast.AnnAssign):
            continue
        kind = eval(ast.unparse(node.annotation), globals())
        _, _, comment = lines[node.end_lineno - 1][
            node.value.end_col_offset :
        ].partition("#")
        name = node.target.id
        found[name] = Parameter(
            name, kind, ast.literal_eval(node.value), comment.strip()
        )
    return found


# --- checking ------------------------------------------------------------------------


def check(
    parameters: Mapping[str, Parameter],
    values: Mapping[str, Any],
    given: Iterable[str] = (),
) -> dict[str, Any]:
    """The values by name, whole numbers made floats where a float is wanted.

    ``given`` are names that somebody set; unknown ones are refused. Raises
    :class:`ParameterError` with everything that is wrong, a line each.
    """
    problems = [_unknown(name, parameters) for name in given if name not in parameters]
    checked = {}
    for name, parameter in parameters.items():
        value = checked[name] = _as_float(values[name], parameter.kind)
        kind = parameter.kind
        if problem := _mistyped(name, value, kind) or _out_of_range(value, kind):
            problems.append(f"{name} = {value!r}: {problem}")
    refuse(problems)
    return checked


def check_data(
    parameters: Mapping[str, Parameter],
    values: Mapping[str, Any],
    data: Mapping[str, Any],
) -> None:
    """Refuse values that these data do not allow, all at once, by name."""
    problems = []
    for name, parameter in parameters.items():
        kind = _item(parameter.kind) or parameter.kind
        found = values[name] if _item(parameter.kind) else [values[name]]
        for limit in get_args(kind)[1:] if get_origin(kind) is Annotated else ():
            if isinstance(limit, OfData):
                wrong = [limit.problem(value, data) for value in found]
                problems += [f"{name} = {values[name]!r}: {w}" for w in wrong if w]
    refuse(problems)


def refuse(problems: list[str]) -> None:
    """Raise :class:`ParameterError` if there are problems, one line each."""
    if problems:
        lines = "".join(f"\n  - {text}" for text in problems)
        raise ParameterError(f"these parameters need mending:{lines}")


def injected(cells: Iterable[str]) -> list[str]:
    """Names that papermill set, in the last cell that is headed "# Parameters"."""
    sources = [text for text in cells if re.match(r"\s*# Parameters\s*(\n|$)", text)]
    body = ast.parse(sources[-1]).body if sources else []
    targets = [
        target
        for node in body
        if isinstance(node, ast.Assign)
        for target in node.targets
    ]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _parts(kind: Any) -> tuple[type, Range | Choice | None]:
    """A declared type as Python's own type and what limits it."""
    if get_origin(kind) is Annotated:
        base, *limits = get_args(kind)
        found = [limit for limit in limits if not isinstance(limit, OfData)]
        return base, (found or [None])[0]
    return kind, None


def _item(kind: Any) -> Any:
    """The type of a list's entries; None for what is no list."""
    return get_args(kind)[0] if get_origin(kind) is list else None


def _as_float(value: Any, kind: Any) -> Any:
    item = _item(kind)
    if item is not None:
        return (
            [_as_float(entry, item) for entry in value]
            if type(value) is list
            else value
        )
    wanted, _ = _parts(kind)
    return float(value) if wanted is float and type(value) is int else value


ADVICE = {
    bool: "True or False is wanted (in YAML true or false, without quotes)",
    int: "a whole number is wanted, without quotes",
    float: "a number is wanted, with a dot and without quotes "
    "(YAML takes 1e-4 for text: write 1.0e-4)",
    str: "text is wanted, in YAML with quotes",
}


def _mistyped(name: str, value: Any, kind: Any) -> str | None:
    item = _item(kind)
    if item is None:
        wanted, _ = _parts(kind)
        return None if type(value) is wanted else ADVICE[wanted] + "."
    wanted, _ = _parts(item)
    if type(value) is list and all(type(entry) is wanted for entry in value):
        return None
    what, example = {
        float: ("numbers", "[0.1, 0.2]"),
        int: ("whole numbers", "[64, 32]"),
    }.get(wanted, ("words", "[a, b]"))
    return (
        f"a list of {what} is wanted. With papermill, write "
        f"-y '{name}: {example}' (its -p takes no lists)."
    )


def _out_of_range(value: Any, kind: Any) -> str | None:
    item = _item(kind)
    if item is None:
        _, limit = _parts(kind)
        return None if limit is None or limit.holds(value) else f"it must be {limit}."
    _, limit = _parts(item)
    if value and (limit is None or all(map(limit.holds, value))):
        return None
    return "it must be a list with one value or more" + (
        f", each {limit}." if limit else "."
    )


def _unknown(name: str, parameters: Mapping[str, Parameter]) -> str:
    close = difflib.get_close_matches(name, parameters, n=1)
    hint = f"Did you mean {close[0]}?" if close else f"Known: {', '.join(parameters)}."
    return f"{name}: unknown. {hint}"


def _plain(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"

"""How the book prints numbers and decides verdicts: one rule for each.

**Numbers.** Two significant digits of its error decide how far a number is written; a
number without an error gets three digits. What is counted is written whole. A true
minus, no e-notation, the unit beside it.

**Verdicts.** Two means differ if their difference exceeds two standard errors of it.
Where it does not, the answer is "no difference that 3 runs can show".
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
NBSP = "\u00a0"
"""A space at which no line breaks."""
FORMS = ("", "%", "count")
NEGLIGIBLE = 1e-9
"""What differs by less than this share of itself differs by rounding only."""
UNREADABLE = 1e-6
"""An error below this share of its number is not written: seven digits tell nobody."""


def write(
    value: float, error: float | None = None, form: str = "", with_error: bool = True
) -> str:
    """A number as text, with ± its error if it has one that counts.

    ``form`` is "" for plain numbers, "%" for fractions written as percentages, "count"
    for what is counted. An error of 0 is left out: it is no measurement of a spread.
    Without ``with_error`` the error decides the digits and is not written.
    """
    if form not in FORMS:
        raise ValueError(f"form={form!r}: choose one of {', '.join(map(repr, FORMS))}.")
    if not math.isfinite(value):
        return "not finite" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    if form == "%":
        return write(100 * value, error and 100 * error, "", with_error) + "%"
    error = None if error is None or error < UNREADABLE * abs(value) else error
    if form == "count" and error is None and float(value).is_integer():
        return _fixed(value, 0)
    if value == 0 and not error:
        return "0"
    decimals = 1 - _exponent(error, 2) if error else 2 - _exponent(value, 3)
    power = _exponent(round(max(abs(value), error or 0), decimals), 15)
    power = 0 if -4 <= power < 7 else power
    shown = [value, error] if error and with_error else [value]
    parts = [_fixed(part / 10.0**power, decimals + power) for part in shown]
    text = f"{NBSP}±{NBSP}".join(parts)
    if not power:
        return text
    text = f"({text})" if len(shown) > 1 else text
    return f"{text}{NBSP}×{NBSP}10{str(power).translate(SUPERSCRIPT)}"


def _exponent(value: float, digits: int) -> int:
    """The power of ten of a number's first digit, once rounded to so many digits."""
    return int(f"{value:.{digits - 1}e}".partition("e")[2])


def _fixed(value: float, decimals: int) -> str:
    """Rounded to so many decimals, to tens or hundreds if negative; thousands apart."""
    text = f"{round(value, decimals):,.{max(decimals, 0)}f}"
    if float(text.replace(",", "")) == 0:  # no "−0.00"
        text = text.removeprefix("-")
    return text.replace("-", "−")


@dataclass(frozen=True, repr=False)
class Number:
    """What the runs of a chapter measured under one name.

    ``values``, one a run; ``unit`` and ``form`` say how it is written; ``better`` is
    "low", "high" or "" where neither is; ``report`` is the figure that a report gave
    for the same quantity, if it gave one. ``image_error`` is a standard error over test
    images within a run, for quantities that are means over images.
    """

    values: tuple[float, ...]
    unit: str = ""
    form: str = ""
    better: str = ""
    report: float | None = None
    image_error: float | None = None

    @property
    def mean(self) -> float:
        return math.fsum(self.values) / len(self.values)

    @property
    def runs(self) -> int:
        return len(self.values)

    @property
    def deviation(self) -> float | None:
        """The standard deviation over runs; None for one run."""
        if self.runs < 2:
            return None
        gaps = [value - self.mean for value in self.values]
        deviation = math.hypot(*gaps) / math.sqrt(self.runs - 1)
        return 0.0 if deviation <= NEGLIGIBLE * abs(self.mean) else deviation

    @property
    def standard_error(self) -> float | None:
        """Of the mean over runs; None for one run."""
        return None if self.deviation is None else self.deviation / math.sqrt(self.runs)

    @property
    def text(self) -> str:
        """Mean ± standard deviation over runs, without the unit."""
        return write(self.mean, self.deviation, self.form)

    @property
    def bare(self) -> str:
        """The mean alone, as far as its deviation lets it be written."""
        return write(self.mean, self.deviation, self.form, with_error=False)

    def __str__(self) -> str:
        """The mean with its unit, as sentences say it."""
        return f"{self.bare}{NBSP}{self.unit}" if self.unit else self.bare

    __repr__ = __str__  # what a sentence shows that evaluates a number in JupyterLab

    def __float__(self) -> float:
        return self.mean

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    # Arithmetic is done run by run, so that what runs share cancels.

    def __sub__(self, other: "Number | float") -> "Number":
        return self._with(other, lambda a, b: a - b)

    def __truediv__(self, other: "Number | float") -> "Number":
        ratio = self._with(other, lambda a, b: a / b)
        return replace(ratio, unit="", form="")

    def _with(
        self, other: "Number | float", combine: Callable[[float, float], float]
    ) -> "Number":
        if isinstance(other, Number):
            if other.runs != self.runs:
                raise ValueError(
                    f"{self.runs} runs cannot be paired with {other.runs}."
                )
            others: Sequence[float] = other.values
        else:
            others = [float(other)] * self.runs
        values = tuple(map(combine, self.values, others))
        return Number(values, self.unit, self.form)


# --- verdicts ------------------------------------------------------------------------

BETTER, WORSE, EQUAL, NOT_COMPARABLE = (
    "better",
    "worse",
    "no difference",
    "not comparable",
)


@dataclass(frozen=True)
class Verdict:
    """What a comparison of two numbers says, and over how many runs."""

    outcome: str
    runs: int
    reason: str = ""

    def __str__(self) -> str:
        if self.outcome == EQUAL:
            return no_difference(self.runs)
        return self.outcome + (f": {self.reason}" if self.reason else "")

    def told(self, better: str, worse: str) -> str:
        """The words for what was found, or that no difference is shown."""
        return {BETTER: better, WORSE: worse}.get(self.outcome, str(self))


def no_difference(runs: int) -> str:
    """The sentence for a difference that is not shown."""
    return f"no difference that {runs} {'run' if runs == 1 else 'runs'} can show"


def difference(first: Number, second: Number | float) -> int:
    """+1 or −1 if ``first`` is shown to be larger or smaller than ``second``; else 0.

    The difference must exceed two standard errors of it: over runs, or, for single
    runs, over test images where both say so. A plain number, such as a report's, has no
    error. A single run without any error shows nothing, nor does a difference that is
    rounding.
    """
    gap = first.mean - float(second)
    if abs(gap) <= NEGLIGIBLE * max(abs(first.mean), abs(float(second))):
        return 0
    errors = [
        _error_of(number) for number in (first, second) if isinstance(number, Number)
    ]
    if None in errors:
        return 0
    if abs(gap) <= 2 * math.hypot(*errors):  # type: ignore[arg-type]
        return 0
    return 1 if gap > 0 else -1


def _error_of(number: Number) -> float | None:
    return number.image_error if number.runs == 1 else number.standard_error


def verdict(
    first: Number, second: Number | float, better: str = "", not_comparable: str = ""
) -> Verdict:
    """Whether ``first`` is better than ``second``, by the rule of :func:`difference`.

    ``better`` is "low" or "high", by default what ``first`` says of itself.
    ``not_comparable`` is a reason, such as other data or another network, for which
    there is no verdict. Raises ValueError where nothing says which way is better.
    """
    runs = min(first.runs, second.runs) if isinstance(second, Number) else first.runs
    if not_comparable:
        return Verdict(NOT_COMPARABLE, runs, not_comparable)
    better = better or first.better
    if better not in ("low", "high"):
        raise ValueError('better: say "low" or "high", which way is better?')
    found = difference(first, second)
    if found == 0:
        return Verdict(EQUAL, runs)
    return Verdict(BETTER if (found > 0) == (better == "high") else WORSE, runs)


HOLDS, FAILS, CANNOT_TELL = "holds", "fails", "cannot be told"


def claim(first: Number, relation: str, second: Number | float) -> str:
    """Whether "first < second" (or ">") holds, fails, or cannot be told."""
    if relation not in ("<", ">"):
        raise ValueError(f'relation={relation!r}: say "<" or ">".')
    found = difference(first, second) * (1 if relation == ">" else -1)
    return {1: HOLDS, -1: FAILS, 0: CANNOT_TELL}[found]

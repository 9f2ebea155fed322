"""Your own run beside the published ones: ``python -m lib.site.compare RESULTS.json``.

For each number: does it lie where another run of ours would be expected? The results
page asks the same in the reader's browser (``compare.js``).
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from IPython.display import HTML

from lib.files import ROOT
from lib.report.numbers import Number, write
from lib.report.results import FREE, Results, ResultsError
from lib.site import published
from lib.site.contents import BookError

LEVEL = 0.95
"""Of runs that differ in their seed only, so many lie inside."""


def expected(ours: Number) -> tuple[float, float] | None:
    """Between which values another run lies, at :data:`LEVEL`; None for one run.

    The prediction interval of a normal distribution, mean ± t s √(1 + 1/n), with
    Student's t: from three runs, about five deviations to each side.
    """
    if ours.deviation is None:
        return None
    from scipy.stats import t

    quantile = float(t.ppf((1 + LEVEL) / 2, ours.runs - 1))
    reach = quantile * ours.deviation * math.sqrt(1 + 1 / ours.runs)
    return ours.mean - reach, ours.mean + reach


def lines(path: Path, root: Path = ROOT) -> Iterator[str]:
    """What is to be said of a run, a number a line.

    Raises :class:`BookError` or ResultsError where there is nothing to compare.
    """
    run = Results.read([path])
    chapter = run.provenance[0]["chapter"]
    found = published.paths(chapter, root)
    if not found:
        raise BookError(f"No runs of {chapter} are published: nothing to compare with.")
    ours = published.read(found, chapter)
    theirs = run.provenance[0]["parameters"]
    base = ours.provenance[0]["parameters"]
    odd = [name for name in base if name not in FREE and theirs.get(name) != base[name]]
    yield f"{path}, beside {ours.runs} published runs of {chapter}:"
    if odd:
        differ = ", ".join(f"{n}={theirs.get(n)} for {base[n]}" for n in odd)
        yield f"Not the same experiment ({differ}): outside need not mean wrong."
    inside = judged = 0
    for name in ours:
        if name not in run:
            yield f"  not measured  {name}"
            continue
        number = ours[name]
        text = f"{name}: {write(run[name].mean, form=number.form)}, ours {number.text}"
        text += f" {number.unit}" if number.unit else ""
        limits = expected(number)
        if limits is None:
            yield f"  one run only  {text}"
            continue
        low, high = limits
        rounding = 1e-9 * abs(number.mean)
        fits = low - rounding <= run[name].mean <= high + rounding
        judged, inside = judged + 1, inside + fits
        yield f"  {'inside ' if fits else 'OUTSIDE'}  {text}"
    yield (
        f"{inside} of {judged} numbers are inside; "
        f"of another seed, {LEVEL:.0%} would be, give or take."
    )


# --- on the results page -------------------------------------------------------------

PIECE = """\
<div class="lwl-compare" hidden>
<label class="lwl-drop">Drop a results file of your run here, or choose one:
<input type="file" accept=".json,application/json"></label>
<div class="lwl-answer" aria-live="polite"></div>
<script type="application/json">{data}</script>
<script>{script}</script>
</div>"""


def page(published_runs: Mapping[str, Results]) -> HTML:
    """Where a reader drops a results file; nothing of it leaves the page."""
    data = {chapter: _limits(ours) for chapter, ours in published_runs.items()}
    text = json.dumps(data, separators=(",", ":"), sort_keys=True)
    script = Path(__file__).with_name("compare.js").read_text(encoding="utf-8")
    return HTML(PIECE.format(data=text.replace("<", "\\u003c"), script=script))


def _limits(ours: Results) -> dict[str, dict]:
    """A chapter's parameters, and between which values each number is expected."""
    numbers = {}
    for name in ours:
        limits, rounding = expected(ours[name]), 1e-9 * abs(ours[name].mean)
        numbers[name] = {
            "text": ours[name].text,
            "unit": ours[name].unit,
            "form": ours[name].form,
            "limits": limits and [limits[0] - rounding, limits[1] + rounding],
        }
    parameters = ours.provenance[0]["parameters"]
    kept = {name: value for name, value in parameters.items() if name not in FREE}
    return {"parameters": kept, "numbers": numbers}


# --- in the terminal -----------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lib.site.compare", description=__doc__.splitlines()[0]
    )
    parser.add_argument("results", type=Path, help="a run's JSON file")
    options = parser.parse_args(arguments)
    try:
        for line in lines(options.results):
            print(line)
    except (BookError, ResultsError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

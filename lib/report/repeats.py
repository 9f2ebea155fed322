"""Figures of many runs: a number over a parameter, mean ± deviation over repeats."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lib.report import plots

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

SPAN = 8
"""From the smallest to the largest value, times: then an axis is logarithmic."""


def axis(name: str, unit: str = "", better: str = "", **_: Any) -> str:
    """What stands beside an axis: a number's name, unit and better side."""
    arrow = {"low": " ↓", "high": " ↑"}.get(better, "")
    return name + (f", {unit}" if unit else "") + arrow


def means(
    runs: "pandas.DataFrame",
    x: str,
    y: str,
    others: Sequence[str] = (),
    label: str = "",
) -> "Figure":
    """Draw ``y`` over the parameter ``x``: means of repeats, bars their deviation.

    ``runs`` has a row a run, as :func:`lib.report.results.frame` gives them. Up to four
    ``others``, parameters that vary as well, take colour, marker, columns and rows: no
    mean is ever taken over different settings. ``label`` stands beside the axis of
    ``y``. Raises ValueError for more.
    """
    import matplotlib.pyplot as plt
    import seaborn as sns  # takes seconds, and few need it

    places = ("hue", "style", "col", "row")
    if len(others) > len(places):
        raise ValueError(f"A figure shows five parameters, not {len(others) + 1}.")
    # (seaborn lays its panels out itself, and warns where another layout is on.)
    with plt.ioff(), plt.rc_context({"figure.constrained_layout.use": False}):
        grid = sns.relplot(
            data=runs.assign(**{name: runs[name].astype(str) for name in others}),
            x=x,
            y=y,
            **dict(zip(places, others, strict=False)),
            kind="line",
            errorbar="sd",
            err_style="bars",
            err_kws={"capsize": 4},
            marker="o",
            palette=plots.PALETTE[: runs[others[0]].nunique()] if others else None,
            height=3.6,
            aspect=1.5,
        )
    grid.set_axis_labels(x, label or y)
    values = runs[x]
    if values.dtype.kind in "if" and values.min() > 0:
        if values.max() >= SPAN * values.min():
            grid.set(xscale="log")
        ticks = sorted(values.unique())
        grid.set(xticks=ticks, xticklabels=[f"{tick:g}" for tick in ticks])
    plt.close(grid.figure)
    return grid.figure

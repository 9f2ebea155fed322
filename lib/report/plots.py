"""Figures, image grids and animations from arrays, all in one look.

Nothing here knows where arrays come from; tensors are taken as well.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from IPython import get_ipython
from IPython.display import Image as DisplayedImage
from matplotlib import colormaps, font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.text import Annotation, Text
from PIL import Image, ImageDraw, ImageFont

from lib.report import pixels
from lib.report.numbers import write

PALETTE = [
    "#0173b2",
    "#de8f05",
    "#029e73",
    "#d55e00",
    "#cc78bc",
    "#ca9161",
    "#fbafe4",
    "#949494",
    "#ece133",
    "#56b4e9",
]
"""Seaborn's "colorblind", written out: to import seaborn takes a second."""

COLORS = {
    "AE": to_rgb(PALETTE[0]),
    "VAE": to_rgb(PALETTE[1]),
    "GAN": to_rgb(PALETTE[2]),
    "PCA": to_rgb(PALETTE[7]),
    "real": (0.1, 0.1, 0.1),
}
"""A method keeps its colour in every figure of the book."""

SURFACE = colormaps["viridis"]
"""How heights over the plane are coloured."""

WIDTH = 7.5
"""Inches of a figure that fills the page; text is sized for that width."""

SMALL = 10.5
"""Points of the smallest text in a figure."""

_STYLE = {
    "figure.dpi": 150,
    "savefig.dpi": 150,
    "figure.figsize": (WIDTH, 3.6),
    "figure.constrained_layout.use": True,
    # Drawn in, so that figures stay readable in dark mode.
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    # Comes with matplotlib: text is as wide on every machine.
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 11.5,
    "axes.titlesize": 12,
    "axes.labelsize": 11.5,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "legend.title_fontsize": 12,
    "axes.prop_cycle": plt.cycler("color", PALETTE),
    "text.color": "0.15",
    "axes.labelcolor": "0.15",
    "xtick.color": "0.15",
    "ytick.color": "0.15",
    "axes.axisbelow": True,
    "axes.edgecolor": "0.4",
    "axes.linewidth": 1.25,
    "axes.grid": True,
    "grid.color": "0.9",
    "grid.linewidth": 1,
    # No ticks, but their room between axis and label.
    "xtick.bottom": False,
    "ytick.left": False,
    "xtick.major.size": 6,
    "ytick.major.size": 6,
    "xtick.major.width": 1.25,
    "ytick.major.width": 1.25,
    "xtick.minor.size": 4,
    "ytick.minor.size": 4,
    "lines.solid_capstyle": "round",
    "patch.edgecolor": "w",
    "patch.force_edgecolor": True,
    "image.cmap": "gray",
    "image.interpolation": "nearest",
}


def use_style() -> None:
    """The book's one matplotlib style, whatever the user's own settings are.

    In a notebook, figures come out below their cell, as PNG.
    """
    from matplotlib_inline.config import InlineBackend  # takes long to import

    shell = get_ipython()
    if hasattr(shell, "kernel"):
        # MPLBACKEND=Agg in the environment would leave a notebook without figures.
        shell.enable_matplotlib("inline")
    inline = InlineBackend.instance()
    inline.figure_formats = {"png"}
    inline.close_figures = True
    # As wide as they were asked for, so that their text has the size it was given.
    inline.print_figure_kwargs = {"bbox_inches": None}
    matplotlib.rcdefaults()
    matplotlib.rcParams.update(_STYLE)


def class_colors(count: int) -> list[str]:
    """A colour per class, as ``#rrggbb``: the same for a class in every figure."""
    if count <= len(PALETTE):
        return PALETTE[:count]
    import seaborn as sns

    return list(sns.color_palette("husl", count).as_hex())


# --- images --------------------------------------------------------------------------


def image_rows(rows: Mapping[str, Any], gap: int = 2) -> Figure:
    """One row of images per label, the label at its left.

    Images are (N, C, H, W), pixels in [0, 1] or uint8, with ``gap`` pixels in between.
    """
    tiled = {label: tile_row(images, gap) for label, images in rows.items()}
    ratio = sum(image.shape[0] / image.shape[1] for image in tiled.values())
    size = WIDTH, (WIDTH - 1.2) * ratio + 0.06 * len(rows)
    fig, axes = plt.subplots(
        len(rows), 1, figsize=size, squeeze=False, layout="constrained"
    )
    for ax, (label, image) in zip(axes[:, 0], tiled.items(), strict=True):
        ax.imshow(image, vmin=0, vmax=255)
        ax.set(xticks=[], yticks=[])
        ax.set_ylabel(label, rotation=0, ha="right", va="center", labelpad=6)
        ax.spines[:].set_visible(False)
    # Images take their shape after the layout made room for labels, which it must
    # learn.
    for _ in range(2):
        fig.draw_without_rendering()
    return fig


def captioned_rows(
    rows: Mapping[str, Any], captions: Sequence[str], gap: int = 2
) -> Figure:
    """:func:`image_rows` with a caption above each column."""
    fig = image_rows(rows, gap)
    width = next(iter(rows.values())).shape[-1]
    for column, caption in enumerate(captions):
        fig.axes[0].annotate(
            caption,
            (column * (width + gap) + width / 2, -1.5),
            ha="center",
            va="bottom",
            annotation_clip=False,
        )
    return fig


def tile_row(images: Any, gap: int = 2) -> np.ndarray:
    """Images (N, C, H, W) side by side as uint8 (H, N·(W+gap)−gap, 3), on white."""
    array = pixels.to_rgb(images)
    spaces = ((0, 0), (0, 0), (0, gap), (0, 0))
    padded = np.pad(array, spaces, constant_values=255)
    return np.concatenate(list(padded), axis=1)[:, : padded.shape[2] * len(array) - gap]


def grid(images: Any, columns: int, gap: int = 1) -> np.ndarray:
    """Images (N, C, H, W) in rows of so many as one uint8 (height, width, 3)."""
    array = pixels.as_array(images)
    parts = [array[i : i + columns] for i in range(0, len(array), columns)]
    rows = [tile_row(part, gap) for part in parts]
    width = rows[0].shape[1]
    padded = [
        np.pad(row, ((0, gap), (0, width - row.shape[1]), (0, 0)), constant_values=255)
        for row in rows
    ]
    whole = np.concatenate(padded)
    return whole[: len(whole) - gap]


# --- codes ---------------------------------------------------------------------------


def latent_scatter(
    ax: Axes,
    z: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    named: bool = True,
) -> None:
    """Points (N, 2), or (N, 3) in 3-D axes, coloured by their labels (N,).

    Each class is named at its centre, unless its name stands elsewhere.
    """
    z, labels = pixels.as_array(z), pixels.as_array(labels)
    colors = np.array(class_colors(len(classes)))
    size = np.clip(6000 / len(z), 2, 15)
    ax.scatter(*z.T, c=colors[labels], s=size, alpha=0.5, linewidths=0)
    for label, name in enumerate(classes):
        if named and (labels == label).any():
            ax.text(
                *np.median(z[labels == label], axis=0),
                name,
                ha="center",
                va="center",
                size=10,
                bbox={
                    "boxstyle": "round,pad=0.15",
                    "fc": "white",
                    "ec": colors[label],
                    "lw": 1.5,
                },
                zorder=9,
            )


def scatter_row(
    codes: Mapping[str, Any],
    labels: Any,
    classes: Sequence[str],
    titles: Mapping[str, str] | None = None,
    circle: float | None = None,
    axes: tuple[str, str] = ("$z_1$", "$z_2$"),
) -> Figure:
    """Planes of codes, three side by side, and class colours below them all.

    ``codes``, ``labels``, ``classes``
        Codes (N, 2) per name, the labels (N,) of all of them and the classes' names.
    ``titles``, ``circle``, ``axes``
        A title instead of the name; the radius of a circle around the origin, in the
        codes' unit; what the axes are called.
    """
    columns = min(3, len(codes))
    lines = -(-len(codes) // columns)
    width = WIDTH / max(2, columns)  # a single plane needs no whole page
    across = columns * width
    rows = -(-sum(len(name) + 3 for name in classes) // int(80 * across / WIDTH))
    size = across, lines * (width + 0.35) + 0.25 * rows + 0.2
    fig, panels = plt.subplots(
        lines, columns, figsize=size, squeeze=False, layout="constrained"
    )
    for ax in panels.flat[len(codes) :]:
        ax.set_axis_off()
    for ax, (name, z) in zip(panels.flat, codes.items(), strict=False):
        latent_scatter(ax, z, labels, classes, named=False)
        if circle is not None:
            ring = Circle((0, 0), circle, fill=False, ec="0.2", lw=1.2, ls="--")
            ax.add_patch(ring)
        ax.set(title=(titles or {}).get(name, name), xlabel=axes[0], ylabel=axes[1])
        ax.set_aspect("equal", adjustable="datalim")
    dots_ = [
        plt.Line2D([], [], marker="o", ls="", ms=7, color=color)
        for color in class_colors(len(classes))
    ]
    fig.legend(
        dots_,
        classes,
        loc="outside lower center",
        ncols=-(-len(classes) // rows),
        frameon=False,
        handletextpad=0.1,
        columnspacing=1.2,
    )
    return fig


def distance_heatmap(ax: Axes, distances: np.ndarray, classes: Sequence[str]) -> None:
    """A symmetric matrix of distances between classes, each written in its cell."""
    import seaborn as sns  # takes a second

    lower = pixels.as_array(distances)[1:, :-1]
    sns.heatmap(
        lower,
        ax=ax,
        mask=np.triu(np.ones_like(lower, dtype=bool), k=1),
        annot=True,
        fmt=".1f",
        annot_kws={"size": 10},
        cmap="viridis",
        square=True,
        xticklabels=classes[:-1],
        yticklabels=classes[1:],
        cbar_kws={"shrink": 0.8, "label": "distance"},
    )
    ax.grid(False)
    ax.tick_params(rotation=0)


# --- numbers -------------------------------------------------------------------------


def curves(
    ax: Axes,
    lines: Mapping[str, tuple[Any, Any]],
    colors: Mapping[str, Any] | None = None,
    **style: Any,
) -> None:
    """A curve per name, its name at its right end; call it once scales are set.

    ``lines``
        Steps (T,) and values (T,) per name, or values (runs, T): then the curve is
        their mean, in a band of their standard deviation.
    ``colors``, ``style``
        A colour per name, by default that of the method, else one that no method has;
        what else ``ax.plot`` is to know.
    """
    colors = COLORS | dict(colors or {})
    taken = set(map(to_rgb, colors.values()))
    others = (color for color in PALETTE if to_rgb(color) not in taken)
    ends = {}
    for name, (steps, values) in lines.items():
        steps = pixels.as_array(steps)
        values = np.atleast_2d(pixels.as_array(values)).astype(float)
        mean = values.mean(0)
        color = colors.get(name) or next(others)
        ax.plot(steps, mean, color=color, **style)
        if len(values) > 1:
            spread = values.std(0, ddof=1)
            ax.fill_between(
                steps, mean - spread, mean + spread, color=color, alpha=0.2, lw=0
            )
        ends[name] = steps[-1], mean[-1], color
    ax.margins(x=0)
    _name_ends(ax, ends)


def _name_ends(ax: Axes, ends: Mapping[str, tuple[float, float, Any]]) -> None:
    """Names right of (x, y), in a colour, moved up or down until they lie apart."""
    ax.figure.draw_without_rendering()
    frame = ax.get_window_extent()
    names = sorted(ends, key=lambda name: ends[name][1])
    y = np.array([ax.transData.transform(ends[name][:2])[1] for name in names])
    apart = 1.5 * SMALL * ax.figure.dpi / 72
    for _ in range(200):
        # Two that are too close each give way by half of what is missing.
        missing = np.clip(apart - np.diff(y), 0, None) / 2
        y[1:] += missing
        y[:-1] -= missing
    for name, height in zip(names, (y - frame.y0) / frame.height, strict=True):
        x, _, color = ends[name]
        ax.annotate(
            name,
            (x, height),
            (6, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            va="center",
            color=color,
            size=SMALL,
            weight="bold",
            annotation_clip=False,
        )


def dots(
    ax: Axes,
    names: Sequence[str],
    means: Any,
    deviations: Any = None,
    texts: Sequence[str] | None = None,
    colors: Sequence[Any] | None = None,
) -> None:
    """A dot per name from the top, at its mean, with its value beside it.

    ``means``, ``deviations``
        Means (N,) over runs and their standard deviations (N,), drawn as bars, in the
        unit of the x-axis; where there is one run, no deviations or NaN.
    ``texts``, ``colors``
        The values as they are to be read, by default as the book writes numbers; a
        colour per dot, by default that of the method.
    """
    means = pixels.as_array(means).astype(float)
    spread = np.zeros_like(means)
    if deviations is not None:
        spread = np.nan_to_num(pixels.as_array(deviations).astype(float))
    if texts is None:
        texts = [write(*pair) for pair in zip(means, spread, strict=True)]
    if colors is None:
        colors = [COLORS.get(name, PALETTE[0]) for name in names]
    places = np.arange(len(means))
    notes = []
    for y, mean, bar, text, color in zip(
        places, means, spread, texts, colors, strict=True
    ):
        ax.errorbar(mean, y, xerr=bar or None, fmt="o", color=color, ms=7, capsize=3)
        note = ax.annotate(
            text,
            (mean + bar, y),
            (8, 0),
            textcoords="offset points",
            va="center_baseline",
            size=SMALL,
        )
        note.set_in_layout(False)
        notes.append(note)
    ax.set_yticks(places, names)
    ax.set_ylim(len(means) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    _widen(ax, notes)


def _widen(ax: Axes, notes: Sequence[Annotation]) -> None:
    """Moves the right limit until the notes end inside the axes."""
    ax.figure.draw_without_rendering()
    frame = ax.get_window_extent()
    share = 1.0
    for note in notes:
        start = (ax.transData.transform(note.xy)[0] - frame.x0) / frame.width
        # A text keeps its width, and its offset, while the axis is compressed.
        width = (Text.get_window_extent(note).x1 - frame.x0) / frame.width - start
        share = max(share, start / max(0.97 - width, 0.1))
    right = ax.transData.inverted().transform(ax.transAxes.transform((share, 0)))[0]
    ax.set_xlim(right=right)


def label_points(
    ax: Axes, points: Any, texts: Sequence[str], colors: Sequence[Any] | None = None
) -> list[Annotation]:
    """A text beside each point (N, 2), where there is room for it.

    Texts keep clear of each other and inside the axes, and of curves and dots where
    they can; one that had to go far is tied to its point by a line. Call it when all
    else is drawn and the limits are set.
    """
    ax.figure.draw_without_rendering()
    frame = ax.get_window_extent()
    places = ax.transData.transform(pixels.as_array(points).astype(float))
    dot = ax.figure.dpi / 72
    # A point's mark reaches some way around it.
    marks = [
        places + 4 * dot * np.array(way) for way in ((1, 0), (-1, 0), (0, 1), (0, -1))
    ]
    drawn = np.concatenate([places, *marks, *_drawn(ax)])
    taken = np.empty((0, 4))
    notes = []
    for i, (place, text) in enumerate(zip(places, texts, strict=True)):
        note = ax.annotate(
            text,
            ax.transData.inverted().transform(place),
            (0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            size=SMALL,
            color="0.15" if colors is None else colors[i],
            zorder=9,
        )
        extent = Text.get_window_extent(note)
        half = np.array([extent.width, extent.height]) / 2 + dot
        center, distance = _room(place, half, dot, frame.extents, taken, drawn)
        taken = np.vstack([taken, [*(center - half), *(center + half)]])
        note.set_position(tuple((center - place) / dot))
        # The layout was made; a text inside the axes takes no room in it.
        note.set_in_layout(False)
        if distance > 10:
            line = {"arrowstyle": "-", "color": "0.5", "lw": 0.8, "shrinkB": 3}
            tie = ax.annotate(
                "",
                note.xy,
                tuple((np.clip(place, center - half, center + half) - place) / dot),
                textcoords="offset points",
                arrowprops=line | {"shrinkA": 0},
                zorder=8,
            )
            tie.set_in_layout(False)
        notes.append(note)
    return notes


def _drawn(ax: Axes) -> list[np.ndarray]:
    """Places (M, 2), in pixels, of what curves and scatter plots have drawn."""
    places = []
    for line in ax.lines:
        path = line.get_transform().transform(line.get_xydata())
        path = path[np.isfinite(path).all(axis=1)]
        for start, end in itertools.pairwise(path):
            count = int(np.hypot(*(end - start)) / 4) + 2
            places.append(np.linspace(start, end, min(count, 1000)))
    for collection in ax.collections:
        offsets = np.asarray(collection.get_offsets(), float)
        places.append(collection.get_offset_transform().transform(offsets))
    return places


def _room(
    place: np.ndarray,
    half: np.ndarray,
    dot: float,
    frame: np.ndarray,
    taken: np.ndarray,
    drawn: np.ndarray,
) -> tuple[np.ndarray, float]:
    """Where a text fits: its centre, in pixels, and how far off it is, in points.

    ``half`` is half its width and height; ``dot`` pixels are a point; ``frame`` and
    the boxes ``taken`` (N, 4) are left, bottom, right, top.
    """
    # Right, left, above, below, then what lies between.
    angles = np.deg2rad([0, 180, 90, 270, *range(45, 360, 90), *range(15, 360, 30)])
    ways = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    best, least, far = place, np.inf, 0.0
    for distance in (5, 9, 14, 20, 30, 42, 56, 75, 100, 130, 170, 220, 300):
        for way in ways:
            # Diagonally, the box's corner is nearest to the point.
            center = place + way / np.abs(way).max() * half + way * distance * dot
            low, high = center - half, center + half
            clash = (low < taken[:, 2:]).all(1) & (high > taken[:, :2]).all(1)
            if (low < frame[:2]).any() or (high > frame[2:]).any() or clash.any():
                continue
            covered = ((drawn > low) & (drawn < high)).all(1).sum()
            way_there = np.linspace(place, np.clip(place, low, high), 50)[:, None]
            crossed = (way_there > taken[:, :2]) & (way_there < taken[:, 2:])
            cost = distance + 15 * min(covered, 10) + 100 * crossed.all(2).any()
            if cost < least:
                best, least, far = center, cost, distance
    return best, far


# --- figures as pictures -------------------------------------------------------------


def figure_frame(fig: Figure, dpi: int = 100) -> np.ndarray:
    """What a figure looks like as uint8 (height, width, 3); the figure is closed."""
    fig.set_dpi(dpi)
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    frame = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    plt.close(fig)
    return frame


def photograph(fig: Figure, quality: int = 70) -> DisplayedImage:
    """A figure as a JPEG, of quality 1 to 100.

    It is for grids of photographs, of which a PNG would be several times as large.
    """
    frame = figure_frame(fig, dpi=int(fig.dpi))
    return DisplayedImage(pixels.encoded(frame, ".jpg", quality=quality), format="jpeg")


def film(
    frames: Sequence[np.ndarray], step: int = 300, hold: int = 2500, colors: int = 128
) -> DisplayedImage:
    """An animation of frames uint8 (height, width, 3), resting on the last.

    ``step`` and ``hold`` are milliseconds. All frames share one palette of so many
    ``colors``, taken from the first, the middle and the last.
    """
    durations = [step] * (len(frames) - 1) + [hold]
    return DisplayedImage(pixels.gif(list(frames), durations, colors), format="gif")


def headed(image: np.ndarray, text: str, scale: int = 1) -> np.ndarray:
    """An image uint8 (height, width, 3), its pixels enlarged, under a line of text."""
    image = image.repeat(scale, 0).repeat(scale, 1)
    canvas = Image.new("RGB", (image.shape[1], image.shape[0] + 26), "white")
    canvas.paste(Image.fromarray(image), (0, 26))
    write = ImageDraw.Draw(canvas).text
    write((4, 13), text, fill="black", font=font(16), anchor="lm")
    return np.asarray(canvas)


def font(size: int) -> ImageFont.FreeTypeFont:
    """The figures' font, so many pixels high, for text in frames."""
    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)

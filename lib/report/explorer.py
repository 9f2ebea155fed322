"""Pictures to explore: an image for every step, every point.

Each function takes arrays and returns an :class:`~lib.report.embed.Explorer`, which a
notebook cell displays when it is the cell's last expression. It answers to mouse,
touch and arrow keys. Where no script runs, on paper too, a still image stands in its
place.
"""

import base64
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from lib.report import embed, pixels, plots
from lib.report.embed import LIMIT, Explorer

MOST_POINTS = 1000
"""Points that a scatter plot may have: each brings its image along."""

TILE = 64
"""Pixels: images with a longer side are reduced to it."""

STILL_DPI = 120
"""Dots per inch of still images: sharp enough on paper."""

Extent = tuple[float, float, float, float]
"""(left, right, bottom, top)."""


# --- the pictures ------------------------------------------------------------------


def strips(
    rows: Mapping[str, Any],
    positions: Sequence[float],
    unit: str,
    numbers: Mapping[str, Sequence[float]] | None = None,
    *,
    title: str,
    number_name: str = "score",
    start: int | None = None,
    limit: int = LIMIT,
) -> Explorer:
    """A slider per named direction, and the image at each of its steps.

    ``rows``
        Images (n, C, H, W) per direction, pixels in [0, 1] or uint8, all of one shape.
    ``positions``, ``unit``
        Where the n steps lie along the direction, and in what unit, such as "σ" (""
        for none).
    ``numbers``, ``number_name``
        n numbers per direction, such as a critic's score, shown beside the image under
        this name.
    ``title``, ``start``
        What the picture is; the step that is shown first, by default the middle one.

    Raises ValueError for shapes that do not fit, and for more than ``limit`` bytes.
    """
    if not rows:
        raise ValueError(
            "rows is empty: give images (n, C, H, W) for one direction or more."
        )
    stacks = {
        label: _images(f"rows[{label!r}]", images, 4) for label, images in rows.items()
    }
    shape = next(iter(stacks.values())).shape
    count = len(positions)
    start = count // 2 if start is None else start
    for label, stack in stacks.items():
        if stack.shape != shape or len(stack) != count:
            raise ValueError(
                f"rows[{label!r}] is {stack.shape}: all directions need one shape, "
                f"here {(count, *shape[1:])}, with an image for each of the {count} "
                "positions."
            )
    if count < 2 or not 0 <= start < count:
        raise ValueError(
            f"{count} positions, start={start}: give two positions or more, and start "
            "at one of them."
        )
    if numbers is not None and (
        numbers.keys() != stacks.keys()
        or any(len(values) != count for values in numbers.values())
    ):
        raise ValueError(
            f"numbers must hold {count} numbers for each of: {', '.join(stacks)}."
        )
    data = {
        "kind": "strips",
        "names": list(stacks),
        "positions": _rounded(positions),
        "unit": unit,
        "start": start,
        "numbers": numbers and [_rounded(numbers[label]) for label in stacks],
        "number_name": number_name,
    }
    tiles, sprite = _sprite(np.concatenate(list(stacks.values())), count)
    still = _still_strips(stacks, data["positions"], unit)
    span = f"from {positions[0]:g} to {positions[-1]:g} {unit}".rstrip()
    alt = f"{title}: images {span}. Rows from the top: {', '.join(stacks)}."
    return embed.build(title, data | tiles, _uris(sprite), *still, alt, limit)


def scatter(
    points: Any,
    images: Any,
    labels: Any,
    classes: Sequence[str],
    neighbours: Any = None,
    *,
    title: str,
    noun: str = "image",
    near: str = "nearest in code space",
    limit: int = LIMIT,
) -> Explorer:
    """Points in the plane, such as a t-SNE map.

    The one that is pointed at shows its image and its neighbours.

    ``points``, ``images``, ``labels``, ``classes``
        Places (N, 2) of at most 1,000 images (N, C, H, W), pixels in [0, 1] or uint8,
        their classes (N,) and the classes' names.
    ``neighbours``
        Indices (N, k), nearest first, as from :func:`nearest`. They are found where
        the codes are, not in the plane.
    ``title``, ``noun``, ``near``
        What the picture is, what a point is, and in what sense neighbours are near.

    Raises ValueError for shapes that do not fit, and for more than ``limit`` bytes.
    """
    stack = _images("images", images, 4)
    flat, label, names = _labelled(points, labels, classes)
    count = len(stack)
    if len(flat) != count:
        raise ValueError(
            f"{len(flat)} points and {count} images: give one image per point."
        )
    if not 2 <= count <= MOST_POINTS:
        raise ValueError(
            f"{count} points: give 2 to {MOST_POINTS}, for instance the first ones."
        )
    (left, bottom), (right, top) = flat.min(0).tolist(), flat.max(0).tolist()
    data = {"kind": "scatter", "noun": noun, "near": near}
    data |= _points(flat, label, names, (left, right, bottom, top))
    if neighbours is not None:
        index = pixels.as_array(neighbours)
        whole = np.issubdtype(index.dtype, np.integer)
        if index.ndim != 2 or len(index) != count or not whole:
            raise ValueError(
                f"neighbours is {index.shape}: give whole numbers (N, k) with "
                f"N = {count}."
            )
        if index.size and not (index.min() >= 0 and index.max() < count):
            raise ValueError(
                f"neighbours point outside of the {count} images: indices go from 0 "
                f"to {count - 1}."
            )
        data["neighbours"] = index.tolist()
    tiles, sprite = _sprite(stack, math.ceil(math.sqrt(count)))
    still = _still_scatter(flat, label, names)
    alt = f"{title}: a scatter plot, coloured by class."
    return embed.build(title, data | tiles, _uris(sprite), *still, alt, limit)


def draws(
    images: Any,
    counts: Sequence[int],
    estimates: Any,
    shares: Any,
    bounds: Any,
    *,
    title: str,
    names: tuple[str, str],
    unit: str,
    limit: int = LIMIT,
) -> Explorer:
    """Estimates from random samples, one per image, as more samples are drawn.

    ``images``, ``counts``
        Images (N, C, H, W), pixels in [0, 1] or uint8, and M numbers of samples.
    ``estimates``, ``shares``
        After so many samples, (M, N): the estimates, and the share of the sum that the
        largest sample has, from 0 to 1.
    ``bounds``, ``names``, ``unit``
        Where all estimates begin on average, (N,); what these are called, such as
        "ELBO", and what the last estimate is called; the unit of all of them.

    Raises ValueError for shapes that do not fit, and for more than ``limit`` bytes.
    """
    stack = _images("images", images, 4)
    arrays = [pixels.as_array(a).astype(float) for a in (estimates, shares, bounds)]
    wanted = (len(counts), len(stack))
    if [a.shape for a in arrays] != [wanted, wanted, wanted[1:]] or len(counts) < 2:
        raise ValueError(
            f"estimates and shares {wanted} and bounds {wanted[1:]} are wanted for "
            f"{wanted[1]} images and two counts or more, here {wanted[0]}; given are "
            f"{', '.join(str(a.shape) for a in arrays)}."
        )
    estimate, share, bound = arrays
    rise = estimate - bound
    data = {
        "kind": "draws",
        "counts": [int(count) for count in counts],
        "rises": np.round(rise, 2).tolist(),
        "shares": np.round(share, 3).tolist(),
        "bounds": np.round(bound, 2).tolist(),
        "names": list(names),
        "unit": unit,
    }
    tiles, sprite = _sprite(stack, math.ceil(math.sqrt(len(stack))))
    still = _still_draws(data["counts"], rise, names, unit)
    alt = f"{title}: a curve per image over the number of samples."
    return embed.build(title, data | tiles, _uris(sprite), *still, alt, limit)


def switches(
    names: Sequence[str],
    recordings: Mapping[tuple[bool, ...], str],
    moments: Sequence[str],
    points: Mapping[str, Any],
    numbers: Mapping[str, Mapping[str, Sequence[float]]],
    labels: Any,
    classes: Sequence[str],
    *,
    title: str,
    limit: int = LIMIT,
) -> Explorer:
    """Switches, and the points of a unit circle that move as was recorded with them.

    ``names``, ``recordings``
        What the switches are called, and for every state of all of them, such as
        (True, False), which recording it shows. Two states may share one.
    ``moments``
        What each of the T moments of a recording is called, such as "step 100".
    ``points``, ``numbers``
        For each recording, points int8 (T, N, 2) with the circle's radius at 127, and
        by name the T numbers that are shown beside them.
    ``labels``, ``classes``
        The points' classes (N,) and the classes' names.

    Raises ValueError for shapes that do not fit, and for more than ``limit`` bytes.
    """
    states = list(itertools.product((True, False), repeat=len(names)))
    stacks = {name: pixels.as_array(flat) for name, flat in points.items()}
    shown = set(recordings.values())
    if set(recordings) != set(states) or not shown <= stacks.keys() & numbers.keys():
        raise ValueError(
            f"recordings must name one of {', '.join(stacks)} for each of the "
            f"{len(states)} states of {len(names)} switches, and numbers, too."
        )
    label = pixels.as_array(labels)
    wanted = (len(moments), len(label), 2)
    for name, flat in stacks.items():
        counts = {len(values) for values in numbers[name].values()}
        if flat.dtype != np.int8 or flat.shape != wanted or counts - {len(moments)}:
            raise ValueError(
                f"{name!r}: points are {flat.dtype} {flat.shape}, int8 {wanted} is "
                f"wanted, and {len(moments)} of each number."
            )
    data = {
        "kind": "switches",
        "switches": list(names),
        "states": [list(stacks).index(recordings[state]) for state in states],
        "moments": list(moments),
        "points": [_packed(flat) for flat in stacks.values()],
        "numbers": [
            {key: _rounded(values) for key, values in numbers[name].items()}
            for name in stacks
        ],
        "labels": label.tolist(),
        "classes": [str(name) for name in classes],
        "colors": plots.class_colors(len(classes)),
    }
    still = _still_switches(names, states, recordings, stacks, label, data["colors"])
    alt = f"{title}: where the points lie at {moments[-1]}, for each state."
    return embed.build(title, data, [{}], *still, alt, limit)


def surfaces(
    points: Mapping[str, Any],
    heights: Mapping[str, Any],
    target: Any,
    moments: Sequence[str],
    numbers: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    title: str,
    choice: str,
    help: str,
    start: int = 0,
    limit: int = LIMIT,
) -> Explorer:
    """Points of the unit square that move over a surface, for each of some recordings.

    ``points``, ``heights``
        By recording, uint8 (T, N, 2) with 255 at the right and at the top, and the
        surface at each moment, uint8 (T, S, S), from its lowest to its highest value.
        The first of its rows lies at the bottom.
    ``target``, ``moments``, ``numbers``
        Where the points are to go, uint8 (M, 2); what each of the T moments is called;
        and by recording and name the T numbers that are shown beside them.
    ``title``, ``choice``, ``help``, ``start``
        What the picture is, what is chosen between recordings, what a reader can do,
        and the recording that is shown first.

    Raises ValueError for shapes that do not fit, and for more than ``limit`` bytes.
    """
    clouds = {name: pixels.as_array(flat) for name, flat in points.items()}
    fields = {name: pixels.as_array(field) for name, field in heights.items()}
    goal, first = pixels.as_array(target), next(iter(clouds.values()))
    steps, side = len(moments), next(iter(fields.values())).shape[-1]
    if not clouds.keys() == fields.keys() == numbers.keys():
        raise ValueError("points, heights and numbers must have the same recordings.")
    for name in clouds:
        found = clouds[name].shape, fields[name].shape
        wanted = (steps, first.shape[1], 2), (steps, side, side)
        counts = {len(values) for values in numbers[name].values()}
        bytes_ = clouds[name].dtype == fields[name].dtype == goal.dtype == np.uint8
        if found != wanted or counts - {steps} or not bytes_:
            raise ValueError(
                f"{name!r}: points and heights are {found}, uint8 {wanted} are wanted, "
                f"and {steps} of each number."
            )
    shades = np.uint8(np.round(255 * plots.SURFACE(np.arange(256))[:, :3]))
    upright = {name: np.flip(field, axis=1) for name, field in fields.items()}
    data = {
        "kind": "surfaces",
        "names": list(clouds),
        "start": start,
        "moments": list(moments),
        "points": [_packed(flat) for flat in clouds.values()],
        "surfaces": [_packed(field) for field in upright.values()],
        "target": _packed(goal),
        "shades": _packed(shades),
        "side": side,
        "count": first.shape[1],
        "color": plots.PALETTE[1],
        "numbers": [
            {key: _rounded(values) for key, values in numbers[name].items()}
            for name in clouds
        ],
        "choice": choice,
        "help": help,
    }
    still = _still_surfaces(clouds, upright, goal)
    alt = f"{title}: points over a surface at {moments[-1]}, for each recording."
    return embed.build(title, data, [{}], *still, alt, limit)


# --- what they are made from ---------------------------------------------------------


def lattice(extent: Extent, rows: int, columns: int) -> np.ndarray:
    """Codes float32 (rows, columns, 2) over (left, right, bottom, top).

    The top row comes first.
    """
    left, right, bottom, top = extent
    across = np.linspace(left, right, columns, dtype=np.float32)
    down = np.linspace(top, bottom, rows, dtype=np.float32)
    return np.stack(np.meshgrid(across, down), axis=-1)


def nearest(codes: Any, k: int) -> np.ndarray:
    """Indices (N, k) of each code's nearest others, nearest first.

    Codes are (N, D), their distance is Euclidean; for cosine similarity, give codes of
    length 1. There are N − 1 others, so k is at most that.
    """
    from scipy.spatial.distance import cdist  # takes long to import

    z = pixels.as_array(codes).astype(float)
    distance = cdist(z, z)
    np.fill_diagonal(distance, np.inf)
    return distance.argsort(axis=1, kind="stable")[:, : min(k, len(z) - 1)]


# --- arrays, checked -----------------------------------------------------------------


def _images(name: str, images: Any, axes: int) -> np.ndarray:
    """Images as uint8, checked: their axes, channels (1 or 3) and range of pixels."""
    stack = pixels.as_array(images)
    wanted = {4: "(n, C, H, W)", 5: "(rows, columns, C, H, W)"}[axes]
    if stack.ndim != axes or stack.shape[-3] not in (1, 3) or 0 in stack.shape:
        raise ValueError(
            f"{name} is {stack.shape}: images {wanted} with C = 1 or 3 are wanted."
        )
    if stack.dtype == np.uint8:
        return stack
    fractions = np.issubdtype(stack.dtype, np.floating)
    if not fractions or not (stack.min() >= -1e-4 and stack.max() <= 1 + 1e-4):
        raise ValueError(
            f"{name} has pixels outside [0, 1]: clip them, by .clamp(0, 1) or "
            "np.clip, or give uint8 from 0 to 255."
        )
    return pixels.to_bytes(stack)


def _labelled(
    points: Any, labels: Any, classes: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Points (N, 2), labels (N,) and the classes' names, checked.

    Where no classes are given there is one without a name.
    """
    flat = pixels.as_array(points).astype(np.float32)
    if flat.ndim != 2 or flat.shape[1] != 2 or not np.isfinite(flat).all():
        raise ValueError(f"points is {flat.shape}: finite numbers (N, 2) are wanted.")
    if (labels is None) != (classes is None):
        raise ValueError("labels and classes go together: give both or neither.")
    if labels is None:
        return flat, np.zeros(len(flat), dtype=int), [""]
    label = pixels.as_array(labels)
    if label.shape != flat.shape[:1] or not np.issubdtype(label.dtype, np.integer):
        raise ValueError(
            f"labels is {label.shape}: whole numbers ({len(flat)},), one per point, "
            "are wanted."
        )
    if label.size and not (label.min() >= 0 and label.max() < len(classes)):
        raise ValueError(
            f"labels go from {label.min()} to {label.max()}, but there are "
            f"{len(classes)} classes."
        )
    return flat, label, [str(name) for name in classes]


def _points(
    flat: np.ndarray, label: np.ndarray, names: list[str], bounds: Extent
) -> dict[str, Any]:
    """Points for the page: thousandths of the plane, from its upper left corner."""
    left, right, bottom, top = bounds
    x = (flat[:, 0] - left) / max(right - left, 1e-12)
    y = (top - flat[:, 1]) / max(top - bottom, 1e-12)
    return {
        "x": np.rint(1000 * x).astype(int).tolist(),
        "y": np.rint(1000 * y).astype(int).tolist(),
        "labels": label.tolist(),
        "classes": names,
        "colors": plots.class_colors(len(names)),
    }


def _rounded(values: Sequence[float]) -> list[float]:
    """Four digits of the largest, at most four of each: −1e−7 becomes 0."""
    array = np.asarray(values, dtype=float)
    digits = 4 - math.ceil(math.log10(max(np.abs(array).max(), 1e-300)))
    return [float(f"{value:.4g}") + 0.0 for value in np.round(array, digits)]


def _packed(array: np.ndarray) -> str:
    """Bytes as text, which a page can hold."""
    return base64.b64encode(array.tobytes()).decode()


def _sprite(stack: np.ndarray, columns: int) -> tuple[dict[str, int], np.ndarray]:
    """What the script must know of a sprite, and the sprite (height, width, C)."""
    stack = pixels.reduced(stack, TILE)
    height, width = stack.shape[-2:]
    size = {"width": width, "height": height, "columns": columns}
    return size, pixels.sprite(stack, columns)


def _uris(sprite: np.ndarray) -> Iterator[dict[str, str]]:
    return ({"sprite": uri} for uri in pixels.uris(sprite))


# --- stills --------------------------------------------------------------------------


def _still_strips(
    stacks: Mapping[str, np.ndarray], positions: Sequence[float], unit: str
) -> tuple[str, int]:
    """A row per direction, of at most seven steps from end to end."""
    count = len(positions)
    steps = np.unique(np.linspace(0, count - 1, min(count, 7)).round().astype(int))
    captions = [f"{positions[i]:.2g} {unit}".rstrip().replace("-", "−") for i in steps]
    rows = {name: images[steps] for name, images in stacks.items()}
    return picture(plots.captioned_rows(rows, captions))


def _still_scatter(
    flat: np.ndarray, label: np.ndarray, names: list[str]
) -> tuple[str, int]:
    """The points, each class named at its centre."""
    figure = Figure(figsize=(plots.WIDTH, 5), facecolor="white", layout="none")
    ax = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    plots.latent_scatter(ax, flat, label, names)
    ax.set(xticks=[], yticks=[])
    return picture(figure)


def _still_draws(
    counts: Sequence[int], rise: np.ndarray, names: tuple[str, str], unit: str
) -> tuple[str, int]:
    """A thin curve per image, and their mean."""
    figure = Figure(figsize=(6.2, 3.2), facecolor="white", layout="constrained")
    ax = figure.add_subplot()
    ax.plot(counts, rise, color=plots.PALETTE[0], alpha=0.3, lw=1)
    ax.plot(counts, rise.mean(1), color=plots.PALETTE[3], lw=2.5)
    ax.axhline(0, color="0.3", ls="--", lw=1.2)
    ax.set(xscale="log", xlabel="samples", ylabel=f"above the {names[0]}, {unit}")
    return picture(figure)


def _still_switches(
    names: Sequence[str],
    states: Sequence[tuple[bool, ...]],
    recordings: Mapping[tuple[bool, ...], str],
    stacks: Mapping[str, np.ndarray],
    label: np.ndarray,
    colors: Sequence[str],
) -> tuple[str, int]:
    """A circle for each state of the switches, at the last moment."""
    columns = min(4, len(states))
    rows = -(-len(states) // columns)
    figure = Figure(figsize=(plots.WIDTH, 2.25 * rows), layout="constrained")
    for place, state in enumerate(states, 1):
        ax = figure.add_subplot(rows, columns, place)
        ax.add_patch(Circle((0, 0), 127, fill=False, ec="0.5"))
        flat = stacks[recordings[state]][-1]
        ax.scatter(*flat.T, s=5, c=np.array(colors)[label], linewidths=0)
        off = [name for name, on in zip(names, state, strict=True) if not on]
        title = "without " + ",\n".join(off) if off else "all on"
        ax.set_title(title, size=9)
        ax.set(xlim=(-140, 140), ylim=(-140, 140), aspect="equal")
        ax.set_axis_off()
    return picture(figure)


def _still_surfaces(
    clouds: Mapping[str, np.ndarray],
    upright: Mapping[str, np.ndarray],
    goal: np.ndarray,
) -> tuple[str, int]:
    """A panel for each recording, at the last moment."""
    wide = plots.WIDTH / len(clouds)
    figure = Figure(figsize=(plots.WIDTH, wide + 0.35), layout="constrained")
    for place, (name, flat) in enumerate(clouds.items(), 1):
        ax = figure.add_subplot(1, len(clouds), place)
        box = (0, 255, 0, 255)
        ax.imshow(upright[name][-1], cmap=plots.SURFACE, extent=box, aspect="equal")
        ax.plot(*goal.T, "k.", ms=2)
        ax.plot(*flat[-1].T, ".", color=plots.PALETTE[1], ms=3)
        ax.set_title(name, size=10)
        ax.set_axis_off()
    return picture(figure)


def picture(figure: Figure) -> tuple[str, int]:
    """A figure's address and its width in CSS pixels."""
    frame = plots.figure_frame(figure, STILL_DPI)
    width = round(figure.get_figwidth() * 100)
    return pixels.data_uri("image/webp", pixels.webp(frame, 80)), width

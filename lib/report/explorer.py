"""Pictures to explore: an image for every place of a plane, every step of a slider, every point of a scatter plot.

Each function takes arrays and returns an :class:`Explorer`, which a notebook cell displays when it is the cell's last
expression. It is one piece of HTML that needs nothing else: its images lie inside it as one large image, and its
behaviour and looks (``explorer.js``, ``explorer.css``) are written into it. It answers to mouse, touch and arrow
keys. Where no script runs, on paper too, a still image stands in its place.
"""

import base64
import hashlib
import html
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import seaborn as sns
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from lib.report import embed, plots

LIMIT = 700_000
"""Bytes of HTML that one explorer may take."""

MOST_POINTS = 1000
"""Points that a scatter plot may have: each brings its image along."""

TILE = 64
"""Pixels: images with a longer side are reduced to it."""

Array = Tensor | np.ndarray


class Explorer:
    """An interactive picture; displayed by a notebook as HTML, by a terminal as its title."""

    def __init__(self, title: str, html: str) -> None:
        self.title, self.html = title, html

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return f"Explorer: {self.title}"


# --- the three pictures ----------------------------------------------------------------------------


def plane(
    images: Array,
    extent: tuple[float, float, float, float],
    points: Array | None = None,
    labels: Array | None = None,
    classes: Sequence[str] | None = None,
    *,
    title: str,
    axes: tuple[str, str] = ("z₁", "z₂"),
    noun: str = "code",
    limit: int = LIMIT,
) -> Explorer:
    """A plane of codes to move over, and the image that is decoded there.

    ``images``
        Decoded images (rows, columns, C, H, W) of a :func:`lattice` over ``extent``, pixels in [0, 1] or uint8.
        Between them the four nearest are blended.
    ``extent``
        (left, right, bottom, top) of the plane, in the codes' unit.
    ``points``, ``labels``, ``classes``
        Codes (N, 2) to draw on the plane, their classes (N,) and the classes' names. Points outside are left out.
    ``title``, ``axes``, ``noun``
        What the picture is, its axes, and what a point is: words for the picture and for those who hear it.

    Raises ValueError for shapes that do not fit, and for more than ``limit`` bytes.
    """
    stack = _images("images", images, 5)
    rows, columns = stack.shape[:2]
    if rows < 2 or columns < 2:
        raise ValueError(f"images: a grid of {rows}×{columns} is no plane; decode a lattice of 2×2 codes or more.")
    left, right, bottom, top = map(float, extent)
    if not (left < right and bottom < top):
        raise ValueError(
            f"extent={tuple(extent)}: (left, right, bottom, top) must rise from left to right and bottom to top."
        )
    data = {"kind": "plane", "extent": [left, right, bottom, top], "axes": list(axes), "noun": noun}
    if points is not None:
        flat, label, names = _labelled(points, labels, classes)
        inside = (flat[:, 0] >= left) & (flat[:, 0] <= right) & (flat[:, 1] >= bottom) & (flat[:, 1] <= top)
        data |= _points(flat[inside], label[inside], names, (left, right, bottom, top))
    sprite = _Sprite(stack.flatten(0, 1), columns)
    return _build(title, data, sprite, None, f"{title}: {rows} rows of {columns} decoded images.", limit)


def strips(
    rows: Mapping[str, Array],
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
        Where the n steps lie along the direction, and in what unit, such as "σ" ("" for none).
    ``numbers``, ``number_name``
        n numbers per direction, such as a critic's score, shown beside the image under this name.
    ``title``, ``start``
        What the picture is; the step that is shown first, by default the middle one.

    Raises ValueError for shapes that do not fit, and for more than ``limit`` bytes.
    """
    if not rows:
        raise ValueError("rows is empty: give images (n, C, H, W) for one direction or more.")
    stacks = {label: _images(f"rows[{label!r}]", images, 4) for label, images in rows.items()}
    shape = next(iter(stacks.values())).shape
    count = len(positions)
    start = count // 2 if start is None else start
    for label, stack in stacks.items():
        if stack.shape != shape or len(stack) != count:
            raise ValueError(
                f"rows[{label!r}] is {tuple(stack.shape)}: all directions need one shape, "
                f"here {(count, *shape[1:])}, with an image for each of the {count} positions."
            )
    if count < 2 or not 0 <= start < count:
        raise ValueError(f"{count} positions, start={start}: give two positions or more, and start at one of them.")
    if numbers is not None and (
        numbers.keys() != stacks.keys() or any(len(values) != count for values in numbers.values())
    ):
        raise ValueError(f"numbers must hold {count} numbers for each of: {', '.join(stacks)}.")
    data = {
        "kind": "strips",
        "names": list(stacks),
        "positions": _rounded(positions),
        "unit": unit,
        "start": start,
        "numbers": numbers and [_rounded(numbers[label]) for label in stacks],
        "number_name": number_name,
    }
    sprite = _Sprite(torch.cat(list(stacks.values())), count)
    span = f"from {positions[0]:g} to {positions[-1]:g} {unit}".rstrip()
    alt = f"{title}: {count} images a row, {span}. Rows from the top: {', '.join(stacks)}."
    return _build(title, data, sprite, None, alt, limit)


def scatter(
    points: Array,
    images: Array,
    labels: Array,
    classes: Sequence[str],
    neighbours: Array | None = None,
    *,
    title: str,
    noun: str = "image",
    near: str = "nearest in code space",
    limit: int = LIMIT,
) -> Explorer:
    """Points in the plane, such as a t-SNE map; the one that is pointed at shows its image and its neighbours.

    ``points``, ``images``, ``labels``, ``classes``
        Places (N, 2) of at most 1,000 images (N, C, H, W), pixels in [0, 1] or uint8, their classes (N,) and the
        classes' names.
    ``neighbours``
        Indices (N, k), nearest first, as from :func:`nearest`. They are found where the codes are, not in the plane.
    ``title``, ``noun``, ``near``
        What the picture is, what a point is, and in what sense the neighbours are near.

    Raises ValueError for shapes that do not fit, and for more than ``limit`` bytes.
    """
    stack = _images("images", images, 4)
    flat, label, names = _labelled(points, labels, classes)
    count = len(stack)
    if len(flat) != count:
        raise ValueError(f"{len(flat)} points and {count} images: give one image per point.")
    if not 2 <= count <= MOST_POINTS:
        raise ValueError(f"{count} points: give 2 to {MOST_POINTS}, for instance the first ones.")
    low, high = flat.amin(0).tolist(), flat.amax(0).tolist()
    data = {"kind": "scatter", "noun": noun, "near": near}
    data |= _points(flat, label, names, (low[0], high[0], low[1], high[1]))
    if neighbours is not None:
        index = torch.as_tensor(neighbours)
        if index.ndim != 2 or len(index) != count or index.is_floating_point():
            raise ValueError(f"neighbours is {tuple(index.shape)}: give whole numbers (N, k) with N = {count}.")
        if index.numel() and not (index.min() >= 0 and index.max() < count):
            raise ValueError(f"neighbours point outside of the {count} images: indices go from 0 to {count - 1}.")
        data["neighbours"] = index.tolist()
    sprite = _Sprite(stack, math.ceil(math.sqrt(count)))
    still = _map(flat.numpy(), label.numpy(), names)
    return _build(title, data, sprite, still, f"{title}: a scatter plot, coloured by class.", limit)


def lattice(extent: tuple[float, float, float, float], rows: int, columns: int) -> Tensor:
    """Codes (rows, columns, 2) over (left, right, bottom, top), in the order that :func:`plane` wants: top first."""
    left, right, bottom, top = extent
    down, across = torch.linspace(top, bottom, rows), torch.linspace(left, right, columns)
    return torch.stack([across.expand(rows, columns), down[:, None].expand(rows, columns)], dim=-1)


def nearest(codes: Array, k: int) -> Tensor:
    """For each of N codes (N, D) the indices (N, k) of its nearest others by Euclidean distance, nearest first.

    For cosine similarity, give codes of length 1. There are N − 1 others, so k is at most that.
    """
    z = torch.as_tensor(codes).double().cpu()
    distance = torch.cdist(z, z, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(torch.inf)
    return distance.argsort(dim=1, stable=True)[:, : min(k, len(z) - 1)]


# --- arrays in, HTML out ---------------------------------------------------------------------------


class _Sprite:
    """Many images as one large one, ``columns`` side by side, without gaps."""

    def __init__(self, stack: Tensor, columns: int) -> None:
        """From uint8 (N, C, H, W)."""
        stack = _reduced(stack)
        count, channels, self.height, self.width = stack.shape
        self.columns, lines = columns, math.ceil(count / columns)
        padding = stack.new_full((lines * columns - count, *stack.shape[1:]), 255)
        grid = torch.cat([stack, padding]).view(lines, columns, channels, self.height, self.width)
        whole = grid.permute(0, 3, 1, 4, 2).reshape(lines * self.height, columns * self.width, channels)
        self.image = Image.fromarray(whole.squeeze(-1).numpy() if channels == 1 else whole.numpy())

    def encodings(self) -> Iterator[tuple[str, bytes]]:
        """As (media type, bytes): without loss, then smaller and smaller."""
        yield "image/png", _save(self.image, "PNG", optimize=True)
        for quality in (90, 75, 60, 45):
            yield "image/webp", _save(self.image, "WEBP", quality=quality, method=6)


def _images(name: str, images: Array, axes: int) -> Tensor:
    """Images as uint8 on the CPU, checked: so many axes, 1 or 3 channels, pixels in [0, 1] if they are not uint8."""
    stack = torch.as_tensor(images).detach().cpu()
    wanted = {4: "(n, C, H, W)", 5: "(rows, columns, C, H, W)"}[axes]
    if stack.ndim != axes or stack.shape[-3] not in (1, 3) or 0 in stack.shape:
        raise ValueError(f"{name} is {tuple(stack.shape)}: images {wanted} with C = 1 or 3 are wanted.")
    if stack.dtype == torch.uint8:
        return stack
    if not stack.is_floating_point() or not (stack.min() >= -1e-4 and stack.max() <= 1 + 1e-4):
        raise ValueError(f"{name} has pixels outside [0, 1]: clip them with .clamp(0, 1), or give uint8 from 0 to 255.")
    return plots.to_bytes(stack)


def _reduced(stack: Tensor) -> Tensor:
    """Images (N, C, H, W) with no side longer than TILE."""
    factor = TILE / max(stack.shape[-2:])
    if factor >= 1:
        return stack
    size = [max(1, round(side * factor)) for side in stack.shape[-2:]]
    return plots.to_bytes(
        torch.nn.functional.interpolate(stack.float() / 255, size=size, mode="bilinear", antialias=True)
    )


def _labelled(points: Array, labels: Array | None, classes: Sequence[str] | None) -> tuple[Tensor, Tensor, list[str]]:
    """Points (N, 2), their labels (N,) and the classes' names, checked; one unnamed class where none are given."""
    flat = torch.as_tensor(points).detach().cpu().float()
    if flat.ndim != 2 or flat.shape[1] != 2 or not flat.isfinite().all():
        raise ValueError(f"points is {tuple(flat.shape)}: finite numbers (N, 2) are wanted.")
    if (labels is None) != (classes is None):
        raise ValueError("labels and classes go together: give both or neither.")
    if labels is None:
        return flat, torch.zeros(len(flat), dtype=torch.long), [""]
    label = torch.as_tensor(labels).detach().cpu()
    if label.shape != flat.shape[:1] or label.is_floating_point():
        raise ValueError(f"labels is {tuple(label.shape)}: whole numbers ({len(flat)},), one per point, are wanted.")
    if label.numel() and not (label.min() >= 0 and label.max() < len(classes)):
        raise ValueError(f"labels go from {label.min()} to {label.max()}, but there are {len(classes)} classes.")
    return flat, label.long(), [str(name) for name in classes]


def _points(flat: Tensor, label: Tensor, names: list[str], bounds: tuple[float, float, float, float]) -> dict[str, Any]:
    """Points for the page: whole thousandths of the plane's width and height, from its upper left corner."""
    left, right, bottom, top = bounds
    x = (flat[:, 0] - left) / max(right - left, 1e-12)
    y = (top - flat[:, 1]) / max(top - bottom, 1e-12)
    return {
        "x": (1000 * x).round().int().tolist(),
        "y": (1000 * y).round().int().tolist(),
        "labels": label.tolist(),
        "classes": names,
        "colors": _colors(len(names)),
    }


def _colors(count: int) -> list[str]:
    return list(sns.color_palette("colorblind" if count <= 10 else "husl", count).as_hex())


def _map(flat: np.ndarray, label: np.ndarray, names: list[str]) -> bytes:
    """The still image of a scatter plot, as PNG."""
    figure = Figure(figsize=(plots.WIDTH, 5), dpi=100, facecolor="white", layout="none")
    ax = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    plots.latent_scatter(ax, flat, label, names)
    ax.set(xticks=[], yticks=[])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return _save(Image.open(buffer).convert("RGB").quantize(64, dither=Image.Dither.NONE), "PNG", optimize=True)


def _build(title: str, data: dict[str, Any], sprite: _Sprite, still: bytes | None, alt: str, limit: int) -> Explorer:
    """The page's piece, with the first encoding that fits; without a still, the sprite is it."""
    data |= {"title": title, "width": sprite.width, "height": sprite.height, "columns": sprite.columns}
    size = 0
    for media_type, encoded in sprite.encodings():
        picture = _data_uri(media_type, encoded)
        if still is not None:
            data["sprite"] = picture
            picture = _data_uri("image/png", still)
        # "</" would end the script, "<!--" hide the rest of it.
        text = json.dumps(data, separators=(",", ":"), sort_keys=True).replace("<", "\\u003c")
        width = sprite.image.width * max(1, round(640 / sprite.image.width)) if still is None else 750
        mark = hashlib.sha256((text + picture).encode()).hexdigest()[:12]
        piece = (
            f'<div class="lwl-explorer" data-explorer="{mark}" data-lm-suppress-shortcuts="true">'
            f'<img class="dark-light" src="{picture}" alt="{html.escape(alt)}" '
            f'style="width: {width}px; max-width: 100%; image-rendering: {"auto" if still else "pixelated"}; '
            'background: #fff"></div>\n'
            f'<script type="application/json" data-explorer-data="{mark}">{text}</script>\n{embed.script()}\n'
        )
        size = len(piece.encode())
        # What is kept without loss may take half: the eye gains nothing from the rest, and a notebook holds more.
        if size <= (limit // 2 if media_type == "image/png" else limit):
            return Explorer(title, piece)
    raise ValueError(
        f"This explorer takes {size:,} bytes, even with its images compressed; {limit:,} are allowed. "
        "Give fewer images (a coarser grid, fewer steps or points) or smaller ones."
    )


def _save(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


def _data_uri(media_type: str, encoded: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(encoded).decode()}"


def _rounded(values: Sequence[float]) -> list[float]:
    """Four digits of the largest, at most four of each: a linspace's middle of -1e-7 becomes 0."""
    array = np.asarray(values, dtype=float)
    digits = 4 - math.ceil(math.log10(max(np.abs(array).max(), 1e-300)))
    return [float(f"{value:.4g}") + 0.0 for value in np.round(array, digits)]

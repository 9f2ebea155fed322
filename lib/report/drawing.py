"""A pad to draw on, and small networks that encode and decode in the reader's browser.

The networks are multilayer perceptrons with eight-bit weights, as
:func:`lib.quantise.quantise` makes them; ``drawing.js`` computes with them.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from lib.report import embed, explorer, pixels, plots
from lib.report.embed import Explorer
from lib.report.results import Results

LIMIT = 8_000_000
"""Bytes of HTML: a pair for 28×28 pixels takes a few hundred thousand."""


class Network(NamedTuple):
    """Linear layers with ReLUs between them, in flat arrays."""

    sizes: np.ndarray
    """Numbers in, between layers, and out."""
    weights: np.ndarray
    """int8, row by row and layer after layer."""
    scale: np.ndarray
    """float32, one a row: a weight is its int8 times this."""
    bias: np.ndarray
    """float32, one a row."""

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Numbers (N, sizes[0]) to (N, sizes[-1])."""
        weights, rows = self.weights.astype(np.float32), 0
        for layer, (wide, count) in enumerate(
            zip(self.sizes[:-1], self.sizes[1:], strict=True)
        ):
            matrix, weights = np.split(weights, [wide * count])
            matrix = matrix.reshape(count, wide) * self.scale[rows : rows + count, None]
            x = x @ matrix.T + self.bias[rows : rows + count]
            rows += count
            x = np.maximum(x, 0) if layer < len(self.sizes) - 2 else x
        return x

    def packed(self) -> dict[str, Any]:
        """For the page: the arrays' bytes as text, little-endian."""
        kinds = {"weights": "<i1", "scale": "<f4", "bias": "<f4"}
        parts = {
            name: base64.b64encode(getattr(self, name).astype(kind).tobytes()).decode()
            for name, kind in kinds.items()
        }
        return {"sizes": self.sizes.tolist(), **parts}


class Pair(NamedTuple):
    """An encoder to codes of two numbers (or their means first), and a decoder."""

    encoder: Network
    decoder: Network
    codes: np.ndarray
    """Codes (N, 2) of test images."""


def pair(results: Results, name: str) -> Pair:
    """The pair that a chapter kept as ``drawing_vae_encoder_…`` and its codes,
    ``drawing_codes_vae``, by its ``name``, here "drawing_vae".
    """
    halves = (
        Network(*(results.array(f"{name}_{half}_{kind}") for kind in Network._fields))
        for half in ("encoder", "decoder")
    )
    prefix, _, key = name.rpartition("_")
    return Pair(*halves, results.array(f"{prefix}_codes_{key}"))


def drawing(
    pairs: Mapping[str, Pair],
    labels: Any,
    classes: Sequence[str],
    examples: Any,
    *,
    title: str,
    limit: int = LIMIT,
) -> Explorer:
    """A pad, and beside it the plane of codes and the answer of each named pair.

    ``labels``, ``classes``
        Classes (N,) of the codes, and their names.
    ``examples``
        Images uint8 (n, C, H, W) to take where nothing is drawn. Colour images are
        not drawn on a pad, only taken.

    Raises ValueError for pairs that do not fit the images.
    """
    stack = pixels.as_array(examples)
    size = int(np.prod(stack.shape[1:]))
    for name, one in pairs.items():
        if one.encoder.sizes[0] != size or one.decoder.sizes[-1] != size:
            raise ValueError(
                f"{name}: a pair for {one.encoder.sizes[0]} and "
                f"{one.decoder.sizes[-1]} pixels; the examples have {size}."
            )
        if one.decoder.sizes[0] != 2 or one.codes.shape[1:] != (2,):
            raise ValueError(f"{name}: codes of two numbers are wanted.")
    planes = {name: _extent(one.codes) for name, one in pairs.items()}
    data = {
        "kind": "drawing",
        "shape": list(stack.shape[1:]),
        "classes": list(classes),
        "colors": plots.class_colors(len(classes)),
        "pairs": [
            _page_pair(name, pairs[name], planes[name], labels) for name in pairs
        ],
        "examples": base64.b64encode(stack.astype(np.uint8).tobytes()).decode(),
    }
    still = _still(pairs, planes, stack.shape[1:])
    alt = f"{title}: what is decoded over the plane of codes."
    return embed.build(title, data, [{}, {}], *still, alt, limit)


def _page_pair(name: str, one: Pair, extent: explorer.Extent, labels: Any) -> dict:
    left, right, bottom, top = extent
    x, y = one.codes.astype(np.float32).T
    inside = (x >= left) & (x <= right) & (y >= bottom) & (y <= top)
    return {
        "name": name,
        "extent": list(extent),
        "encoder": one.encoder.packed(),
        "decoder": one.decoder.packed(),
        "x": np.rint(1000 * (x - left) / (right - left))[inside].astype(int).tolist(),
        "y": np.rint(1000 * (top - y) / (top - bottom))[inside].astype(int).tolist(),
        "labels": pixels.as_array(labels)[inside].tolist(),
    }


def _extent(codes: np.ndarray) -> explorer.Extent:
    """A square around all codes but the outermost, as (left, right, bottom, top)."""
    low, high = np.quantile(codes.astype(np.float32), [0.005, 0.995], axis=0)
    half = 0.55 * float((high - low).max())
    x, y = map(float, (low + high) / 2)
    left, right, bottom, top = x - half, x + half, y - half, y + half
    return round(left, 3), round(right, 3), round(bottom, 3), round(top, 3)


def decoded(one: Pair, shape: tuple[int, ...], side: int) -> np.ndarray:
    """What a pair decodes over its plane: uint8 (side, side, C, H, W), top row first.

    ``shape`` is (C, H, W).
    """
    z = explorer.lattice(_extent(one.codes), side, side).reshape(-1, 2)
    images = 1 / (1 + np.exp(-one.decoder(z).clip(-50, 50)))
    return pixels.to_bytes(images.reshape(side, side, *shape))


def _still(
    pairs: Mapping[str, Pair],
    planes: Mapping[str, explorer.Extent],
    shape: tuple[int, ...],
    side: int = 12,
) -> tuple[str, int]:
    """For each pair, what is decoded on a lattice over its plane."""
    figure = Figure(figsize=(4.2 * len(pairs), 4.4), layout="constrained")
    figure.set_facecolor("white")
    for ax, (name, one) in zip(
        figure.subplots(1, len(pairs), squeeze=False)[0], pairs.items(), strict=True
    ):
        grid = pixels.sprite(decoded(one, shape, side).reshape(-1, *shape), side)
        ax.imshow(pixels.to_rgb(grid.transpose(2, 0, 1)[None])[0], extent=planes[name])
        ax.set(title=name, xlabel="z₁", ylabel="z₂")
        ax.grid(False)
    return explorer.picture(figure)

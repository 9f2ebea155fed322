"""Two photographs to pick, their mixture, and what networks make of it.

:func:`pairs` returns an :class:`~lib.report.embed.Explorer`. It answers to mouse, touch
and keys; where no script runs, and on paper, a still image stands in its place.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lib.report import embed, pixels, plots
from lib.report.embed import Explorer

LIMIT = 450_000
"""Bytes of HTML that one mixer may take."""


def pairs(
    photos: Any,
    names: Sequence[str],
    answers: Mapping[str, Any],
    weights: Sequence[float],
    gains: Mapping[str, Sequence[float]],
    *,
    title: str,
    start: tuple[int, int] = (0, 1),
    limit: int = LIMIT,
) -> Explorer:
    """Any two of P photographs, mixed with one of W weights, and the answers to that.

    ``photos``, ``names``
        Images uint8 (P, C, H, W) and what each shows.
    ``answers``
        For each network by name, its answer for the first image, uint8
        (P (P − 1) / 2, W, C, H, W), pairs in the order of
        ``itertools.combinations``. The two answers average to the mixture, so the
        second is found from the first.
    ``weights``
        The first image's weights, W of them with 0.5 among them.
    ``gains``
        For each network and pair, dB of PSNR above the mixture's at the weight 0.5.
    ``title``, ``start``
        What the picture is; the two photographs that are mixed first, i < j.

    Raises ValueError for shapes that do not fit, and for more than ``limit`` bytes.
    """
    photos = pixels.as_array(photos)
    every = list(itertools.combinations(range(len(photos)), 2))
    shape = len(every), len(weights), *photos.shape[1:]
    stacks = {name: pixels.as_array(stack) for name, stack in answers.items()}
    for name, stack in {"photos": photos, **stacks}.items():
        if stack.dtype != np.uint8 or (name in stacks and stack.shape != shape):
            raise ValueError(
                f"{name} is {stack.dtype} {stack.shape}: uint8 is wanted, answers of "
                f"shape {shape}."
            )
    if len(names) != len(photos) or tuple(start) not in every or 0.5 not in weights:
        raise ValueError(
            f"{len(photos)} photographs need as many names, a start i < j among them, "
            "and a weight of 0.5 among the weights."
        )
    if gains.keys() != stacks.keys() or {len(v) for v in gains.values()} != {
        len(every)
    }:
        raise ValueError(f"gains: {len(every)} numbers for each network are wanted.")
    data = {
        "kind": "mixer",
        "photos": list(names),
        "networks": list(stacks),
        "weights": list(map(float, weights)),
        "gains": [[round(float(gain), 1) for gain in gains[name]] for name in stacks],
        "start": list(start),
    }
    whole = [
        photos,
        *(stack.reshape(-1, *photos.shape[1:]) for stack in stacks.values()),
    ]
    height, width = photos.shape[2:]
    columns = 4 * len(photos)
    data |= {"width": width, "height": height, "columns": columns}
    sprite = pixels.sprite(np.concatenate(whole), columns)
    chosen = every.index(tuple(start)), list(weights).index(0.5)
    still = _still(photos[list(start)], {n: s[chosen] for n, s in stacks.items()})
    alt = f"{title}: two photographs, their average, and the answers to it by "
    alt += " and by ".join(stacks)
    sprites = ({"sprite": uri} for uri in pixels.uris(sprite))
    return embed.build(title, data, sprites, *still, alt + ".", limit)


def _still(photos: np.ndarray, firsts: Mapping[str, np.ndarray]) -> tuple[str, int]:
    """A row of pictures: the two photographs, their average, and both answers."""
    twice = photos.astype(int).sum(0)
    columns = {"first": photos[0], "second": photos[1], "average": twice // 2}
    for name, first in firsts.items():
        columns |= {name: first, f"{name} ": np.clip(twice - first, 0, 255)}
    row = np.stack(list(columns.values())).astype(np.uint8)
    figure = plots.captioned_rows({"": row}, list(columns))
    frame = plots.figure_frame(figure, 120)
    return pixels.data_uri("image/webp", pixels.webp(frame, 80)), 750

"""Animations with a small player: play, pause, scrub.

:func:`animation` shows frames, :func:`walk` labelled rows of images that change. The
player answers to mouse, touch and keys (space, arrows). It plays once by itself when
it comes into view, not where a reader prefers less motion; where no script runs, and
on paper, one of its frames stands in its place.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lib.report import embed, pixels, plots
from lib.report.embed import Explorer

LIMIT = 500_000
"""Bytes of HTML that one animation may take."""

TILE = 64
"""Pixels: the images of a walk with a longer side are reduced to it."""

DENSITY = 2
"""Pixels of a frame per CSS pixel: sharp on phones and on paper."""


def animation(
    frames: Any,
    *,
    title: str,
    seconds: float = 4.0,
    hold: float = 0.8,
    labels: Sequence[str] | None = None,
    still: int | None = None,
    back: bool = False,
    limit: int = LIMIT,
) -> Explorer:
    """Frames uint8 (T, height, width, 3) to play, pause and scrub through.

    ``title``, ``labels``
        What is shown, in words; what the player says at each of the T frames, by
        default its number.
    ``seconds``, ``hold``
        Seconds from the first frame to the last, and of rest at either end.
    ``still``
        The frame that is shown before it plays, and on paper: by default the middle.
    ``back``
        Play there and back, instead of starting over.

    A frame stands :data:`DENSITY` pixels per CSS pixel: figures as wide as the page
    have 184 dots per inch. Raises ValueError for fewer than two frames, for ``labels``
    or a ``still`` that do not fit them, and for more than ``limit`` bytes.
    """
    frames = pixels.as_array(frames)
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        raise ValueError(
            f"frames is {frames.dtype} {frames.shape}: uint8 (T, height, width, 3) is "
            "wanted."
        )
    count, height, width = frames.shape[:3]
    data = _timing(count, seconds, hold, labels, still, back)
    data |= {"width": width, "height": height, "density": DENSITY}
    shown = data["start"]
    picture = pixels.data_uri("image/webp", pixels.webp(frames[shown], 80))
    alt = f"{title}: one of {count} frames, {data['labels'][shown]}."
    return embed.build(
        title, data, _encodings(frames), picture, width // DENSITY, alt, limit
    )


def walk(
    rows: Mapping[str, Any],
    *,
    title: str,
    seconds: float = 3.0,
    hold: float = 0.8,
    labels: Sequence[str] | None = None,
    still: int | None = None,
    back: bool = True,
    limit: int = LIMIT,
) -> Explorer:
    """Labelled rows of images that change, to play, pause and scrub through.

    ``rows``
        Images (T, N, C, H, W) per label, all of one shape, pixels in [0, 1] or uint8:
        N side by side, at T moments.

    The rest is as for :func:`animation`.
    """
    stacks = [pixels.as_array(images) for images in rows.values()]
    if len({stack.shape for stack in stacks}) != 1 or stacks[0].ndim != 5:
        shapes = ", ".join(str(stack.shape) for stack in stacks) or "empty"
        raise ValueError(
            f"rows are {shapes}: images (T, N, C, H, W) of one shape are wanted."
        )
    moments, count = stacks[0].shape[:2]
    data = _timing(moments, seconds, hold, labels, still, back)
    tiles = [_bytes(stack) for stack in stacks]
    # Moment by moment, in each row by row.
    whole = np.stack(tiles, axis=1).reshape(-1, *tiles[0].shape[2:])
    whole = pixels.reduced(whole, TILE)
    height, width = whole.shape[-2:]
    data |= {"width": width, "height": height, "columns": count, "rows": list(rows)}
    shown = data["start"]
    figure = plots.image_rows(
        {label: stack[shown] for label, stack in zip(rows, tiles, strict=True)}
    )
    frame = plots.figure_frame(figure, 100 * DENSITY)
    picture = pixels.data_uri("image/webp", pixels.webp(frame, 80))
    alt = f"{title}: one of {moments} moments, {data['labels'][shown]}. "
    alt += f"Rows from the top: {', '.join(rows)}."
    sprites = ({"sprite": uri} for uri in pixels.uris(pixels.sprite(whole, count)))
    page = round(100 * plots.WIDTH)
    return embed.build(title, data, sprites, picture, page, alt, limit)


def _timing(
    count: int,
    seconds: float,
    hold: float,
    labels: Sequence[str] | None,
    still: int | None,
    back: bool,
) -> dict[str, Any]:
    """What the script must know of when each of ``count`` frames is shown."""
    still = count // 2 if still is None else still
    if count < 2 or not 0 <= still < count:
        raise ValueError(
            f"{count} frames, still={still}: give two frames or more, and one of them "
            "as the still."
        )
    if labels is not None and len(labels) != count:
        raise ValueError(f"{len(labels)} labels for {count} frames.")
    return {
        "kind": "player",
        "step": seconds / (count - 1),
        "hold": hold,
        "start": still,
        "back": back,
        "labels": list(labels or [f"{i + 1} of {count}" for i in range(count)]),
    }


def _bytes(images: np.ndarray) -> np.ndarray:
    return images if images.dtype == np.uint8 else pixels.to_bytes(images)


def _encodings(frames: np.ndarray) -> Iterator[dict[str, list[str]]]:
    """The frames' addresses: all without loss, then all smaller and smaller."""
    every = zip(*(pixels.uris(frame) for frame in frames), strict=True)
    return ({"frames": list(uris)} for uris in every)

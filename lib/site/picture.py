"""The README's moving picture: ``python -m lib.site.picture``.

A walk over the map of images that chapter 1's VAE draws, from its published results:
the map with a mark, and the image at the mark. Nothing is drawn in between.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from lib.files import ROOT, atomic_write
from lib.report import drawing
from lib.report.results import Results
from lib.site import contents, published

PICTURE = ROOT / "book" / "images" / "walk.webp"
SIDE = 252
"""Pixels of the map's side, and of the image's."""
ROWS = 21
"""Images on each side of the map."""
STEPS = 40
ACCENT = (222, 143, 5)


def frames(images: np.ndarray) -> list[Image.Image]:
    """The walk over images (rows, columns, 1, H, W) uint8, once around."""
    rows, columns, _, height, width = images.shape
    tiled = images[:, :, 0].swapaxes(1, 2).reshape(rows * height, columns * width)
    ground = Image.fromarray(tiled).convert("RGB").resize((SIDE, SIDE))
    found = []
    for angle in np.linspace(0, 2 * np.pi, STEPS, endpoint=False):
        # Four loops through the middle, where most codes are.
        radius = 0.46 * np.cos(2 * angle)
        column = int(columns * (0.5 + radius * np.cos(angle)))
        row = int(rows * (0.5 + radius * np.sin(angle)))
        frame = Image.new("RGB", (2 * SIDE + 8, SIDE), "white")
        frame.paste(ground, (0, 0))
        left, top = column * SIDE / columns, row * SIDE / rows
        place = (left - 2, top - 2, left + SIDE / columns + 2, top + SIDE / rows + 2)
        ImageDraw.Draw(frame).rectangle(place, outline=ACCENT, width=3)
        image = Image.fromarray(images[row, column, 0]).convert("RGB")
        frame.paste(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC), (SIDE + 8, 0))
        found.append(frame)
    return found


def save(path: Path = PICTURE, root: Path = ROOT) -> None:
    """Write the picture of the first chapter's published results."""
    first = contents.chapters(root)[0]
    results = Results.read(published.paths(first, root))
    shape = tuple(results.array("inputs").shape[1:])
    images = drawing.decoded(drawing.pair(results, "drawing_vae"), shape, ROWS)
    first_frame, *others = frames(images)
    more = {"append_images": others, "duration": 180, "loop": 0}
    with atomic_write(path) as temporary:
        first_frame.save(temporary, save_all=True, quality=70, method=2, **more)


if __name__ == "__main__":
    sys.exit(save())

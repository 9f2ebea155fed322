"""Images that are made for each batch, none of them twice: digits on photographs.

What is made of pieces can be made endlessly, and then a network that has learned a
training set by heart has learned nothing. Batches come from a source that draws, not
from a set that is kept.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lib import data
from lib.data import Split, to_unit

DIGITS = {"photo_digits": "digits", "photo_mnist": "mnist"}
"""Sets that can be made endlessly, and the digits that each is made of."""

SIDE = 32
"""Pixels on each side of a made image."""


@dataclass(frozen=True)
class Blends:
    """Digits subtracted from patches of photographs: |patch − digit| in each colour, as
    MNIST-M has it (Ganin et al., 2016).
    """

    digits: Split
    """Images uint8 (N, 1, 32, 32) and their labels."""
    photos: Tensor
    """uint8 (P, 3, H, W)."""

    def draw(self, count: int, generator: torch.Generator) -> Split:
        """``count`` random digits, each on a random patch of a random photograph.

        Numbers are drawn on the CPU, from its ``generator``, and images are made where
        digits and photographs lie.
        """

        def numbers(high: int) -> Tensor:
            drawn = torch.randint(high, (count,), generator=generator)
            return drawn.to(self.photos.device)

        _, _, height, width = self.photos.shape
        digit, photo = numbers(len(self.digits)), numbers(len(self.photos))
        top, left = numbers(height - SIDE + 1), numbers(width - SIDE + 1)
        span = torch.arange(SIDE, device=self.photos.device)
        rows = (top[:, None] + span)[:, :, None]
        columns = (left[:, None] + span)[:, None, :]
        # Advanced indices around the colours put these last.
        patches = self.photos[photo[:, None, None], :, rows, columns]
        patches = patches.permute(0, 3, 1, 2).short()
        blended = (patches - self.digits.images[digit]).abs().byte()
        return Split(blended.contiguous(), self.digits.labels[digit])


def sources(
    name: str,
    root: str | Path | None = None,
    validation: bool = False,
    device: torch.device | str = "cpu",
) -> tuple[Blends, Blends, Blends]:
    """Three sources for ``name``: to train on, to measure distances from, and to
    compare with, the last two of equally many digits.

    All digits of the set, training and test, are shuffled and cut into five parts. The
    first three train. The last one, or with ``validation`` the one before, is cut in
    half for the other two sources. All use the same photographs, whole: nothing but the
    digits is new, and these come from the same writers. Raises
    :class:`~lib.data.DataError` if the digits cannot be had.
    """
    digits = data.load(DIGITS[name], root)
    images = torch.cat([digits.train.images, digits.test.images])
    labels = torch.cat([digits.train.labels, digits.test.labels])
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    fifths = order.tensor_split(5)
    halves = fifths[3 if validation else 4].tensor_split(2)
    photos = photographs().to(device)
    first, second, third = (
        Blends(Split(_framed(images[part]), labels[part]).to(device), photos)
        for part in (torch.cat(fifths[:3]), *halves)
    )
    return first, second, third


def photographs() -> Tensor:
    """The two photographs that come with scikit-learn, uint8 (2, 3, 427, 640)."""
    from sklearn.datasets import load_sample_images

    photos = [torch.from_numpy(photo.copy()) for photo in load_sample_images().images]
    return torch.stack(photos).permute(0, 3, 1, 2).contiguous()


def _framed(images: Tensor) -> Tensor:
    """Digits in the middle of 32×32 pixels."""
    margin = (SIDE - images.shape[-1]) // 2
    return F.pad(images, (margin,) * 4)


def made(
    name: str, parts: Sequence[Blends], counts: Sequence[int], seed: int = 0
) -> data.ImageData:
    """A set of so many images from each of :func:`sources`.

    Those of the last two are its test split, in this order.
    """
    title = {
        "photo_digits": "digits on photographs",
        "photo_mnist": "MNIST on photographs",
    }
    train, *others = (
        source.draw(count, torch.Generator().manual_seed(3 * seed + place))
        for place, (source, count) in enumerate(zip(parts, counts, strict=True))
    )
    images = torch.cat([split.images for split in others])
    test = Split(images, torch.cat([split.labels for split in others]))
    return data.ImageData(name, title[name], data.DIGITS, train, test)


class Endless:
    """Batches of images that a source draws, pixels in [0, 1], as float32.

    It takes the place of :class:`~lib.train.Batches` where there is no end of examples.
    """

    drop_last = False

    def __init__(self, source: Blends, batch_size: int, seed: int = 0) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: at least one image.")
        self.source, self.batch_size = source, batch_size
        self.tensors = (source.digits.images, source.digits.labels, source.photos)
        self._generator = torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        return self

    def __next__(self) -> tuple[Tensor, ...]:
        drawn = self.source.draw(self.batch_size, self._generator)
        return to_unit(drawn.images), drawn.labels

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._generator.set_state(state["generator"])

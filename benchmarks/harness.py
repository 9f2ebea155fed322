"""Ways of doing one piece of work, timed against each other in one run.

Machines differ and are shared, so a time says little and a ratio of times more: all ways take turns, and a ratio is
that of two turns next to each other. What is reported is the median over turns, and the quartiles around it.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import to_tensor

from lib.report.chapter import peak_resident_bytes

Way = Callable[[int], object]
"""Does so many units of the work, such as training steps."""


@dataclass(frozen=True)
class Case:
    """One piece of work.

    ``ways`` by name; the one called "ours" is compared with all others. "limit" is the same step on one fixed batch
    and nothing else, "tutorial" a loop as it is usually written, "peer" another library's. ``bars`` are the least
    times as long that another way must take; below 1 for the limit, which nothing beats.
    """

    name: str
    ways: Mapping[str, Way]
    units: int
    images: int
    bars: Mapping[str, float] = field(default_factory=dict)
    unit: str = "training step"


def measure(case: Case, turns: int, clock: Callable[[], float] = time.perf_counter) -> dict[str, Any]:
    """Milliseconds a unit for each way, and how many times as long as ours each takes."""
    taken: dict[str, list[float]] = {name: [] for name in case.ways}
    for turn in range(turns + 1):
        for name, way in case.ways.items():
            start = clock()
            way(case.units)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:  # the first one warms up
                taken[name].append(1e3 * (clock() - start) / case.units)
    ratios = {
        name: [theirs / ours for theirs, ours in zip(times, taken["ours"], strict=True)]
        for name, times in taken.items()
        if name != "ours"
    }
    return {
        "name": case.name,
        "unit": case.unit,
        "images_per_second": 1e3 * case.images / statistics.median(taken["ours"]),
        "milliseconds": {name: spread(times) for name, times in taken.items()},
        "times_as_long": {name: spread(values) for name, values in ratios.items()},
        "bars": dict(case.bars),
    }


def spread(values: list[float]) -> list[float]:
    """Median, lower and upper quartile."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return [round(value, 4) for value in (statistics.median(values), low, high)]


def peak_memory() -> float:
    """GB that this process has held at most; 0 where the system does not tell."""
    return (peak_resident_bytes() or 0) / 1e9


def repeated(step: Callable[[Any], object], batch: Any) -> Way:
    """The limit: a step, again and again on one batch."""

    def way(units: int) -> None:
        for _ in range(units):
            step(batch)

    return way


def looped(step: Callable[[Any], Tensor], batches: Iterator[Any]) -> Way:
    """The tutorial's loop: the next batch, a step, and its loss printed."""

    def way(units: int) -> None:
        for _ in range(units):
            step(next(batches)).item()

    return way


class OneByOne(Dataset):
    """uint8 images (N, C, H, W) as Pillow images, each made a tensor when it is asked for: torchvision's sets."""

    def __init__(self, images: Tensor, transform: Callable[[Image.Image], Any] = to_tensor) -> None:
        self.images = [
            Image.fromarray(image.squeeze(0).numpy() if len(image) == 1 else image.permute(1, 2, 0).numpy())
            for image in images
        ]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(self.images[index]), index


def endless(images: Tensor, size: int, transform: Callable[[Image.Image], Any] = to_tensor) -> Iterator[Any]:
    """Batches of a shuffling DataLoader, over and over: images (or what ``transform`` makes of them) and indices."""
    loader = DataLoader(OneByOne(images, transform), batch_size=size, shuffle=True, drop_last=True)
    while True:
        yield from loader

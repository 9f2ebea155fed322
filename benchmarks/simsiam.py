"""SimSiam's batched views against per-image transforms, on one machine in one run: ``python benchmarks/simsiam.py``.

Two limits: making the views is at most 20 % of a training step, and views and step together are at least
twice as fast as with torchvision's transforms called image by image in a DataLoader, whichever of its
settings is fastest, for the same network. Exits with 1 if one is missed. Images and weights are random;
the time does not depend on them. On a machine that others use, ``--clock cpu`` counts processor time
instead, without worker processes, whose time it does not see.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from lib import nets, simsiam, views
from lib.train import Batches, GradientStep

SHARE, RATIO = 0.2, 2.0
Pair = tuple[Tensor, Tensor]


class PerImage(Dataset):
    """Two views of each image by torchvision's transforms, from Pillow images or from tensors."""

    def __init__(self, images: Tensor, pillow: bool) -> None:
        self.images = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images] if pillow else list(images)
        jitter = v2.ColorJitter(0.4, 0.4, 0.4, 0.1)
        self.view = v2.Compose(
            [
                v2.RandomResizedCrop(images.shape[-1], scale=(0.2, 1)),
                v2.RandomHorizontalFlip(),
                v2.RandomApply([jitter], 0.8),
                v2.RandomGrayscale(0.2),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Pair:
        image = self.images[index]
        return self.view(image), self.view(image)


def per_image(images: Tensor, batch: int, pillow: bool, workers: int) -> Iterator[Pair]:
    loader = DataLoader(
        PerImage(images, pillow),
        batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    while True:
        yield from loader


def batched(images: Tensor, batch: int) -> Iterator[Pair]:
    augment = views.Augmentation()
    for (x,) in Batches(images, batch_size=batch, drop_last=True):
        yield augment(x), augment(x)


def milliseconds(call: Callable[[], object], repeats: int, clock: Callable[[], float]) -> float:
    """The median over repeats, after two that warm up."""
    found = []
    for _ in range(repeats + 2):
        start = clock()
        call()
        found.append(1e3 * (clock() - start))
    return statistics.median(found[2:])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--blocks", type=int, nargs="+", default=[1, 1, 1])
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    options = parser.parse_args()
    clock, workers_tried = {"wall": (time.perf_counter, (0, 1, 2)), "cpu": (time.process_time, (0,))}[options.clock]
    torch.manual_seed(0)
    features = options.width * 2 ** (len(options.blocks) - 1)
    encoder = nets.small_resnet(3, options.width, options.blocks)
    model = simsiam.build(encoder, features, options.dim, options.hidden)
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    step = GradientStep(model, model.loss, optimizer)
    # So few that an epoch ends now and then, as it does in training.
    images = torch.randint(256, (20 * options.batch, 3, 32, 32), dtype=torch.uint8)

    ours = batched(images, options.batch)
    viewing = milliseconds(lambda: next(ours), options.repeats, clock)
    whole = milliseconds(lambda: step(next(ours)), options.repeats, clock)
    print(f"batch {options.batch}, {torch.get_num_threads()} threads, {nets.count_parameters(model):,} parameters")
    print(f"batched views {viewing:.0f} ms, views and step {whole:.0f} ms: {viewing / whole:.0%} (at most {SHARE:.0%})")
    theirs = {}
    for pillow in (True, False):
        for workers in workers_tried:
            name = f"{'Pillow' if pillow else 'tensors'}, {workers} workers"
            pairs = per_image(images, options.batch, pillow, workers)
            theirs[name] = milliseconds(lambda pairs=pairs: step(next(pairs)), options.repeats, clock)
            print(f"per image, {name}: {theirs[name]:.0f} ms, {theirs[name] / whole:.1f} times as long")
            del pairs
    fastest = min(theirs.values())
    print(f"the fastest of them: {fastest / whole:.2f} times as long (at least {RATIO:g})")
    missed = viewing / whole > SHARE or fastest / whole < RATIO
    print("MISSED" if missed else "both limits held")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())

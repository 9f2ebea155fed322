"""How time and memory grow: with images, batch size, samples, chains, latent size. Exponents of fitted power laws."""

import itertools
import multiprocessing
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks import harness, likelihood, simsiam
from lib import annealing, evaluate, train, unmix
from lib import likelihood as estimates

Work = Callable[[int], Callable[[], object]]
"""From a size to what is timed at that size; making it is not timed."""


def images_of_an_epoch(count: int) -> Callable[[], object]:
    from benchmarks import autoencoders

    batches = train.Batches(torch.randint(256, (count, 1, 28, 28), dtype=torch.uint8), batch_size=128)
    step = autoencoders.our_step()
    return lambda: train.fit(step, batches, len(batches))


def batch_of_views(count: int) -> Callable[[], object]:
    step, x = simsiam.our_step(), torch.rand(count, 3, 32, 32)
    return lambda: step((x,))


def samples(K: int) -> Callable[[], object]:
    model, x = likelihood.our_vae(), estimates.binarise(torch.rand(4, 1, 28, 28))
    return lambda: estimates.importance_sampling(model, x, K)


def chains(count: int) -> Callable[[], object]:
    model, x = likelihood.our_vae(), estimates.binarise(torch.rand(4, 1, 28, 28))
    path = annealing.tune(model, x, 5)
    return lambda: annealing.lower(model, x, path, count)


def bank(count: int) -> Callable[[], object]:
    z, tests = torch.randn(count, 128), torch.randn(500, 128)
    return lambda: evaluate.nearest_codes(z, tests, 200)


def searched(count: int) -> Callable[[], object]:
    images = torch.rand(count, 3, 32, 32)
    m = (images[:4] + images[4:8]) / 2
    return lambda: unmix.search(m, images)


def compared(count: int) -> Callable[[], object]:
    a, b = torch.randn(count, 64), torch.randn(count, 64)
    return lambda: evaluate.manifold_scores(a, b)


WORK: dict[str, tuple[Work, list[int], float]] = {
    "training images of an epoch (chapter 1)": (images_of_an_epoch, [2000, 8000, 32000], 1.0),
    "images of a batch (chapter 5)": (batch_of_views, [32, 128, 512], 1.0),
    "samples K (chapter 3)": (samples, [100, 400, 1600], 1.0),
    "annealed chains (chapter 3)": (chains, [8, 32, 128], 1.0),
    "images of the bank (chapter 5)": (bank, [2000, 8000, 32000], 1.0),
    "images that are compared (chapter 4)": (compared, [500, 1000, 2000, 4000], 2.0),
    "images that are searched (chapter 6)": (searched, [100, 200, 400, 800], 2.0),
}
"""What grows, by name: the work, sizes, and the exponent that its arithmetic has."""


def one(name: str, size: int, found: Any) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    call = WORK[name][0](size)
    before, taken = harness.peak_memory(), []
    for _ in range(3):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    found.put((min(taken), max(0.0, harness.peak_memory() - before)))


def measure() -> list[dict[str, Any]]:
    """Each size in a process of its own, so that one's memory is not the next one's."""
    context, rows = multiprocessing.get_context("spawn"), []
    for name, (_, sizes, expected) in WORK.items():
        seconds, memory = [], []
        for size in sizes:
            found = context.Queue()
            process = context.Process(target=one, args=(name, size, found))
            process.start()
            took, held = found.get(timeout=600)
            process.join()
            seconds.append(took)
            memory.append(held)
        # The largest sizes, where what does not grow counts least.
        logs = [np.log(b) - np.log(a) for a, b in itertools.pairwise(seconds)]
        steps = [np.log(b) - np.log(a) for a, b in itertools.pairwise(sizes)]
        rows.append(
            {
                "name": name,
                "sizes": sizes,
                "seconds": [round(s, 4) for s in seconds],
                "memory_gb": [round(m, 3) for m in memory],
                "exponent": round(logs[-1] / steps[-1], 2),
                "arithmetic": expected,
            }
        )
        print(f"{name}: {rows[-1]['exponent']} ({expected:g} by its arithmetic)", flush=True)
    return rows

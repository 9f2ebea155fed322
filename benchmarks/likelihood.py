"""Throughput of importance sampling against loops, on one machine in one run: ``python benchmarks/likelihood.py``.

The limit: at least 3 times as many samples a second as a loop that decodes one sample at a time. Exits with
1 if it is missed. Images and weights are random; the time does not depend on them.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch

from lib import likelihood, nets, train

LIMIT = 3.0


def loop_over_samples(model: likelihood.BernoulliVAE, x: torch.Tensor, K: int) -> torch.Tensor:
    """log p(x) of each image with one decoder call per image and sample, in log space, (B,)."""
    with train.evaluating(model):
        estimates = []
        for image in x.split(1):
            log_w = torch.cat([likelihood.log_weights(model, image, 1) for _ in range(K)])
            estimates.append(likelihood.log_mean_exp(log_w))
        return torch.cat(estimates)


def loop_over_draws(model: likelihood.BernoulliVAE, x: torch.Tensor, K: int) -> torch.Tensor:
    """The same with one decoder call per draw, for all images at once."""
    with train.evaluating(model):
        return likelihood.log_mean_exp(torch.cat([likelihood.log_weights(model, x, 1) for _ in range(K)]))


def samples_per_second(estimate: Callable[[], object], samples: int, repeats: int) -> float:
    """The median over repeats, after one that warms up."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        estimate()
        seconds.append(time.perf_counter() - start)
    return samples / statistics.median(seconds[1:])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--K", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    torch.manual_seed(0)
    shape, dim = (1, 28, 28), 100
    models = {
        "assignment": (nets.pooled_encoder(shape, 2 * dim), nets.upsampled_decoder(dim, shape)),
        "convolutional, width 32": (nets.conv_encoder(shape, 32, 2 * dim), nets.conv_decoder(dim, 32, shape)),
        "MLP, 500-500": (nets.mlp_encoder(shape, [500, 500], 2 * dim), nets.mlp_decoder(dim, [500, 500], shape)),
    }
    x = likelihood.binarise(torch.rand(options.images, *shape))
    samples = options.images * options.K
    missed = False
    print(f"{options.images} images, K = {options.K}, {torch.get_num_threads()} threads; samples per second")
    for name, networks in models.items():
        model = likelihood.BernoulliVAE(*networks, dim, shape).to(memory_format=torch.channels_last)
        rates = [
            samples_per_second(lambda f=f, model=model: f(model, x, options.K), samples, options.repeats)
            for f in (loop_over_samples, loop_over_draws, likelihood.importance_sampling)
        ]
        ratio = rates[2] / rates[0]
        missed |= ratio < LIMIT
        print(
            f"{name:>24}: one at a time {rates[0]:7.0f}, one draw of all images {rates[1]:7.0f}, "
            f"streamed in chunks {rates[2]:7.0f}: {ratio:.1f} times the first (at least {LIMIT:g})"
            + (" MISSED" if ratio < LIMIT else "")
        )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())

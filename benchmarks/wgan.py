"""Throughput of WGAN-GP training against a plain loop over a DataLoader: ``python benchmarks/wgan.py``.

The limit: at least 1.3 times as many training iterations a second, each of n_critic = 5 critic updates and one of
the generator, with the same networks in the same run. Exits with 1 if it is missed. The images are random
pixels, as a data set of bytes; the time does not depend on them.
"""

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import VisionDataset
from torchvision.transforms.functional import to_tensor

from lib import nets, train, wgan

LIMIT = 1.3
SHAPE, LATENT_DIM = (3, 32, 32), 100


class Bytes(VisionDataset):
    """Images uint8 (N, H, W, C), turned into tensors one by one, as torchvision's own sets do it."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images.permute(0, 2, 3, 1).contiguous().numpy()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return to_tensor(self.images[index])


def make_networks(width: int, device: str) -> tuple[nn.Module, nn.Module]:
    generator = nn.Sequential(nets.deconv_decoder(LATENT_DIM, [4 * width, 2 * width, width], SHAPE), nn.Sigmoid())
    return generator.to(device), nets.conv_critic(SHAPE, [width, 2 * width, 4 * width]).to(device)


def ordinary(layer: nn.Module) -> nn.Module:
    """torch's own layer for one of ours, which compute the same."""
    if isinstance(layer, nets.Leaky):
        return nn.LeakyReLU(layer.slope)
    if isinstance(layer, nets.CriticConv2d):
        return nn.Conv2d(layer.in_channels, layer.out_channels, 4, stride=2, padding=1).to(layer.weight.device)
    return layer


def plain(images: torch.Tensor, width: int, size: int, n_critic: int, device: str) -> Iterator[None]:
    """One training iteration each time: the loop as it is usually written, with torch's own layers."""
    generator, critic = make_networks(width, device)
    critic = nn.Sequential(*map(ordinary, critic))
    optimizers = [torch.optim.Adam(net.parameters(), 2e-4, betas=(0.0, 0.9)) for net in (generator, critic)]
    loader = DataLoader(Bytes(images), batch_size=size, shuffle=True, drop_last=True)
    average = torch.optim.swa_utils.AveragedModel(
        generator, avg_fn=torch.optim.swa_utils.get_ema_avg_fn(0.999), use_buffers=True
    )
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    while True:
        for _ in range(n_critic):
            x = next(batches).to(device)
            x_fake = generator(torch.randn(size, LATENT_DIM, device=device)).detach()
            t = torch.rand(size, 1, 1, 1, device=device)
            x_hat = (t * x + (1 - t) * x_fake).requires_grad_()
            (slope,) = torch.autograd.grad(critic(x_hat).sum(), x_hat, create_graph=True)
            penalty = (slope.flatten(1).norm(dim=1) - 1).pow(2).mean()
            loss = critic(x_fake).mean() - critic(x).mean() + 10 * penalty
            optimizers[1].zero_grad()
            loss.backward()
            optimizers[1].step()
        loss = -critic(generator(torch.randn(size, LATENT_DIM, device=device))).mean()
        optimizers[0].zero_grad()
        loss.backward()
        optimizers[0].step()
        average.update_parameters(generator)
        loss.item()  # a plain loop prints it
        yield


def ours(images: torch.Tensor, width: int, size: int, n_critic: int, device: str) -> Iterator[None]:
    """The same iteration through the library, as chapter 4 trains."""
    generator, critic = (network.to(memory_format=torch.channels_last) for network in make_networks(width, device))
    amp = torch.bfloat16 if device == "cuda" else None
    step = wgan.WGANStep(generator, critic, LATENT_DIM, 10**6, n_critic=n_critic, amp=amp)
    batches = train.Batches(images.to(device), batch_size=n_critic * size, drop_last=True)
    while True:
        step(next(batches))
        yield


def seconds(loop: Iterator[None], iterations: int, clock: Callable[[], float]) -> float:
    """The time of so many iterations."""
    start = clock()
    for _ in range(iterations):
        next(loop)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--n-critic", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=3, help="in one turn")
    parser.add_argument("--turns", type=int, default=5, help="of each loop, alternating; the median counts")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: on a machine with other work")
    options = parser.parse_args()
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    images = torch.randint(256, (5000, *SHAPE), dtype=torch.uint8)
    missed = False
    print(f"{device}, {torch.get_num_threads()} threads, batch {options.batch_size}, n_critic {options.n_critic}")
    for width in options.widths:
        loops = [make(images, width, options.batch_size, options.n_critic, device) for make in (plain, ours)]
        taken: list[list[float]] = [[], []]
        for turn in range(options.turns + 1):
            for loop, times in zip(loops, taken, strict=True):
                found = seconds(loop, options.iterations, clock)
                if turn:  # the first warms up
                    times.append(options.iterations / found)
        rates = [statistics.median(times) for times in taken]
        ratio = rates[1] / rates[0]
        missed |= ratio < LIMIT
        print(
            f"width {width}: plain {rates[0]:.2f}, ours {rates[1]:.2f} iterations a second: "
            f"{ratio:.2f} times (at least {LIMIT:g})" + (" MISSED" if ratio < LIMIT else ""),
            flush=True,
        )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())

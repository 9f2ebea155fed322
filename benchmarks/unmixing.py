"""Chapter 6: a training step of its U-Net, and the search for the two images of a mixture."""

import torch
from torch import Tensor

from benchmarks.harness import Case, Way, endless, looped, repeated
from lib import nets, optim, train, unmix

SHAPE, CHANNELS, PATCH, PAIRS, FOREVER = (3, 32, 32), [64, 128, 256], 2, 32, 10**6
BFLOAT16 = {"amp": torch.bfloat16}


def new_unmixer() -> unmix.DifferenceUnmixer:
    network = nets.UNet(SHAPE, CHANNELS, SHAPE[0], patch=PATCH)
    return unmix.DifferenceUnmixer(network).to(memory_format=torch.channels_last)


def our_step(flips: bool) -> train.GradientStep:
    unmixer = new_unmixer()

    def loss_fn(x: Tensor) -> dict[str, Tensor]:
        pairs = unmix.halves(unmix.random_flips(x) if flips else x)
        return {"loss": unmix.pit_error(pairs, unmixer(unmix.mix(pairs))).mean()}

    return optim.muon_one_cycle(unmixer, loss_fn, FOREVER, 1e-3, **BFLOAT16)


def tutorial(images: Tensor) -> Way:
    """Single precision, weights where torch puts them, both orders tried pair by pair; the optimiser is ours."""
    unmixer = new_unmixer().to(memory_format=torch.contiguous_format).train()
    muon = optim.Muon(unmixer.parameters(), 1e-3)

    def step(batch: tuple[Tensor, Tensor]) -> Tensor:
        first, second = batch[0].chunk(2)
        x_hat = unmixer((first + second) / 2)
        errors = [
            min(
                ((a - x_hat[i, 0]) ** 2).mean() + ((b - x_hat[i, 1]) ** 2).mean(),
                ((a - x_hat[i, 1]) ** 2).mean() + ((b - x_hat[i, 0]) ** 2).mean(),
            )
            for i, (a, b) in enumerate(zip(first, second, strict=True))
        ]
        loss = torch.stack(errors).mean()
        muon.zero_grad()
        loss.backward()
        muon.step()
        return loss

    return looped(step, endless(images, 2 * PAIRS))


def search(count: int = 300) -> Case:
    """Which two of the images made a mixture, against a loop over all pairs of one mixture."""
    images = torch.rand(count, *SHAPE)
    m = (images[:20] + images[20:40]) / 2
    flat = images.flatten(1)

    def loop(units: int) -> None:
        for mixture in m[:units].flatten(1):
            best = torch.tensor(float("inf"))
            for i in range(count):
                errors = ((flat[i] + flat[i + 1 :]) / 2 - mixture).square().sum(1)
                if len(errors):
                    best = torch.minimum(best, errors.min())

    ways = {"ours": lambda n: unmix.search(m[:n], images), "tutorial": loop}
    return Case(f"search among {count} images", ways, 2, 1, {"tutorial": 1.3}, "mixture")


def cases() -> list[Case]:
    images = torch.randint(256, (20 * 2 * PAIRS, *SHAPE), dtype=torch.uint8)
    batches, step = train.Batches(images, batch_size=2 * PAIRS, drop_last=True), our_step(flips=True)
    fixed = (images[: 2 * PAIRS].float() / 255,)
    ways = {
        "ours": lambda n: train.fit(step, batches, n),
        "limit": repeated(our_step(flips=False), fixed),
        "tutorial": tutorial(images),
    }
    training = Case(f"U-Net, {PAIRS} pairs", ways, 4, PAIRS, {"limit": 0.9, "tutorial": 1.3})
    return [training, search()]

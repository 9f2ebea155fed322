"""Unmixing two images from their average: pairs, answers that hold the mixture exactly,
and losses blind to the order.

A *pair* is one tensor (B, 2, C, H, W): the first images, then the second ones. Errors
are per pair, shape (B,); the mean over pairs is taken once, last. Networks come in as
arguments.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib import vae
from lib.evaluate import psnr_each, ssim_each

Criterion = Callable[[Tensor, Tensor], Tensor]
"""Pairs and answers, (B, 2, C, H, W) each, to a loss per pair (B,)."""


# --- pairs and mixtures ---------------------------------------------------------------


def fixed_pairs(images: Tensor, count: int | None = None) -> Tensor:
    """Indices (count, 2) of pairs that anybody can draw again from the same images.

    The uint8 images (N, C, H, W) are sorted by the SHA-256 of their bytes and taken two
    by two. That needs no random generator, does not depend on the order in which a copy
    of the set stores its images, and uses each image once, so that pairs are
    independent. ``count`` takes the first pairs; None takes all N // 2.

    Raises ValueError for images that are not uint8 and for a count beyond 1 to N // 2.
    """
    if images.dtype != torch.uint8:
        raise ValueError(
            f"{images.dtype} images: the bytes of uint8 images are wanted."
        )
    most = len(images) // 2
    count = most if count is None else count
    if not 1 <= count <= most:
        raise ValueError(f"count={count}: {len(images)} images make 1 to {most} pairs.")
    marks = [hashlib.sha256(image.numpy().tobytes()).digest() for image in images.cpu()]
    order = sorted(range(len(marks)), key=marks.__getitem__)
    return torch.tensor(order[: 2 * count]).view(-1, 2)


def digest(pairs: Tensor) -> str:
    """SHA-256 of the bytes of uint8 pairs (N, 2, C, H, W), in that order."""
    return hashlib.sha256(pairs.cpu().contiguous().numpy().tobytes()).hexdigest()


def halves(x: Tensor) -> Tensor:
    """A batch of 2B different images as B pairs, (2B, C, H, W) -> (B, 2, C, H, W); an
    odd image is left out.

    The batch comes from one permutation of the set, so no image meets itself, and the
    next epoch pairs anew. Raises ValueError for fewer than 2 images.
    """
    if len(x) < 2:
        raise ValueError(f"{len(x)} images: a pair needs two different ones.")
    half = len(x) // 2
    return torch.stack([x[:half], x[half : 2 * half]], dim=1)


def across(first: Tensor, second: Tensor) -> Tensor:
    """Pairs (B, 2, C, H, W) of two batches, one a set, paired anew within the batch."""
    return torch.stack([first, second[torch.randperm(len(second))]], dim=1)


def random_flips(x: Tensor) -> Tensor:
    """Each image mirrored left to right with probability ½, (B, C, H, W) ->
    (B, C, H, W).
    """
    chosen = torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5
    return torch.where(chosen, x.flip(3), x)


def mix(x: Tensor, weight: float = 0.5) -> Tensor:
    """The mixture m = weight · x₁ + (1 − weight) · x₂ of pairs, (B, 2, C, H, W) ->
    (B, C, H, W).

    Raises ValueError for a weight outside (0, 1): such a mixture shows one image only,
    or a negative.
    """
    _mixes(weight)
    return weight * x[:, 0] + (1 - weight) * x[:, 1]


def _mixes(weight: float) -> None:
    """Refuses a weight at which nothing is mixed."""
    if not 0 < weight < 1:
        raise ValueError(
            f"weight={weight}: choose a mixing weight between 0 and 1, neither "
            "included."
        )


def twice(m: Tensor) -> Tensor:
    """The mixture (B, C, H, W) as both answers (B, 2, C, H, W): the floor."""
    return m[:, None].expand(-1, 2, -1, -1, -1)


@dataclass(frozen=True)
class Task:
    """How a batch of images becomes pairs and their mixtures.

    ``pair_up`` makes pairs of a batch, ``weight`` is the first image's in the mixture,
    ``noise`` the standard deviation of what is added to it, pixels in [0, 1]; with
    ``flips`` each image is mirrored at random first. Raises ValueError for a weight
    outside (0, 1).
    """

    pair_up: Callable[..., Tensor] = halves
    weight: float = 0.5
    noise: float = 0.0
    flips: bool = False

    def __post_init__(self) -> None:
        _mixes(self.weight)

    def __call__(self, *images: Tensor) -> tuple[Tensor, Tensor]:
        """Pairs x (B, 2, C, H, W) of the images and their mixtures m (B, C, H, W)."""
        if self.flips:
            images = tuple(map(random_flips, images))
        x = self.pair_up(*images)
        m = mix(x, self.weight)
        return x, m + self.noise * torch.randn_like(m) if self.noise else m


# --- unmixers ------------------------------------------------------------------------


class FreeUnmixer(nn.Module):
    """Both images from a network that gives their logits: (B, C, H, W) ->
    (B, 2, C, H, W), pixels in [0, 1].

    The mixture goes in as 2m − 1, the network gives (B, 2C, H, W). Nothing ties the
    answers to the mixture; with ``near_mixture`` its logits are added to the network's,
    so that a network's zeros mean the mixture twice.
    """

    def __init__(self, network: nn.Module, near_mixture: bool = False) -> None:
        super().__init__()
        self.network, self.near_mixture = network, near_mixture

    def forward(self, m: Tensor) -> Tensor:
        logits = self.network(2 * m - 1).float().unflatten(1, (2, m.shape[1]))
        if self.near_mixture:
            logits = logits + torch.logit(m, eps=1e-3)[:, None]
        return torch.sigmoid(logits)


class DifferenceUnmixer(nn.Module):
    """Both images from their difference d alone: (B, C, H, W) -> (B, 2, C, H, W),
    pixels in [0, 1].

    x̂₁ = m + (1 − w) d and x̂₂ = m − w d mix to m (cut to [0, 1]) again with weight w,
    whatever the network answers. d is confined to where both lie in [0, 1], by a tanh.
    The network gives (B, C, H, W).
    """

    def __init__(self, network: nn.Module, weight: float = 0.5) -> None:
        super().__init__()
        _mixes(weight)
        self.network, self.weight = network, weight

    def forward(self, m: Tensor) -> Tensor:
        w, logits = self.weight, self.network(2 * m - 1)
        t = torch.tanh(logits.float().contiguous())  # laid out as m is
        m = m.clamp(0, 1)  # noise may have led it out
        highest = torch.minimum((1 - m) / (1 - w), m / w)
        lowest = torch.minimum(m / (1 - w), (1 - m) / w)
        d = t * torch.where(t > 0, highest, lowest)
        return torch.stack([m + (1 - w) * d, m - w * d], dim=1)


class MirrorMean(nn.Module):
    """The mean of an unmixer's answers to a mixture and to its mirror image:
    (B, C, H, W) -> (B, 2, C, H, W).

    The mirrored answer is mirrored back and put in the order that fits the other one
    better. What both have in common, the mixture they hold and pixels in [0, 1], their
    mean has, too.
    """

    def __init__(self, unmixer: nn.Module) -> None:
        super().__init__()
        self.unmixer = unmixer

    def forward(self, m: Tensor) -> Tensor:
        x_hat, mirrored = self.unmixer(m), self.unmixer(m.flip(3)).flip(4)
        return (x_hat + best_assignment(x_hat, mirrored)) / 2


# --- losses and scores ---------------------------------------------------------------


def pair_error(x: Tensor, x_hat: Tensor) -> Tensor:
    """Mean squared error per pixel, summed over the two images in the order given,
    (B, 2, C, H, W) -> (B,).

    Report 002's loss: first answer against first image, second against second.
    """
    return ((x - x_hat) ** 2).flatten(2).mean(2).sum(1)


def pit_error(x: Tensor, x_hat: Tensor) -> Tensor:
    """:func:`pair_error` in whichever order of the answers fits better, chosen for each
    pair, (B,).

    Permutation-invariant training (Yu et al., 2017, section 3), for two sources.
    """
    return torch.minimum(pair_error(x, x_hat), pair_error(x, x_hat.flip(1)))


def best_assignment(x: Tensor, x_hat: Tensor) -> Tensor:
    """The answers (B, 2, C, H, W), swapped where that lowers :func:`pair_error`."""
    swap = pair_error(x, x_hat.flip(1)) < pair_error(x, x_hat)
    return torch.where(swap[:, None, None, None, None], x_hat.flip(1), x_hat)


def pit_decibels(x: Tensor, x_hat: Tensor) -> Tensor:
    """10 log₁₀(:func:`pit_error` + 10⁻⁴): each pair counts by what is left of its own
    error, (B,) in dB.

    Log-MSE; Heitkaemper et al. (2020) take it for each source, and where the constraint
    holds at w = ½ both errors are equal. 10⁻⁴ keeps pairs that are all but solved, at
    43 dB, from counting without end.
    """
    return 10 * (pit_error(x, x_hat) + 1e-4).log10()


def unmix_loss(
    unmixer: nn.Module, x: Tensor, m: Tensor, criterion: Criterion = pit_error
) -> dict[str, Tensor]:
    """The mean over pairs x (B, 2, C, H, W) of a criterion of the answers to their
    mixtures m: :func:`pair_error`, :func:`pit_error` or :func:`pit_decibels`.
    """
    return {"loss": criterion(x, unmixer(m)).mean()}


class CodeUnmixer(nn.Module):
    """Report 002's VAE: a code of the mixture, and both images from the code,
    (B, C, H, W) -> (B, 2, C, H, W), pixels in [0, 1].
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.vae = vae.VAE(encoder, decoder)

    def forward(self, m: Tensor) -> Tensor:
        return self.vae(m).unflatten(1, (2, m.shape[1]))


def elbo_loss(unmixer: CodeUnmixer, x: Tensor, m: Tensor) -> dict[str, Tensor]:
    """A bound on −log p(x₁, x₂) in nats: the negative ELBO of both images, with a
    q(z | m) that sees their mixture only; the mean over pairs.
    """
    model, both = unmixer.vae, x.flatten(1, 2)
    mu, logvar = model.encode(m)
    both_hat = model.decode(vae.reparameterise(mu, logvar))
    model.calibrate(both, both_hat)
    fit = vae.gaussian_log_likelihood(both, both_hat, model.log_sigma)
    return {"loss": (vae.gaussian_kl(mu, logvar) - fit).mean()}


def scores(
    x: Tensor, x_hat: Tensor, assign: bool = True, batch: int = 500
) -> dict[str, Tensor]:
    """How good answers are, pair by pair, (B, 2, C, H, W) -> (B,) by name.

    ``error`` is :func:`pair_error`; ``psnr`` in dB and ``ssim`` are taken for each
    image and averaged over the two. With ``assign`` all three are taken in the order
    that has the smaller error; without it in the order given.
    """
    parts = []
    for images, answers in zip(x.split(batch), x_hat.split(batch), strict=True):
        if assign:
            answers = best_assignment(images, answers)
        flat = images.flatten(0, 1), answers.flatten(0, 1)
        each = [
            measure(*flat).view(-1, 2).mean(1) for measure in (psnr_each, ssim_each)
        ]
        parts.append(torch.stack([pair_error(images, answers), *each]))
    return dict(zip(("error", "psnr", "ssim"), torch.cat(parts, 1).cpu(), strict=True))


def mixture_error(m: Tensor, x_hat: Tensor, weight: float = 0.5) -> Tensor:
    """The largest ``|w x̂₁ + (1 − w) x̂₂ − m|`` over a pair's pixels, in [0, 1], (B,)."""
    return (mix(x_hat, weight) - m).abs().flatten(1).amax(1)


def fixed_difference(x: Tensor, iterations: int = 50) -> Tensor:
    """One difference d (C, H, W) to answer for *every* mixture: no small change lowers
    :func:`pit_error`, at w = ½.

    For pairs x (B, 2, C, H, W) with differences D that is the d with d = mean(sign⟨d,
    D⟩ D): a mean, taken after every pair was put in the order that fits. It begins at
    the first principal component and repeats that, as k-means does. What it gains over
    the mixture was gained without a look at it.
    """
    differences = (x[:, 0] - x[:, 1]).flatten(1)
    d = torch.svd_lowrank(differences, q=min(6, *differences.shape))[2][:, 0]
    for _ in range(iterations):
        d = (torch.sign(differences @ d)[:, None] * differences).mean(0)
    return d.view_as(x[0, 0])


def search(m: Tensor, images: Tensor, batch: int = 50) -> tuple[Tensor, Tensor]:
    """Indices (B,) of the two of ``images`` (N, C, H, W) whose average lies nearest to
    each m (B, C, H, W).

    All N(N − 1)/2 pairs are tried: ‖2m − a − b‖² = ‖2m‖² − 2⟨2m, a + b⟩ + ‖a + b‖². No
    learning at all: it finds every pair of images it holds, and is no use for others.
    """
    a = images.flatten(1)
    product = a @ a.T
    norm = product.diagonal()
    sums = norm[:, None] + norm + 2 * product  # ‖a + b‖²
    sums = sums.masked_fill(
        torch.ones_like(sums, dtype=torch.bool).tril(), float("inf")
    )  # a before b, a ≠ b
    found = []
    for part in m.flatten(1).split(batch):
        inner = 2 * part @ a.T
        found.append(
            (sums - 2 * (inner[:, :, None] + inner[:, None, :])).flatten(1).argmin(1)
        )
    best = torch.cat(found)
    return best // len(a), best % len(a)

"""Auto-decoders: no encoder, but a code for every image, or a distribution of codes,
found by gradient descent.

Every term is per example, shape (B,); the mean over the batch is taken once, last.
Networks come in as arguments. Codes are (B, D). The latent distributions are
torch.distributions, one independent coordinate per dimension.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import (
    Distribution,
    Exponential,
    Laplace,
    Normal,
    Uniform,
    kl_divergence,
)

from lib.checkpoint import Stateful
from lib.data import Split, to_unit
from lib.nets import pixels
from lib.train import Losses, evaluating, frozen

# --- latent distributions -------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """A prior for each coordinate of a code, and posteriors of the same kind that lie
    inside its support.

    ``posterior(loc, log_scale)`` takes two unconstrained numbers per coordinate, so
    that no step of an optimiser can leave the family. Its KL from the prior is finite
    for all of them.
    """

    prior: Distribution
    posterior: Callable[[Tensor, Tensor], Distribution]

    def sample_prior(
        self, count: int, latent_dim: int, device: torch.device | str = "cpu"
    ) -> Tensor:
        """Codes (count, latent_dim) from the prior that the KL is taken from."""
        return self.prior.sample((count, latent_dim)).to(device)


def _normal(loc: Tensor, log_scale: Tensor) -> Distribution:
    return Normal(loc, log_scale.exp(), validate_args=False)


def _laplace(loc: Tensor, log_scale: Tensor) -> Distribution:
    return Laplace(loc, log_scale.exp(), validate_args=False)


def _uniform(loc: Tensor, log_scale: Tensor) -> Distribution:
    """An interval inside (−1, 1): half its width, then a centre that leaves room."""
    inside = 1 - 1e-5  # rounding must not push an end over ±1, where KL is infinite
    half = inside * torch.sigmoid(log_scale)
    centre = (inside - half) * torch.tanh(loc)
    return Uniform(centre - half, centre + half, validate_args=False)


def _exponential(loc: Tensor, log_scale: Tensor) -> Distribution:
    """Its one parameter is the mean 1/λ = exp(loc); it has no scale of its own."""
    return Exponential(torch.exp(-loc), validate_args=False)


FAMILIES: dict[str, Family] = {
    "normal": Family(Normal(0.0, 1.0), _normal),
    "laplace": Family(Laplace(0.0, 1.0), _laplace),
    "uniform": Family(Uniform(-1.0, 1.0), _uniform),
    "exponential": Family(Exponential(1.0), _exponential),
}


def family(name: str) -> Family:
    """The latent distribution of that name; raises ValueError for one that does not
    exist.
    """
    if name not in FAMILIES:
        raise ValueError(
            f"Unknown distribution {name!r}. Known: {', '.join(FAMILIES)}."
        )
    return FAMILIES[name]


# --- one code, or one posterior, per image --------------------------------------------


class Codes(nn.Module):
    """A table of codes (N, D), a row per image; only rows read get gradients."""

    def __init__(self, initial: Tensor) -> None:
        super().__init__()
        start = initial.clone()
        self.table = nn.Embedding.from_pretrained(start, freeze=False, sparse=True)

    def forward(self, index: Tensor) -> Tensor:
        """Rows (B,) to codes (B, D)."""
        return self.table(index)

    def all(self) -> Tensor:
        """Every code (N, D), without gradients."""
        return self.table.weight.detach()


class Posteriors(nn.Module):
    """A table of posteriors q_i(z), one per image, of one :class:`Family`."""

    def __init__(self, family: Family, loc: Tensor, log_scale: float = -2.0) -> None:
        super().__init__()
        self.family = family
        self.loc = Codes(loc)
        self.log_scale = Codes(torch.full_like(loc, log_scale))

    def forward(self, index: Tensor) -> Distribution:
        """Rows (B,) to the posteriors of B images, with batch shape (B, D)."""
        return self.family.posterior(self.loc(index), self.log_scale(index))

    def all(self) -> Tensor:
        """Every posterior's mean (N, D), without gradients: the code that a
        reconstruction is made from.
        """
        return self.family.posterior(self.loc.all(), self.log_scale.all()).mean


def normal_start(count: int, latent_dim: int, sigma: float) -> Tensor:
    """Codes (count, latent_dim) from N(0, sigma²): small ones begin near the middle and
    grow where needed.

    Raises ValueError for a latent_dim below 1.
    """
    if latent_dim < 1:
        raise ValueError(f"latent_dim={latent_dim}: a code needs at least one number.")
    return sigma * torch.randn(count, latent_dim)


def classwise_start(labels: Tensor, latent_dim: int, sigma: float) -> Tensor:
    """One code from N(0, sigma²) per class, given to every image of the class,
    (N, latent_dim).

    It uses the labels of the training images, so what it shows of classes is no longer
    learned without them.
    """
    return normal_start(int(labels.max()) + 1, latent_dim, sigma).to(labels.device)[
        labels
    ]


# --- objectives -----------------------------------------------------------------------


class GaussianDecoder(nn.Module):
    """p(x | z) = N(x; x_hat, sigma² I) with x_hat = sigmoid(network(z)) and one sigma
    for all pixels.

    sigma is learned (Rybkin et al., 2021), which leaves no weight between
    reconstruction and KL to tune.
    """

    def __init__(self, network: nn.Module, log_sigma: float = -2.0) -> None:
        super().__init__()
        self.network = network
        self.log_sigma = nn.Parameter(torch.tensor(log_sigma))

    def forward(self, z: Tensor) -> Tensor:
        """Codes (B, D) to mean images (B, C, H, W), pixels in [0, 1]."""
        return pixels(self.network(z))


def squared_error(decoder: GaussianDecoder, z: Tensor, x: Tensor) -> Tensor:
    """‖x − x_hat‖², summed over pixels, (B,)."""
    return ((x - decoder(z)) ** 2).flatten(1).sum(1)


def elbo_terms(
    decoder: GaussianDecoder,
    q: Distribution,
    prior: Distribution,
    x: Tensor,
) -> tuple[Tensor, Tensor]:
    """log p(x | z) at one z ~ q, and KL(q ‖ p), each (B,) in nats.

    Their difference is the ELBO, estimated with one draw. ``rsample`` draws z as a
    differentiable function of q's parameters (Kingma and Welling, 2014, section 2.4).
    """
    z = q.rsample()
    likelihood = Normal(decoder(z), decoder.log_sigma.exp(), validate_args=False)
    return likelihood.log_prob(x).flatten(1).sum(1), kl_divergence(q, prior).sum(1)


def autodecoder_loss(
    decoder: GaussianDecoder,
    z: Tensor,
    x: Tensor,
    penalty: float = 0.0,
) -> Losses:
    """‖x − x_hat‖² + penalty · ‖z‖² per image, averaged over the batch.

    The second term is a normal prior of variance sigma² / penalty on the codes
    (Park et al., 2019, equation 9).
    """
    error, norm = squared_error(decoder, z, x), (z**2).sum(1)
    loss = (error + penalty * norm).mean()
    return {"loss": loss, "squared_error": error.mean(), "squared_norm": norm.mean()}


def variational_loss(
    decoder: GaussianDecoder,
    q: Distribution,
    prior: Distribution,
    x: Tensor,
    kl_weight: float = 1.0,
) -> Losses:
    """The negative ELBO in nats per image, averaged over the batch, with its two terms.

    A ``kl_weight`` of 0 leaves the KL out of what is minimised; it is reported all the
    same.
    """
    log_likelihood, kl = elbo_terms(decoder, q, prior, x)
    loss = (kl_weight * kl - log_likelihood).mean()
    return {"loss": loss, "log_likelihood": log_likelihood.mean(), "kl": kl.mean()}


# --- training and inference -----------------------------------------------------------


class AutodecoderStep:
    """One update of a decoder and of the codes of one batch.

    ``loss_fn(x, index)`` returns losses by name; the one called ``loss`` is minimised.
    The decoder moves by Adam, the codes by SparseAdam, because Adam's momentum would go
    on moving the rows of all other images. Both rates fall to 0 along a cosine.
    """

    def __init__(
        self,
        decoder: nn.Module,
        latents: nn.Module,
        loss_fn: Callable[[Tensor, Tensor], Losses],
        steps: int,
        lr: float,
        latent_lr: float,
    ) -> None:
        self.decoder, self.latents, self.loss_fn = decoder, latents, loss_fn
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Adam(decoder.parameters(), lr, fused=True),
            torch.optim.SparseAdam(list(latents.parameters()), latent_lr),
        ]
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR
        self.schedulers = [cosine(optimizer, steps) for optimizer in self.optimizers]
        self.parts: dict[str, Stateful] = {"decoder": decoder, "latents": latents}
        self.parts |= {f"optimizer {i}": part for i, part in enumerate(self.optimizers)}
        self.parts |= {f"scheduler {i}": part for i, part in enumerate(self.schedulers)}

    def __call__(self, batch: tuple[Tensor, ...]) -> Losses:
        self.decoder.train()
        losses = self.loss_fn(*batch)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        for part in (*self.optimizers, *self.schedulers):
            part.step()
        return {name: value.detach() for name, value in losses.items()}


def infer(
    decoder: nn.Module,
    latents: nn.Module,
    terms: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    steps: int,
    lr: float = 0.05,
    batch: int = 250,
) -> Tensor:
    """Fit fresh ``latents`` to unseen images, decoder frozen; the loss at each step.

    ``terms(x, index)`` gives the loss of each image, (B,). They are summed, so that an
    image's code does not depend on which others are fitted beside it. Every image gets
    the same budget: ``steps`` of Adam, the rate falling from ``lr`` to 0 as a cosine.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: give inference at least one step.")
    curve = torch.zeros(steps)
    # Evaluation mode, but not without gradients: they pass through the decoder.
    with evaluating(decoder), frozen(decoder), torch.enable_grad():
        for index in torch.arange(len(images), device=images.device).split(batch):
            x = to_unit(images[index])
            optimizer = torch.optim.SparseAdam(list(latents.parameters()), lr)
            losses = []
            for step in range(steps):
                rate = 0.5 * lr * (1 + math.cos(math.pi * step / steps))
                optimizer.param_groups[0]["lr"] = rate
                loss = terms(x, index).sum()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                losses.append(loss.detach())
            curve += torch.stack(losses).cpu() / len(images)
    return curve


# --- looking at codes -----------------------------------------------------------------


def first_of_class(split: Split, classes: Sequence[str], name: str) -> int:
    """Where the first image of a class stands in a split; raises ValueError for a class
    that is not there.
    """
    if name not in classes:
        raise ValueError(
            f"There is no class {name!r}. Choose one of: {', '.join(classes)}."
        )
    found = (split.labels == list(classes).index(name)).nonzero()
    if not len(found):
        raise ValueError(
            f"None of the {len(split)} images is of class {name!r}: use more images or "
            "another class."
        )
    return int(found[0])

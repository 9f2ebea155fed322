"""Auto-decoders: no encoder, but a code for every image, or a distribution of codes,
found by gradient descent.

Every term is per example, shape (B,); the mean over the batch is taken once, last.
Networks come in as arguments. Codes are (B, D). The latent distributions are
torch.distributions, one independent coordinate per dimension.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import (
    Distribution,
    Exponential,
    Laplace,
    Normal,
    Uniform,
    kl_divergence,
    register_kl,
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


class FreeUniform(Uniform):
    """An interval whose ends lie anywhere, as report 001 had it.

    Its "divergence" from a uniform prior is the formula for nested intervals. Where one
    is not nested the true divergence is infinite, and the formula may be negative.
    """


@register_kl(FreeUniform, Uniform)
def _nested_formula(q: FreeUniform, p: Uniform) -> Tensor:
    return ((p.high - p.low) / (q.high - q.low)).log()


def _free_uniform(loc: Tensor, log_scale: Tensor) -> Distribution:
    half = log_scale.exp()
    return FreeUniform(loc - half, loc + half, validate_args=False)


FREE_UNIFORM = Family(Uniform(-1.0, 1.0), _free_uniform)
"""No family to use: it shows what an unconstrained interval does."""

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
    """p(x | z) = N(x; x_hat, sigma² I) with x_hat = output(network(z)) and one sigma
    for all pixels.

    sigma is learned (Rybkin et al., 2021), which leaves no weight between
    reconstruction and KL to tune. ``output`` makes pixels in [0, 1] of the network's
    numbers, by default a sigmoid.
    """

    def __init__(
        self,
        network: nn.Module,
        log_sigma: float = -2.0,
        output: Callable[[Tensor], Tensor] = pixels,
    ) -> None:
        super().__init__()
        self.network, self.output = network, output
        self.log_sigma = nn.Parameter(torch.tensor(log_sigma))

    def forward(self, z: Tensor) -> Tensor:
        """Codes (B, D) to mean images (B, C, H, W), pixels in [0, 1]."""
        return self.output(self.network(z))


class Sphere(nn.Module):
    """A network behind codes of one length: z (B, D) enters as √D · z / ‖z‖.

    It sees the direction of a code only, and a draw from N(0, I) as long as any other.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor) -> Tensor:
        return self.network(z.shape[1] ** 0.5 * F.normalize(z, dim=1))


def squared_error(
    decoder: GaussianDecoder, z: Tensor, x: Tensor, visible: Tensor | None = None
) -> Tensor:
    """‖x − x_hat‖², summed over pixels, (B,); over those that are ``visible``.

    ``visible`` is 1 for pixels that are known and 0 for others, of a shape that
    broadcasts to the images'.
    """
    error = (x - decoder(z)) ** 2
    return (error if visible is None else error * visible).flatten(1).sum(1)


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
    averaged: bool = False,
) -> Losses:
    """The negative ELBO in nats per image, averaged over the batch, with its two terms.

    A ``kl_weight`` of 0 leaves the KL out of what is minimised; it is reported all the
    same. ``averaged`` is a common mistake: a squared error averaged over pixels stands
    in the log-likelihood's place, while the KL is a sum over coordinates.
    """
    log_likelihood, kl = elbo_terms(decoder, q, prior, x)
    loss = (kl_weight * kl - log_likelihood).mean()
    if averaged:
        error = squared_error(decoder, q.rsample(), x) / x[0].numel()
        loss = (kl_weight * kl + error).mean()
    return {"loss": loss, "log_likelihood": log_likelihood.mean(), "kl": kl.mean()}


def origin_code(decoder: nn.Module, x: Tensor, latent_dim: int) -> Tensor:
    """z = −∇_z ‖x − g(z)‖² at z = 0, (B, latent_dim): a code after one step of descent.

    Gradient origin networks (Bond-Taylor and Willcocks, 2021, equation 5) need neither
    encoder nor table. Where gradients are on, z can be differentiated in turn.
    """
    create = torch.is_grad_enabled()
    with torch.enable_grad():
        zero = torch.zeros(len(x), latent_dim, device=x.device, requires_grad=True)
        error = squared_error(decoder, zero, x).sum()
        (gradient,) = torch.autograd.grad(error, zero, create_graph=create)
    return -gradient


# --- training and inference -----------------------------------------------------------


class AutodecoderStep:
    """One update of a decoder and of the codes of one batch.

    ``loss_fn(x, index)`` returns losses by name; the one called ``loss`` is minimised.
    The decoder moves by Adam, the codes by SparseAdam, because Adam's momentum would go
    on moving the rows of all other images. Both rates fall to 0 along a cosine, unless
    they are not ``falling``.
    """

    def __init__(
        self,
        decoder: nn.Module,
        latents: nn.Module,
        loss_fn: Callable[[Tensor, Tensor], Losses],
        steps: int,
        lr: float,
        latent_lr: float,
        falling: bool = True,
    ) -> None:
        self.decoder, self.latents, self.loss_fn = decoder, latents, loss_fn
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Adam(decoder.parameters(), lr, fused=True),
            torch.optim.SparseAdam(list(latents.parameters()), latent_lr),
        ]
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR
        falls = self.optimizers if falling else []
        self.schedulers = [cosine(optimizer, steps) for optimizer in falls]
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
    betas: tuple[float, float] = (0.9, 0.999),
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
            optimizer = torch.optim.SparseAdam(list(latents.parameters()), lr, betas)
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


# --- a model as a whole ---------------------------------------------------------------


@dataclass
class Model:
    """A decoder and what its training images own: codes, or posteriors of a family.

    ``start`` is the standard deviation of the fresh codes that unseen images begin
    with; ``penalty`` weighs the squared norm of an auto-decoder's codes.
    """

    decoder: GaussianDecoder
    latents: Codes | Posteriors
    penalty: float = 0.0
    start: float = 0.01

    @property
    def family(self) -> Family | None:
        """The latent distributions' family; None for an auto-decoder."""
        return self.latents.family if isinstance(self.latents, Posteriors) else None

    def fresh(self, count: int) -> Codes | Posteriors:
        """Latents for so many images that the model has not seen."""
        known = self.latents.all()
        codes = normal_start(count, known.shape[1], self.start).to(known.device)
        return Codes(codes) if self.family is None else Posteriors(self.family, codes)

    def draws(self) -> Tensor:
        """What the decoder was trained on: codes, or a draw per posterior, (N, D)."""
        with torch.no_grad():
            codes = self.latents.all()
            found = self.latents(torch.arange(len(codes), device=codes.device))
            return found if isinstance(found, Tensor) else found.sample()

    def loss(self, x: Tensor, index: Tensor, **options: Any) -> Losses:
        """What training minimises, for the images x of these rows (B,).

        Options are those of :func:`variational_loss`.
        """
        found = self.latents(index)
        if isinstance(found, Tensor):
            return autodecoder_loss(self.decoder, found, x, self.penalty)
        prior = self.latents.family.prior
        return variational_loss(self.decoder, found, prior, x, **options)


def restore(
    model: Model,
    images: Tensor,
    steps: int,
    lr: float,
    visible: Tensor | None = None,
    by_elbo: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Codes (N, D) and reconstructions of images (N, C, H, W), decoder frozen.

    Fresh codes are fitted to the pixels that are ``visible``: a VAD's mean by its
    squared error, or with ``by_elbo`` its whole posterior. The third is the loss at
    each of the steps, (steps,).
    """
    latents, decoder = model.fresh(len(images)), model.decoder

    def terms(x: Tensor, index: Tensor) -> Tensor:
        found = latents(index)
        if isinstance(found, Tensor):
            error = squared_error(decoder, found, x, visible)
            return error + model.penalty * (found**2).sum(1)
        if not by_elbo:
            return squared_error(decoder, found.mean, x, visible)
        error = squared_error(decoder, found.rsample(), x, visible)
        kl = kl_divergence(found, latents.family.prior).sum(1)
        return 0.5 * error / (2 * decoder.log_sigma).exp() + kl

    # A frozen decoder gives gradients with little noise: with a longer memory than this
    # one of Adam's, codes overshoot.
    betas = 0.5, 0.9
    curve = infer(decoder, latents, terms, images, steps, lr, batch=100, betas=betas)
    with evaluating(decoder):
        parts = [decoder(z) for z in latents.all().split(500)]
    return latents.all(), torch.cat(parts), curve


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

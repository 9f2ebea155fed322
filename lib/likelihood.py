"""How likely a model with latent codes makes an image: the ELBO, importance sampling,
IWAE and annealed sampling.

Everything is per example, shape (B,), in nats. Samples come first, as in
torch.distributions: K codes for each of B images are z (K, B, D), and their log-weights
(K, B). A model is anything with a ``prior``, a ``posterior`` and a ``log_likelihood``;
networks come in as arguments.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import (
    Distribution,
    Independent,
    Normal,
    kl_divergence,
)

from lib.nets import Shape, mlp, pixels
from lib.train import Batches, GradientStep, History, evaluating, fit


class LatentModel(Protocol):
    """p(x, z) = p(z) p(x | z), with q(z | x) to propose codes."""

    @property
    def prior(self) -> Distribution:
        """p(z), event (D,)."""

    def posterior(self, x: Tensor) -> Distribution:
        """q(z | x), batch (B,), event (D,)."""

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) for x (B, …) and z (K, B, D), shape (K, B), in nats."""


# --- binary images --------------------------------------------------------------------


def binarise(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Each pixel 1 with the probability its grey level in [0, 1] gives it, else 0;
    shape of ``x``.

    Drawn anew at each step it is *dynamic* binarisation, drawn once from a seeded
    generator *static* (Salakhutdinov and Murray, 2008).
    """
    return torch.bernoulli(x, generator=generator)


def bernoulli_log_likelihood(x: Tensor, logits: Tensor) -> Tensor:
    """Σ_pixels x log p + (1 − x) log(1 − p) with p the sigmoid of the logit, in nats.

    x (B, C, H, W) in {0, 1} and logits (K, B, C, H, W) -> (K, B). Raises ValueError for
    other pixels: the same sum over grey ones is a cross-entropy, and no probability of
    anything.
    """
    if not bool(((x == 0) | (x == 1)).all()):
        raise ValueError(
            "A Bernoulli likelihood is the probability of binary images: "
            "pixels outside {0, 1} have none. Binarise them first."
        )
    # log p where x = 1 and log(1 − p) where x = 0 are both the log-sigmoid of the
    # logit, its sign turned for x = 0.
    return F.logsigmoid((2 * x - 1) * logits.float()).flatten(2).sum(2)


class Flow(nn.Module):
    """An invertible map between codes z and noise u, both (…, D), as a stack of affine
    couplings.

    RealNVP (Dinh et al., 2017, section 3.2): each layer scales and shifts one half of
    the numbers by what a small network says of the other half, then the order is turned
    round. It begins as the identity.
    """

    def __init__(self, dim: int, layers: int, hidden: int = 256) -> None:
        super().__init__()
        if dim < 2 or layers < 1:
            raise ValueError(
                f"dim={dim}, layers={layers}: at least 2 and 1 are wanted."
            )
        self.sizes = [dim // 2, dim - dim // 2]
        self.networks = nn.ModuleList(
            mlp([self.sizes[0], hidden, 2 * self.sizes[1]]) for _ in range(layers)
        )
        for network in self.networks:
            nn.init.zeros_(network[-1].weight)
            nn.init.zeros_(network[-1].bias)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Codes (…, D) to noise (…, D) and ``log |det du/dz|`` (…)."""
        log_det = torch.zeros_like(z[..., 0])
        for network in self.networks:
            kept, moved = z.split(self.sizes, -1)
            log_scale, shift = self._affine(network, kept)
            z = torch.cat([kept, moved * log_scale.exp() + shift], -1).flip(-1)
            log_det = log_det + log_scale.sum(-1)
        return z, log_det

    def inverse(self, u: Tensor) -> Tensor:
        """Noise (…, D) to the codes (…, D) that :meth:`forward` maps to it."""
        for network in reversed(self.networks):
            kept, moved = u.flip(-1).split(self.sizes, -1)
            log_scale, shift = self._affine(network, kept)
            u = torch.cat([kept, (moved - shift) * (-log_scale).exp()], -1)
        return u

    @staticmethod
    def _affine(network: nn.Module, kept: Tensor) -> tuple[Tensor, Tensor]:
        log_scale, shift = network(kept).chunk(2, -1)
        return torch.tanh(log_scale), shift  # bounded, so that no layer can blow up


class FlowPrior(Distribution):
    """The distribution of z = flow⁻¹(u) with u ~ N(0, I), event (D,)."""

    arg_constraints: ClassVar = {}

    def __init__(self, flow: Flow, noise: Independent) -> None:
        super().__init__(noise.batch_shape, noise.event_shape, validate_args=False)
        self.flow, self.noise = flow, noise

    def log_prob(self, z: Tensor) -> Tensor:
        """log N(u; 0, I) + ``log |det du/dz|`` with u = flow(z), (…, D) -> (…)."""
        u, log_det = self.flow(z)
        return self.noise.log_prob(u) + log_det

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with torch.no_grad():
            return self.flow.inverse(self.noise.sample(torch.Size(sample_shape)))

    def expand(self, batch_shape: Sequence[int]) -> "FlowPrior":
        return FlowPrior(self.flow, self.noise.expand(torch.Size(batch_shape)))

    @property
    def stddev(self) -> Tensor:
        """That of the noise: only a scale for the steps of a sampler."""
        return self.noise.stddev


class BernoulliVAE(nn.Module):
    """A Gaussian posterior with diagonal covariance, independent Bernoulli pixels, and
    a prior: N(0, I) or a flow.

    ``encoder`` maps images (B, C, H, W) to (B, 2·latent_dim), mu and logvar;
    ``decoder`` codes (B, latent_dim) to logits (B, C, H, W). Raises ValueError where
    they do not.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        latent_dim: int,
        shape: Shape,
        flow: Flow | None = None,
    ) -> None:
        super().__init__()
        _check_sizes(
            encoder,
            torch.zeros(1, *shape),
            (2 * latent_dim,),
            "encoder: mu and logvar of each latent",
        )
        _check_sizes(
            decoder,
            torch.zeros(1, latent_dim),
            shape,
            "decoder: one logit for each pixel",
        )
        if flow is not None and sum(flow.sizes) != latent_dim:
            raise ValueError(
                f"The flow maps {sum(flow.sizes)} numbers, but a code has {latent_dim}."
            )
        self.encoder, self.decoder, self.flow = encoder, decoder, flow
        self.register_buffer("origin", torch.zeros(latent_dim), persistent=False)

    @property
    def prior(self) -> Independent | FlowPrior:
        """p(z), event (D,): N(0, I), or what the flow makes of it."""
        noise = Independent(
            Normal(self.origin, torch.ones_like(self.origin), validate_args=False), 1
        )
        return noise if self.flow is None else FlowPrior(self.flow, noise)

    def posterior(self, x: Tensor) -> Independent:
        """q(z | x) = N(mu(x), diag(sigma²(x))), batch (B,), event (D,)."""
        mu, logvar = self.encoder(x).float().chunk(2, dim=1)
        return Independent(Normal(mu, torch.exp(0.5 * logvar), validate_args=False), 1)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) for x (B, C, H, W) in {0, 1} and z (K, B, D), shape (K, B), in
        nats.
        """
        return bernoulli_log_likelihood(
            x, self.decoder(z.flatten(0, 1)).unflatten(0, z.shape[:2])
        )

    def decode(self, z: Tensor) -> Tensor:
        """The probability of each pixel to be 1, (B, D) -> (B, C, H, W)."""
        return pixels(self.decoder(z))


def _check_sizes(
    network: nn.Module, probe: Tensor, wanted: Sequence[int], role: str
) -> None:
    given = next((parameter for parameter in network.parameters()), probe)
    try:
        with evaluating(network):
            found = tuple(network(probe.to(given.device, given.dtype)).shape[1:])
    except RuntimeError as error:
        raise ValueError(
            f"The {role} is wanted, but it does not take {tuple(probe.shape[1:])}: "
            f"{error}"
        ) from error
    if found != tuple(wanted):
        raise ValueError(
            f"The {role} is wanted, {tuple(wanted)} in all, but it gives {found}."
        )


# --- objectives -----------------------------------------------------------------------


def log_joint(model: LatentModel, x: Tensor, z: Tensor) -> Tensor:
    """log p(x, z) = log p(z) + log p(x | z) for z (K, B, D), shape (K, B)."""
    return model.prior.log_prob(z) + model.log_likelihood(x, z)


def elbo_terms(model: LatentModel, x: Tensor) -> tuple[Tensor, Tensor]:
    """log p(x | z) at one z ~ q(z | x), and KL(q(z | x) ‖ p(z)), each (B,) in nats.

    Their difference is the ELBO (Kingma and Welling, 2014, equation 3). The KL is taken
    in closed form; to a prior that has none, −log p(z) at the same z minus the entropy
    of q.
    """
    q, prior = model.posterior(x), model.prior
    z = q.rsample((1,))
    kl = (
        -q.entropy() - prior.log_prob(z)[0]
        if isinstance(prior, FlowPrior)
        else kl_divergence(q, prior)
    )
    return model.log_likelihood(x, z)[0], kl


def elbo_loss(
    model: LatentModel, x: Tensor, kl_weight: float = 1.0
) -> dict[str, Tensor]:
    """What a VAE minimises: the negative ELBO in nats, averaged over the batch, with
    its two terms.
    """
    log_likelihood, kl = elbo_terms(model, x)
    loss = -(log_likelihood - kl_weight * kl).mean()
    return {"loss": loss, "log_likelihood": log_likelihood.mean(), "kl": kl.mean()}


Proposal = Callable[[Tensor], Distribution]
"""Images (B, …) to a distribution over their codes, batch (B,), event (D,)."""


def log_weights(
    model: LatentModel, x: Tensor, K: int, posterior: Proposal | None = None
) -> Tensor:
    """log w_k = log p(x, z_k) − log q(z_k | x) with z_1 … z_K ~ q(z | x), shape (K, B).

    ``posterior`` proposes the codes in the place of the model's own. Raises ValueError
    for K < 1.
    """
    _check_count(K)
    q = (posterior or model.posterior)(x)
    z = q.rsample((K,))
    return log_joint(model, x, z) - q.log_prob(z)


def _check_count(K: int) -> None:
    if K < 1:
        raise ValueError(
            f"K={K}: an importance-sampled estimate needs at least one sample."
        )


def log_mean_exp(log_w: Tensor, dim: int = 0) -> Tensor:
    """log of the mean of exp(log_w) along ``dim``, without leaving log space."""
    return torch.logsumexp(log_w, dim) - math.log(log_w.shape[dim])


def iwae_loss(model: LatentModel, x: Tensor, K: int) -> dict[str, Tensor]:
    """The negative bound of Burda et al. (2016), section 3, −log (1/K) Σ_k w_k,
    averaged over the batch.

    K = 1 is the negative ELBO with the KL estimated from the sample. ``elbo`` is that
    of the same samples.
    """
    log_w = log_weights(model, x, K)
    return {"loss": -log_mean_exp(log_w).mean(), "elbo": log_w.mean()}


def dreg_loss(model: LatentModel, x: Tensor, K: int) -> dict[str, Tensor]:
    """The same value as :func:`iwae_loss` and the same expected gradient, less noisy
    for the encoder.

    The IWAE-DReG of Tucker et al. (2019): the encoder learns through z alone, each
    sample's path weighted by the square of its normalised weight. The score −∂log
    q/∂phi, zero on average and noisy, is left out.
    """
    _check_count(K)
    q = model.posterior(x)
    z = q.rsample((K,))
    still = Independent(
        Normal(q.mean.detach(), q.stddev.detach(), validate_args=False), 1
    )
    log_w = log_joint(model, x, z) - still.log_prob(z)
    w = torch.softmax(log_w.detach(), 0)
    if z.requires_grad:
        # Through z flows w ∂log w/∂z; times w it is the estimator's w². The decoder's
        # gradient stays the IWAE's.
        z.register_hook(lambda gradient: w.unsqueeze(-1) * gradient)
    surrogate = -(w * log_w).sum(0).mean()
    value = -log_mean_exp(log_w.detach()).mean()
    return {
        "loss": surrogate + (value - surrogate).detach(),
        "elbo": log_w.detach().mean(),
    }


MakeStep = Callable[
    [nn.Module, Callable[[Tensor], dict[str, Tensor]], int], GradientStep
]
"""A model, its loss of a batch and the number of steps to a step of training."""


def train_binary(
    model: nn.Module,
    loss_fn: Callable[[nn.Module, Tensor], dict[str, Tensor]],
    make_step: MakeStep,
    images: Tensor,
    passes: int,
    batch_size: int,
    watched: Mapping[str, Tensor],
    probes: int = 12,
    seed: int = 0,
    **options: Any,
) -> tuple[History, Tensor]:
    """Minimise ``loss_fn`` on uint8 images that are binarised anew in every batch.

    Also returns (times, 1 + 2n): at about ``probes`` times the number of passes so far,
    then E_q log p(x | z) and KL of each of n ``watched`` sets of binary images.
    ``options`` go to :func:`lib.train.fit`.
    """
    batches = Batches(images, batch_size=min(batch_size, len(images)), seed=seed)
    steps = passes * len(batches)

    def probe() -> dict[str, float]:
        found = {name: elbo(model, x) for name, x in watched.items()}
        return {
            f"{name} {kind}": term.mean().item()
            for name, terms in found.items()
            for kind, term in zip(("log_likelihood", "kl"), terms, strict=True)
        }

    step = make_step(model, lambda x: loss_fn(model, binarise(x)), steps)
    every = max(1, steps // probes)
    history = fit(step, batches, steps, probe=probe, probe_every=every, **options)
    rows = [[p["step"] / len(batches), *list(p.values())[1:]] for p in history.probes]
    return history, torch.tensor(rows, dtype=torch.float64)


# --- estimates without gradients ------------------------------------------------------


def elbo(model: LatentModel, x: Tensor, batch: int = 500) -> tuple[Tensor, Tensor]:
    """:func:`elbo_terms` of a whole set (N, …) in evaluation mode, in batches: two
    tensors (N,).
    """
    with evaluating(model):
        terms = [torch.stack(elbo_terms(model, part)) for part in x.split(batch)]
    log_likelihood, kl = torch.cat(terms, dim=1)
    return log_likelihood, kl


@dataclass(frozen=True)
class Importance:
    """What K samples for each of N images say of log p(x), from one pass over them.

    ``curve`` (len(counts), N) holds, for each k in ``counts``, the average over the K/k
    disjoint groups of k samples of log (1/k) Σ w. Counts divide each other, so by
    Jensen's inequality each image's curve never falls: it leads from the ELBO (k = 1)
    to the estimate of log p(x) with all K.
    """

    counts: tuple[int, ...]
    curve: Tensor
    ess: Tensor
    """(Σ w)² / Σ w² (N,), from 1 to K: how many samples the estimate rests on."""

    @property
    def elbo(self) -> Tensor:
        """The mean of the log-weights (N,)."""
        return self.curve[0]

    @property
    def log_p(self) -> Tensor:
        """The log of the mean weight (N,)."""
        return self.curve[-1]

    @property
    def noise(self) -> Tensor:
        """The standard error of ``log_p`` that comes from drawing K samples (N,), by
        the delta method.
        """
        return (1 / self.ess - 1 / self.counts[-1]).clamp(min=0).sqrt()


def importance_sampling(
    model: LatentModel,
    x: Tensor,
    K: int,
    counts: Sequence[int] = (),
    posterior: Proposal | None = None,
    batch: int = 100,
    rows: int = 2000,
) -> Importance:
    """Estimate log p(x) of images (N, …) from K samples each (Burda et al., 2016,
    section 3), in log space.

    Samples are streamed: at most about ``rows`` codes are decoded at once and only sums
    over them are kept, so memory does not grow with K. ``counts``: for which k besides
    1 and K the curve is wanted; each must divide the next. Raises ValueError if one
    does not, or if K < 1.
    """
    _check_count(K)
    counts = tuple(sorted({1, *counts, K}))
    if any(big % small for small, big in itertools.pairwise(counts)):
        raise ValueError(
            f"counts {counts}: each must divide the next, so that groups of samples "
            "nest."
        )
    with evaluating(model):
        parts = [
            _stream(model, part, counts, posterior, rows) for part in x.split(batch)
        ]
    return Importance(
        counts,
        torch.cat([part.curve for part in parts], 1),
        torch.cat([part.ess for part in parts]),
    )


def _stream(
    model: LatentModel,
    x: Tensor,
    counts: tuple[int, ...],
    posterior: Proposal | None,
    rows: int,
) -> Importance:
    K = counts[-1]
    most = max(1, rows // len(x))
    chunk = max(
        c
        for c in range(1, min(most, K) + 1)
        if all(k % c == 0 or c % k == 0 for k in counts)
    )
    sums = torch.zeros(len(counts), len(x), dtype=torch.float64, device=x.device)
    nothing = torch.full_like(sums[0], -torch.inf)
    groups = {k: nothing for k in counts if k > chunk}
    log_sum = log_sum_squares = nothing
    for done in range(chunk, K + 1, chunk):
        log_w = log_weights(model, x, chunk, posterior).double()
        total = torch.logsumexp(log_w, 0)
        log_sum = torch.logaddexp(log_sum, total)
        log_sum_squares = torch.logaddexp(
            log_sum_squares, torch.logsumexp(2 * log_w, 0)
        )
        for row, k in enumerate(counts):
            if k <= chunk:
                sums[row] += log_mean_exp(log_w.unflatten(0, (chunk // k, k)), 1).sum(0)
                continue
            groups[k] = torch.logaddexp(groups[k], total)
            if done % k == 0:
                sums[row] += groups[k] - math.log(k)
                groups[k] = nothing
    averages = sums * torch.tensor(counts, device=x.device)[:, None] / K
    return Importance(counts, averages, torch.exp(2 * log_sum - log_sum_squares))


def kl_per_dimension(model: LatentModel, x: Tensor, batch: int = 500) -> Tensor:
    """KL(q(z_d | x) ‖ N(0, 1)) of each latent, averaged over images (N, …) -> (D,), in
    nats.

    For a standard normal prior. A latent whose KL is 0 has collapsed: q is the prior
    there, whatever the image, and the decoder never hears of it.
    """
    with evaluating(model):
        total = torch.zeros(())
        for part in x.split(batch):
            normal = model.posterior(part).base_dist
            standard = Normal(torch.zeros_like(normal.mean), 1.0)
            total = total + kl_divergence(normal, standard).sum(0)
    return total / len(x)


def as_they_come(log_w: Tensor, marks: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Of samples drawn one after the other, log-weights (K, B), after each number in
    ``marks``: the estimate of log p(x) and the largest weight's share of the sum, (len,
    B) each.
    """
    rows = torch.as_tensor(marks) - 1
    total = log_w.logcumsumexp(0)[rows]
    share = (log_w.cummax(0).values[rows] - total).exp()
    return total - (rows + 1).log()[:, None].to(total), share

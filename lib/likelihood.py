"""How likely a model with latent codes makes an image: the ELBO, importance sampling,
IWAE and annealed sampling.

Everything is per example, shape (B,), in nats. Samples come first, as in
torch.distributions: K codes for each of B images are z (K, B, D), and their log-weights
(K, B). A model is anything with a ``prior``, a ``posterior`` and a ``log_likelihood``;
networks come in as arguments.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA
from torch import Tensor, nn
from torch.distributions import (
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    kl_divergence,
)

from lib.nets import Shape, mlp, pixels
from lib.train import evaluating


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


def active_units(model: LatentModel, x: Tensor, batch: int = 500) -> Tensor:
    """Var_x(E_q[z_d | x]), (N, …) -> (D,): how much each latent's posterior mean
    depends on the image.

    Burda et al. (2016), section 5, call a unit active above 0.01; the others have
    collapsed to the prior.
    """
    with evaluating(model):
        return torch.cat([model.posterior(part).mean for part in x.split(batch)]).var(0)


# --- annealed importance sampling -----------------------------------------------------


@dataclass(frozen=True)
class Path:
    """A way from a distribution that is easy to sample, q(z | x) or p(z), to the
    posterior p(z | x).

    f_b(z) = start(z)^(1 − b) · p(x, z)^b for b in ``betas``, 0 to 1. ``step_sizes`` (T
    − 1, B) are those of Hamiltonian Monte Carlo at each b in between, ``leapfrog`` its
    steps, ``acceptance`` (T − 1,) the fraction of proposals that was accepted while
    they were tuned.
    """

    betas: Tensor
    leapfrog: int
    from_prior: bool
    step_sizes: Tensor
    acceptance: Tensor


def tune(
    model: LatentModel,
    x: Tensor,
    temperatures: int,
    leapfrog: int = 5,
    from_prior: bool = False,
    chains: int = 4,
    target: float = 0.65,
) -> Path:
    """Find step sizes in a trial run of ``temperatures`` intervals, adapting each
    image's to accept ``target``.

    The estimates then run with these sizes *fixed*. Adapting while estimating would
    make a move depend on the chain's past, and the mean weight would no longer be p(x)
    exactly.

    Raises ValueError for fewer than one temperature, leapfrog step or chain.
    """
    for name, value in (
        ("temperatures", temperatures),
        ("leapfrog", leapfrog),
        ("chains", chains),
    ):
        if value < 1:
            raise ValueError(f"{name}={value}: at least 1 is wanted.")
    betas = torch.linspace(0, 1, temperatures + 1, dtype=torch.float64).tolist()
    start = _start(model, x, from_prior)
    sizes = torch.full((temperatures - 1, len(x)), 0.3, device=x.device)
    trial = _anneal(
        model, x, start, start.sample((chains,)), betas, sizes, leapfrog, target
    )
    return Path(
        torch.tensor(betas), leapfrog, from_prior, trial.step_sizes, trial.acceptance
    )


def annealed_lower(model: LatentModel, x: Tensor, path: Path, chains: int) -> Tensor:
    """Annealed importance sampling of log p(x) with ``chains`` chains an image
    (Neal, 2001), (B,).

    Like importance sampling a lower bound in expectation, and the same thing when the
    path has one interval.
    """
    start = _start(model, x, path.from_prior)
    z = start.sample((chains,))
    return log_mean_exp(
        _anneal(
            model, x, start, z, path.betas.tolist(), path.step_sizes, path.leapfrog
        ).log_w
    )


def annealed_upper(
    model: LatentModel, x: Tensor, z: Tensor, path: Path, chains: int
) -> Tensor:
    """The reverse chain, from an exact posterior sample z (B, D) of each image down to
    the start, (B,).

    Its weights average to 1/p(x), so minus their log is an upper bound in expectation
    (Grosse et al., 2015). Exact posterior samples are known for images that the model
    made itself: z, then x ~ p(x | z).
    """
    start = _start(model, x, path.from_prior)
    z = z.expand(chains, *z.shape)
    betas, step_sizes = path.betas.flip(0).tolist(), path.step_sizes.flip(0)
    return -log_mean_exp(
        _anneal(model, x, start, z, betas, step_sizes, path.leapfrog).log_w
    )


def _start(model: LatentModel, x: Tensor, from_prior: bool) -> Distribution:
    with evaluating(model):
        return model.prior.expand((len(x),)) if from_prior else model.posterior(x)


class _Annealed(NamedTuple):
    """Log-weights (K, B) and last states (K, B, D) of the chains; step sizes (T − 1,
    B); acceptance (T − 1,).
    """

    log_w: Tensor
    z: Tensor
    step_sizes: Tensor
    acceptance: Tensor


def _anneal(
    model: LatentModel,
    x: Tensor,
    start: Distribution,
    z: Tensor,
    betas: Sequence[float],
    step_sizes: Tensor,
    leapfrog: int,
    target: float | None = None,
) -> _Annealed:
    """Run chains that begin at z (K, B, D) through all ``betas``.

    Between two betas the weight changes by the ratio of the two densities at the same
    z; then z moves by Hamiltonian Monte Carlo in the way that leaves the second
    invariant. With ``target``, sizes adapt.
    """
    scale = start.stddev
    used, acceptance = step_sizes.clone(), []
    with evaluating(model):
        here = _evaluate(model, x, start, z)
        log_w = torch.zeros_like(here.log_p)
        for t, (before, beta) in enumerate(itertools.pairwise(betas)):
            log_w = log_w + (beta - before) * (here.log_p - here.log_start)
            if t == len(step_sizes):
                break
            there, probability = _hamiltonian_move(
                model, x, start, here, beta, used[t][:, None] * scale, leapfrog
            )
            accepted = torch.rand_like(probability) < probability
            here = _Point(
                *(
                    _choose(accepted, new, old)
                    for new, old in zip(there, here, strict=True)
                )
            )
            acceptance.append(probability.mean())
            if target is not None and t + 1 < len(used):
                used[t + 1 :] = used[t] * torch.exp(
                    0.4 * (probability.mean(0) - target)
                )
    return _Annealed(
        log_w, here.z, used, torch.stack(acceptance) if acceptance else torch.zeros(0)
    )


class _Point(NamedTuple):
    """Where chains are: z (K, B, D), both log-densities there (K, B) and their
    gradients (K, B, D).
    """

    z: Tensor
    log_start: Tensor
    log_p: Tensor
    grad_start: Tensor
    grad_p: Tensor

    def density(self, beta: float) -> Tensor:
        return (1 - beta) * self.log_start + beta * self.log_p

    def gradient(self, beta: float) -> Tensor:
        return (1 - beta) * self.grad_start + beta * self.grad_p


def _evaluate(model: LatentModel, x: Tensor, start: Distribution, z: Tensor) -> _Point:
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        log_start, log_p = start.log_prob(z), log_joint(model, x, z)
        gradients = [
            torch.autograd.grad(density.sum(), z)[0] for density in (log_start, log_p)
        ]
    return _Point(z.detach(), log_start.detach(), log_p.detach(), *gradients)


def _hamiltonian_move(
    model: LatentModel,
    x: Tensor,
    start: Distribution,
    here: _Point,
    beta: float,
    size: Tensor,
    leapfrog: int,
) -> tuple[_Point, Tensor]:
    """The proposal of one trajectory (Neal, 2011, section 5.3.2) and the probability
    (K, B) to accept it.

    ``size`` (B, D) is the step of each coordinate: a step size times the scale at the
    start, which is a mass matrix without the matrix.
    """
    momentum = torch.randn_like(here.z)
    energy = -here.density(beta) + 0.5 * (momentum**2).sum(-1)
    there = here
    for _ in range(leapfrog):
        momentum = momentum + 0.5 * size * there.gradient(beta)
        there = _evaluate(model, x, start, there.z + size * momentum)
        momentum = momentum + 0.5 * size * there.gradient(beta)
    change = -there.density(beta) + 0.5 * (momentum**2).sum(-1) - energy
    # A trajectory that left the range of floating point is refused, not accepted as
    # nan.
    return there, torch.exp(-change).clamp(max=1).nan_to_num(0)


def _choose(accepted: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(
        accepted if new.dim() == accepted.dim() else accepted.unsqueeze(-1), new, old
    )


# --- the exact case -------------------------------------------------------------------


class LinearGaussian(nn.Module):
    """Probabilistic PCA: z ~ N(0, I), x ~ N(mean + W z, sigma² I), where log p(x) is
    known (Tipping and Bishop, 1999).

    ``mean`` (P,) and ``weight`` (P, D), in double precision if they are. ``posterior``
    is the exact one; ``mean_field`` the best with a diagonal covariance, which is what
    a VAE's encoder could at most give.
    """

    def __init__(self, mean: Tensor, weight: Tensor, sigma: float) -> None:
        super().__init__()
        if weight.dim() != 2 or mean.shape != weight.shape[:1]:
            raise ValueError(
                f"mean {tuple(mean.shape)} and weight {tuple(weight.shape)}: (P,) and "
                "(P, D) are wanted."
            )
        if sigma <= 0:
            raise ValueError(f"sigma={sigma}: a standard deviation above 0 is wanted.")
        self.sigma = sigma
        identity = torch.eye(weight.shape[1]).to(weight)
        self.register_buffer("mean", mean)
        self.register_buffer("weight", weight)
        self.register_buffer("precision", weight.T @ weight / sigma**2 + identity)

    @classmethod
    def from_pca(cls, pca: PCA, turn: Tensor | None = None) -> "LinearGaussian":
        """The maximum-likelihood model that scikit-learn's PCA fitted, in double
        precision.

        ``turn`` (D, D), orthogonal, turns the latent axes: p(x) stays what it is, the
        posterior's covariance turns with them.
        """
        scale = np.sqrt(pca.explained_variance_ - pca.noise_variance_)
        weight = torch.from_numpy(pca.components_.T * scale).double()
        weight = weight if turn is None else weight @ turn.to(weight)
        return cls(
            torch.from_numpy(pca.mean_).double(), weight, math.sqrt(pca.noise_variance_)
        )

    @property
    def prior(self) -> Independent:
        """N(0, I), event (D,)."""
        origin = torch.zeros_like(self.weight[0])
        return Independent(
            Normal(origin, torch.ones_like(origin), validate_args=False), 1
        )

    def marginal(self) -> LowRankMultivariateNormal:
        """p(x) = N(mean, W Wᵀ + sigma² I), event (P,): its log_prob is the truth."""
        return LowRankMultivariateNormal(
            self.mean, self.weight, torch.full_like(self.mean, self.sigma**2)
        )

    def posterior(self, x: Tensor) -> MultivariateNormal:
        """p(z | x) = N(m, Λ⁻¹) with Λ = I + WᵀW/sigma² and m = Λ⁻¹ Wᵀ (x −
        mean)/sigma², for x (B, P).
        """
        return MultivariateNormal(
            self._posterior_mean(x),
            precision_matrix=self.precision,
            validate_args=False,
        )

    def mean_field(self, x: Tensor) -> Independent:
        """The diagonal q that is closest in KL(q ‖ p(z | x)): the same mean m,
        variances 1/Λ_dd.
        """
        m = self._posterior_mean(x)
        return Independent(
            Normal(
                m, self.precision.diagonal().rsqrt().expand_as(m), validate_args=False
            ),
            1,
        )

    def _posterior_mean(self, x: Tensor) -> Tensor:
        pull = (x - self.mean) @ self.weight / self.sigma**2
        return torch.linalg.solve(self.precision, pull.T).T

    def mean_field_gap(self) -> Tensor:
        """KL(mean_field ‖ posterior) = ½ (Σ_d log Λ_dd − log det Λ): its ELBO's
        distance below every log p(x).
        """
        return 0.5 * (
            self.precision.diagonal().log().sum() - torch.logdet(self.precision)
        )

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) for x (B, P) and z (K, B, D), shape (K, B), in nats."""
        return (
            Normal(self.mean + z @ self.weight.T, self.sigma, validate_args=False)
            .log_prob(x)
            .sum(-1)
        )

    def sample(self, count: int) -> tuple[Tensor, Tensor]:
        """z ~ p(z) (count, D), and x ~ p(x | z) (count, P)."""
        z = self.prior.sample((count,))
        return z, Normal(self.mean + z @ self.weight.T, self.sigma).sample()

"""Annealed importance sampling: bounds on log p(x) from below and from above.

Chains walk from a distribution that is easy to sample, q(z | x) or p(z), to the
posterior p(z | x), or back. Shapes are those of :mod:`lib.likelihood`: K chains for
each of B images are z (K, B, D), their log-weights (K, B), in nats.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from lib.likelihood import LatentModel, log_joint, log_mean_exp
from lib.train import evaluating


@dataclass(frozen=True)
class Path:
    """A way from a distribution that is easy to sample, q(z | x) or p(z), to the
    posterior p(z | x).

    f_b(z) = start(z)^(1 − b) · p(x, z)^b for b in ``betas``, 0 to 1. ``step_sizes`` (T
    − 1, B) are those of Hamiltonian Monte Carlo at each b in between, in the start's
    standard deviations; ``leapfrog`` are its steps, ``acceptance`` (T − 1,) the
    fraction of proposals that was accepted while they were tuned.
    """

    betas: Tensor
    leapfrog: int
    from_prior: bool
    step_sizes: Tensor
    acceptance: Tensor


class Annealed(NamedTuple):
    """Log-weights (K, B) and last states (K, B, D) of the chains; step sizes (T − 1,
    B); acceptance (T − 1,).
    """

    log_w: Tensor
    z: Tensor
    step_sizes: Tensor
    acceptance: Tensor


Move = Callable[[Tensor, float], Tensor]
"""Codes (K, B, D) moved so that f_b of :class:`Path` stays as it is, given b."""


def read_me_first(
    model: LatentModel, x: Tensor, betas: Sequence[float], move: Move, chains: int
) -> Tensor:
    """Annealed importance sampling (Neal, 2001) from q(z | x), (B,): all there is to
    it. :func:`lower` does the same and evaluates each point once.
    """
    q = model.posterior(x)
    z, log_w = q.sample((chains,)), torch.zeros(())
    for before, beta in itertools.pairwise(betas):
        log_w = log_w + (beta - before) * (log_joint(model, x, z) - q.log_prob(z))
        z = move(z, beta)
    return log_mean_exp(log_w)


def tune(
    model: LatentModel,
    x: Tensor,
    temperatures: int,
    leapfrog: int = 2,
    from_prior: bool = False,
    chains: int = 2,
    target: float = 0.8,
) -> Path:
    """Find step sizes in a trial run of ``temperatures`` intervals, adapting each
    image's to accept ``target``.

    The estimates then run with these sizes *fixed*. Adapting while estimating would
    make a move depend on the chain's past, and the mean weight would no longer be p(x)
    exactly. Many short trajectories mix better than few long ones: one about π standard
    deviations long takes z to its mirror image, and then back.

    Raises ValueError for fewer than one temperature, leapfrog step or chain.
    """
    for name, value in (
        ("temperatures", temperatures),
        ("leapfrog", leapfrog),
        ("chains", chains),
    ):
        if value < 1:
            raise ValueError(f"{name}={value}: at least 1 is wanted.")
    betas = torch.linspace(0, 1, temperatures + 1, dtype=torch.float64)
    sizes = torch.full((temperatures - 1, len(x)), 0.6, device=x.device)
    first = Path(betas, leapfrog, from_prior, sizes, torch.zeros(0))
    trial = anneal(model, x, first, chains, target=target)
    return Path(betas, leapfrog, from_prior, trial.step_sizes, trial.acceptance)


def lower(model: LatentModel, x: Tensor, path: Path, chains: int) -> Tensor:
    """Annealed importance sampling of log p(x) with ``chains`` chains an image, (B,).

    Like importance sampling a lower bound in expectation, and the same thing when the
    path has one interval.
    """
    return log_mean_exp(anneal(model, x, path, chains).log_w)


def upper(model: LatentModel, x: Tensor, z: Tensor, path: Path, chains: int) -> Tensor:
    """The reverse chain, from an exact posterior sample z (B, D) of each image down to
    the start, (B,).

    Its weights average to 1/p(x), so minus their log is an upper bound in expectation
    (Grosse et al., 2015). Exact posterior samples are known for images that the model
    made itself: z, then x ~ p(x | z).
    """
    return -log_mean_exp(anneal(model, x, path, chains, backwards_from=z).log_w)


def anneal(
    model: LatentModel,
    x: Tensor,
    path: Path,
    chains: int,
    backwards_from: Tensor | None = None,
    target: float | None = None,
) -> Annealed:
    """Run chains along the path, or from z (B, D) backwards.

    Between two betas the weight changes by the ratio of the two densities at the same
    z; then z moves by Hamiltonian Monte Carlo in the way that leaves the second
    invariant. With ``target``, sizes adapt.
    """
    betas, step_sizes = path.betas.tolist(), path.step_sizes
    with evaluating(model):
        prior = model.prior.expand((len(x),))
        start = prior if path.from_prior else model.posterior(x)
    if backwards_from is None:
        z = start.sample((chains,))
    else:
        z = backwards_from.expand(chains, *backwards_from.shape)
        betas, step_sizes = betas[::-1], step_sizes.flip(0)
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
                model, x, start, here, beta, used[t][:, None] * scale, path.leapfrog
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
    return Annealed(
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
    # Trajectories of one length can come back to where they began (section 5.4.2.2):
    # each chain draws its own, without a look at where it is.
    size = size * (0.5 + torch.rand_like(here.log_p)).unsqueeze(-1)
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

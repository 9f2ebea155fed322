"""Wasserstein GANs with a penalty on the critic's gradient: Gulrajani et al. (2017),
Petzka et al. (2018).

A critic f gives each example one number, which should be high for real examples and
low for generated ones. Networks come in as arguments: ``generator`` maps noise (B, D)
to examples, ``critic`` maps examples to scores (B,).
"""

import copy
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lib.train import evaluating, frozen

PENALTIES = ("two-sided", "one-sided")
"""Kinds of penalty: WGAN-GP pulls every gradient norm to 1, WGAN-LP only those above 1
down to it.
"""


def critic_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """f(G(z)) − f(x) per pair (B,): what the critic minimises, without the penalty.

    Minus its mean is the critic's estimate of the Wasserstein distance, in the data's
    own units.
    """
    return fake_scores - real_scores


def generator_loss(fake_scores: Tensor) -> Tensor:
    """−f(G(z)) per example (B,): the generator climbs the critic's slope."""
    return -fake_scores


def between(x: Tensor, x_fake: Tensor, t: Tensor) -> Tensor:
    """Points t x + (1 − t) x_fake on the lines between real and made examples; t (B,)
    in [0, 1].
    """
    t = t.view(-1, *[1] * (x.dim() - 1))
    return t * x + (1 - t) * x_fake


def gradient_norm(critic: nn.Module, x: Tensor, differentiable: bool = False) -> Tensor:
    """‖∇ₓ f(x)‖₂ per example (B,), over all numbers of an example.

    The sum of scores has as its gradient in x each score's own, as long as no score
    depends on another example: a critic must not contain batch norm. ``differentiable``
    keeps the graph, for a penalty.
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(
            critic(x).sum(), x, create_graph=differentiable
        )
    # The root's own slope is infinite at 0, where a critic that is flat somewhere would
    # make nan.
    return (gradient.flatten(1).square().sum(1) + 1e-12).sqrt()


def penalty(norm: Tensor, kind: str = "two-sided") -> Tensor:
    """The penalty on gradient norms (B,), per example: (‖∇‖ − 1)², or max(0, ‖∇‖ − 1)²
    if one-sided.

    Two-sided: Gulrajani et al. (2017), equation 3. One-sided: Petzka et al. (2018),
    equation 8, and report 004. Raises ValueError for another kind.
    """
    if kind not in PENALTIES:
        raise ValueError(
            f"kind={kind!r}: choose one of {', '.join(map(repr, PENALTIES))}."
        )
    excess = norm - 1
    return (excess if kind == "two-sided" else excess.clamp(min=0)).square()


def overshoot(estimate: np.ndarray, weight: float) -> np.ndarray:
    """The slope (1 + √(1 + 2E/λ))/2 of a critic that is a multiple of the best one,
    from its estimates E, λ the weight.

    Such a critic maximises cW − λ(c − 1)² over its slope c, so that W = 2λ(c − 1) and E
    = cW. Estimates below 0, which such a critic cannot have, count as 0.
    """
    return (1 + np.sqrt(1 + 2 * estimate.clip(0) / weight)) / 2


def crosstalk(critic: nn.Module, x: Tensor) -> float:
    """How wrong the gradient of the summed scores is for single examples of x (B, …),
    relative to the right one.

    ‖∇ Σⱼ f(xⱼ) − ∇ f(xᵢ)‖ / ‖∇ f(xᵢ)‖, both gradients in xᵢ, for the first example: 0
    where each example is judged alone, as :func:`gradient_norm` takes for granted.
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        scores = critic(x)
        (of_sum,) = torch.autograd.grad(scores.sum(), x, retain_graph=True)
        (of_one,) = torch.autograd.grad(scores[0], x)
    return ((of_sum[0] - of_one[0]).norm() / of_one[0].norm()).item()


def wasserstein(x: Tensor, y: Tensor) -> float:
    """The exact Wasserstein-1 distance of two equally large sets of examples (N, …), by
    optimal assignment.

    The mean length of the ways by which x becomes y at the least cost. Between finite
    sets of the same distribution it is not 0: measure that, too. Raises ValueError for
    sets of different sizes.
    """
    if len(x) != len(y):
        raise ValueError(
            f"Sets of {len(x)} and {len(y)} examples: they must be equally large."
        )
    cost = torch.cdist(x.flatten(1).double(), y.flatten(1).double()).cpu().numpy()
    return float(cost[linear_sum_assignment(cost)].mean())


def turning_cosine(eps: float, dim: int) -> float:
    """The cosine of the angle by which standard normal codes (…, dim) turn to move by
    ``eps``, root mean square.

    From ε² = 2 D (1 − cos θ); −1, the farthest there is, for a longer step.
    """
    return max(-1.0, 1 - eps**2 / (2 * dim))


def turn(z: Tensor, other: Tensor, cosine: float) -> Tensor:
    """cos θ · z + sin θ · other (B, D): of two independent standard normal codes again
    a standard normal one.
    """
    return cosine * z + (1 - cosine**2) ** 0.5 * other


def adam(parameters: Iterable[Tensor], rate: float) -> torch.optim.Optimizer:
    """Adam as Gulrajani et al. (2017) have it: no momentum, since the other network's
    move turns the gradient.
    """
    return torch.optim.Adam(parameters, rate, betas=(0.0, 0.9), fused=True)


class WGANStep:
    """``n_critic`` updates of the critic, then one of the generator and of its moving
    average.

    A batch holds n_critic · B examples, B for each update of the critic. All noise of a
    step is drawn at once, and all made examples that the critic needs come out of one
    forward pass, since the generator stands still meanwhile. ``ema`` is what samples
    are drawn from. Both rates fall linearly to 0 within ``steps``.
    ``optimizer(parameters, rate)`` makes the optimisers of both. ``amp`` runs both
    networks under autocast in that dtype; scores, losses and the whole penalty stay in
    float32.

    The penalty is the mean over a ``penalty_share`` of an update's pairs. Fewer leave
    it right on average, but noisier, and spare second derivatives.

    Returned by name, means over the step's critic updates: ``distance``, the critic's
    estimate; ``penalty``, without its weight; ``gradient_norm``; and ``generator``, the
    generator's loss.

    Raises ValueError for an unknown ``kind``, n_critic below 1, a negative penalty
    weight, a share outside (0, 1], for a batch that cannot be divided among the
    updates, and for examples of another shape than the generator's.
    """

    def __init__(
        self,
        generator: nn.Module,
        critic: nn.Module,
        latent_dim: int,
        steps: int,
        *,
        learning_rate: float = 2e-4,
        critic_rate: float | None = None,
        n_critic: int = 5,
        penalty_weight: float = 10.0,
        penalty_share: float = 1.0,
        kind: str = "two-sided",
        optimizer: Callable[[Iterable[Tensor], float], torch.optim.Optimizer] = adam,
        ema_decay: float = 0.999,
        amp: torch.dtype | None = None,
    ) -> None:
        if kind not in PENALTIES:
            raise ValueError(
                f"kind={kind!r}: choose one of {', '.join(map(repr, PENALTIES))}."
            )
        if n_critic < 1:
            raise ValueError(
                f"n_critic={n_critic}: the critic needs at least one update a step."
            )
        if penalty_weight < 0:
            raise ValueError(
                f"penalty_weight={penalty_weight}: a negative one rewards steep "
                "critics."
            )
        if not 0 < penalty_share <= 1:
            raise ValueError(
                f"penalty_share={penalty_share}: choose a part of the batch, above 0 "
                "and up to 1."
            )
        self.generator, self.critic, self.latent_dim, self.steps = (
            generator,
            critic,
            latent_dim,
            steps,
        )
        self.n_critic, self.penalty_weight, self.kind, self.amp = (
            n_critic,
            penalty_weight,
            kind,
            amp,
        )
        self.penalty_share, self.ema_decay = penalty_share, ema_decay
        self._optimizer = optimizer
        self._critic_rate = learning_rate if critic_rate is None else critic_rate
        self.ema = AveragedModel(
            generator, multi_avg_fn=get_ema_multi_avg_fn(ema_decay), use_buffers=True
        )
        self.generator_optimizer = optimizer(generator.parameters(), learning_rate)
        self.critic_optimizer = optimizer(critic.parameters(), self._critic_rate)
        self.schedulers = [
            torch.optim.lr_scheduler.LambdaLR(own, self._decay)
            for own in (self.generator_optimizer, self.critic_optimizer)
        ]
        self.parts = {
            "generator": generator,
            "critic": critic,
            "generator_optimizer": self.generator_optimizer,
            "critic_optimizer": self.critic_optimizer,
            "ema": self.ema,
            "generator_scheduler": self.schedulers[0],
            "critic_scheduler": self.schedulers[1],
        }

    def _decay(self, done: int) -> float:
        return max(0.0, 1 - done / self.steps)

    def __call__(self, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
        x = batch[0]
        if len(x) % self.n_critic:
            raise ValueError(
                f"A batch of {len(x)} cannot be divided among n_critic={self.n_critic} "
                "updates."
            )
        size = len(x) // self.n_critic
        self.generator.train()
        self.critic.train()
        z = torch.randn(len(x) + size, self.latent_dim, device=x.device)
        t = torch.rand(len(x), device=x.device)
        with torch.no_grad():
            x_fake = self._generate(z[size:])
        if x.shape != x_fake.shape:
            raise ValueError(
                f"Examples of shape {tuple(x.shape[1:])}, but the generator makes "
                f"{tuple(x_fake.shape[1:])}."
            )
        updates = [
            self._update_critic(*parts)
            for parts in zip(
                x.split(size), x_fake.split(size), t.split(size), strict=True
            )
        ]
        losses = {
            name: torch.stack([update[name] for update in updates]).mean()
            for name in updates[0]
        }
        losses["generator"] = self._update_generator(z[:size])
        for scheduler in self.schedulers:
            scheduler.step()
        self.ema.update_parameters(self.generator)
        return losses

    def caught_up(
        self, batches: Iterator[tuple[Tensor, ...]], updates: int
    ) -> nn.Module:
        """A copy of the critic after so many updates more, in evaluation mode.

        Meanwhile the averaged generator stands still, and the critic's rate falls from
        its first value to 0. A critic with too few updates finds too short a distance;
        how much a copy gains alone tells how far it was behind. The step itself stays
        as it is.
        """
        twin = copy.copy(self)
        twin.critic = copy.deepcopy(self.critic).train()
        twin.critic_optimizer = self._optimizer(
            twin.critic.parameters(), self._critic_rate
        )
        for done in range(updates):
            for group in twin.critic_optimizer.param_groups:
                group["lr"] = self._critic_rate * (1 - done / updates)
            x = next(batches)[0]
            z = torch.randn(len(x), self.latent_dim, device=x.device)
            t = torch.rand(len(x), device=x.device)
            with evaluating(self.ema):
                x_fake = self.ema(z).float()
            twin._update_critic(x, x_fake, t)
        return twin.critic.eval()

    def _generate(self, z: Tensor) -> Tensor:
        with torch.autocast(z.device.type, self.amp, enabled=self.amp is not None):
            return self.generator(z).float()

    def _judge(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, self.amp, enabled=self.amp is not None):
            return self.critic(x).float()

    def _update_critic(self, x: Tensor, x_fake: Tensor, t: Tensor) -> dict[str, Tensor]:
        # One forward pass for both, legitimate because each example is judged alone.
        real_scores, fake_scores = self._judge(torch.cat([x, x_fake])).chunk(2)
        difference = critic_loss(real_scores, fake_scores).mean()
        some = max(1, round(self.penalty_share * len(x)))
        norm = gradient_norm(
            self.critic, between(x[:some], x_fake[:some], t[:some]), differentiable=True
        )
        excess = penalty(norm, self.kind).mean()
        self.critic_optimizer.zero_grad(set_to_none=True)
        (difference + self.penalty_weight * excess).backward()
        self.critic_optimizer.step()
        return {
            "distance": -difference.detach(),
            "penalty": excess.detach(),
            "gradient_norm": norm.detach().mean(),
        }

    def _update_generator(self, z: Tensor) -> Tensor:
        # Nobody would use gradients of the critic's weights here.
        with frozen(self.critic):
            loss = generator_loss(self._judge(self._generate(z))).mean()
            self.generator_optimizer.zero_grad(set_to_none=True)
            loss.backward()
        self.generator_optimizer.step()
        return loss.detach()

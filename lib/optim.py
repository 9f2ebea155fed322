"""Optimisers beside torch's own, and the steps that chapters train with.

A step is a :class:`~lib.train.GradientStep` with an optimiser and a schedule.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from lib.train import GradientStep, Losses


def adam_one_cycle(
    model: nn.Module,
    loss_fn: Callable[..., Losses],
    steps: int,
    learning_rate: float,
    **options: Any,
) -> GradientStep:
    """The book's usual step: Adam with a one-cycle schedule.

    Within ``steps`` the rate rises to ``learning_rate`` and falls to nearly 0 (Smith
    and Topin, 2019). While the rate rises, the momentum (β₁) falls from 0.95 to 0.85,
    and then it goes back. ``options`` go to :class:`~lib.train.GradientStep`.
    """
    optimizer = torch.optim.Adam(_trainable(model), lr=learning_rate, fused=True)
    scheduler = _one_cycle(optimizer, steps, learning_rate)
    return GradientStep(model, loss_fn, optimizer, scheduler, **options)


def muon_one_cycle(
    model: nn.Module,
    loss_fn: Callable[..., Losses],
    steps: int,
    learning_rate: float,
    **options: Any,
) -> GradientStep:
    """:func:`adam_one_cycle` with :class:`Muon` in Adam's place.

    Muon's rates are ten times as high and more.
    """
    optimizer = Muon(_trainable(model), learning_rate)
    scheduler = _one_cycle(optimizer, steps, learning_rate)
    return GradientStep(model, loss_fn, optimizer, scheduler, **options)


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    return [weight for weight in model.parameters() if weight.requires_grad]


def _one_cycle(
    optimizer: torch.optim.Optimizer, steps: int, learning_rate: float
) -> torch.optim.lr_scheduler.OneCycleLR:
    # One step more than is taken: the scheduler moves on after the last step, too.
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=steps + 1
    )


class Muon(torch.optim.Optimizer):
    """Momentum whose step for each weight matrix is made orthogonal first.

    Jordan et al. (2024). Nesterov's momentum (M, N), divided by its norm, goes through
    five iterations of a polynomial that moves singular values between 0 and 1 to about
    1, so directions with small gradients move as far as those with large ones.
    Convolutions count as matrices (out, in · height · width), biases as one row.
    torch.optim.Muon does the same, but takes matrices only, and in bfloat16, which is
    slow on most CPUs. ``weight_decay`` is decoupled: each step takes lr · weight_decay
    of a matrix away, and nothing of a vector.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        )

    @torch.no_grad()
    def step(self) -> None:
        with _unrounded_products():
            for group in self.param_groups:
                for weight in group["params"]:
                    if weight.grad is not None:
                        self._move(weight, group)

    def _move(self, weight: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        mean = state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
        ahead = weight.grad.lerp(mean, group["momentum"])
        # What an order of columns costs is copies: as a convolution lies in memory.
        last = weight.ndim == 4 and not weight.is_contiguous()
        ahead = ahead.movedim(1, -1) if last else ahead
        matrix = ahead.reshape(len(weight) if weight.ndim > 1 else 1, -1)
        if weight.ndim > 1:
            weight.mul_(1 - group["lr"] * group["weight_decay"])
        # As wide as a step of norm 1 in the larger of the two spaces.
        scale = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
        update = orthogonal(matrix).view(ahead.shape)
        update = update.movedim(-1, 1) if last else update
        weight.add_(update, alpha=-group["lr"] * scale)


@contextmanager
def _unrounded_products() -> Iterator[None]:
    """Products of float32 matrices with whole factors inside, by the faster library.

    The square matrices of :func:`orthogonal` lose too much where factors are rounded,
    to TF32 on a GPU. On a CPU torch takes MKL's product, which is half as fast as
    oneDNN's on AMD's processors. The permission to round factors to bfloat16 leads to
    oneDNN; it is given where oneDNN makes no use of it.
    """
    matmul = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
    before = [backend.fp32_precision for backend in matmul]
    for backend, precision in zip(matmul, ("ieee", _cpu_precision()), strict=True):
        backend.fp32_precision = precision
    try:
        yield
    finally:
        for backend, precision in zip(matmul, before, strict=True):
            backend.fp32_precision = precision


@cache
def _cpu_precision() -> str:
    """The setting at which this CPU multiplies float32 matrices fast and rounds none
    of their factors: "bf16", if a number that bfloat16 cannot hold comes through.
    """
    matmul = torch.backends.mkldnn.matmul
    before, x = matmul.fp32_precision, torch.full((256, 256), 1 + 2.0**-20)
    matmul.fp32_precision = "bf16"
    try:
        return "bf16" if torch.equal(x @ torch.eye(256), x) else "ieee"
    finally:
        matmul.fp32_precision = before


def orthogonal(matrix: Tensor, iterations: int = 5) -> Tensor:
    """Roughly the nearest (semi-)orthogonal matrix, (M, N) -> (M, N).

    Its singular vectors are the matrix's own, its singular values lie between 0.7 and
    1.2. (Values below about 1/700 of the matrix's norm end lower; zeros stay.) Jordan
    et al. (2024): after division by the norm, x ← (a + b xxᵀ + c (xxᵀ)²) x moves all
    singular values at once. Every iteration multiplies by a polynomial in the first
    xxᵀ, so all of them are done on that square matrix, the smaller side wide, and x is
    multiplied by their product once. For 3×3 convolutions, nine times as wide as high,
    that is a third of the work.
    """
    x = matrix / (matrix.norm() + 1e-7)
    a, b, c = 3.4445, -4.7750, 2.0315
    if 1 in x.shape:  # its one singular value is 1 now
        value = 1.0
        for _ in range(iterations):
            value *= a + b * value**2 + c * value**4
        return value * x
    wide = x.shape[0] <= x.shape[1]
    x = x if wide else x.T

    def polynomial_of(square: Tensor) -> Tensor:
        polynomial = torch.addmm(square, square, square, beta=b, alpha=c)
        polynomial.diagonal().add_(a)
        return polynomial

    square = x @ x.T
    product = polynomial = polynomial_of(square)
    for _ in range(iterations - 1):
        square = polynomial @ square @ polynomial
        polynomial = polynomial_of(square)
        product = polynomial @ product
    x = product @ x
    return x if wide else x.T

"""A training small enough for tests, shared by those of the loop and of checkpoints."""

import torch
from torch import Tensor, nn

from lib.train import Batches, GradientStep


def make_step(width: int = 8, rate: float = 1e-2, steps: int = 60) -> GradientStep:
    """A small model with everything a checkpoint must not forget: dropout, batch norm, momenta, a schedule."""
    model = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Dropout(0.5), nn.Linear(width, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps + 1)
    return GradientStep(model, lambda x: {"loss": (model(x) ** 2).mean(), "norm": x.norm()}, optimizer, scheduler)


def make_batches(seed: int = 0, batch_size: int = 8, **options: bool) -> Batches:
    return Batches(torch.randn(37, 4, generator=torch.Generator().manual_seed(seed)), batch_size=batch_size, **options)


def weights(step: GradientStep) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in step.model.state_dict().values()])

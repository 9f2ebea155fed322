"""What several test files share: a training small enough for tests, and small models with a likelihood."""

import torch
from torch import Tensor, nn

from lib import likelihood, nets
from lib.likelihood import BernoulliVAE
from lib.linear_gaussian import LinearGaussian
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


def tiny_vae(latent_dim: int = 3, shape=(1, 4, 4), flow=None) -> BernoulliVAE:
    encoder, decoder = nets.mlp_encoder(shape, [16], 2 * latent_dim), nets.mlp_decoder(latent_dim, [16], shape)
    vae = BernoulliVAE(encoder, decoder, latent_dim, shape, flow)
    with torch.no_grad():  # far enough from the prior that a missing KL would show
        for parameter in vae.parameters():
            parameter.mul_(2)
    return vae


def binary_images(count: int, shape=(1, 4, 4)) -> torch.Tensor:
    return likelihood.binarise(torch.rand(count, *shape))


def linear_model(dim: int = 4, pixels: int = 12) -> LinearGaussian:
    weight = torch.randn(pixels, dim, dtype=torch.float64)
    return LinearGaussian(torch.randn(pixels, dtype=torch.float64), weight, sigma=0.7)

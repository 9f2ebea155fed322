"""Chapter 4: a training step of WGAN-GP, five updates of the critic and one of the generator."""

import torch
from torch import Tensor, nn

from benchmarks.harness import Case, Way, endless, repeated
from lib import nets, train, wgan

SHAPE, LATENT_DIM, SIZE, N_CRITIC, FOREVER = (3, 32, 32), 100, 64, 5, 10**6


def networks(width: int) -> tuple[nn.Module, nn.Module]:
    generator = nn.Sequential(nets.deconv_decoder(LATENT_DIM, [4 * width, 2 * width, width], SHAPE), nn.Sigmoid())
    return generator, nets.conv_critic(SHAPE, [width, 2 * width, 4 * width])


def our_step(width: int) -> wgan.WGANStep:
    generator, critic = (network.to(memory_format=torch.channels_last) for network in networks(width))
    return wgan.WGANStep(generator, critic, LATENT_DIM, FOREVER, n_critic=N_CRITIC)


def ordinary(layer: nn.Module) -> nn.Module:
    """torch's own layer for one of ours, which compute the same."""
    if isinstance(layer, nets.Leaky):
        return nn.LeakyReLU(layer.slope)
    if isinstance(layer, nets.CriticConv2d):
        return nn.Conv2d(layer.in_channels, layer.out_channels, 4, stride=2, padding=1)
    return layer


def tutorial(images: Tensor, width: int) -> Way:
    """The loop as it is usually written, with torch's own layers."""
    generator, critic = networks(width)
    critic = nn.Sequential(*map(ordinary, critic))
    optimizers = [torch.optim.Adam(net.parameters(), 2e-4, betas=(0.0, 0.9)) for net in (generator, critic)]
    batches = endless(images, SIZE)
    averaging = torch.optim.swa_utils.get_ema_avg_fn(0.999)
    average = torch.optim.swa_utils.AveragedModel(generator, avg_fn=averaging, use_buffers=True)

    def way(units: int) -> None:
        for _ in range(units):
            for _ in range(N_CRITIC):
                x, _ = next(batches)
                x_fake = generator(torch.randn(SIZE, LATENT_DIM)).detach()
                t = torch.rand(SIZE, 1, 1, 1)
                x_hat = (t * x + (1 - t) * x_fake).requires_grad_()
                (slope,) = torch.autograd.grad(critic(x_hat).sum(), x_hat, create_graph=True)
                penalty = (slope.flatten(1).norm(dim=1) - 1).pow(2).mean()
                loss = critic(x_fake).mean() - critic(x).mean() + 10 * penalty
                optimizers[1].zero_grad()
                loss.backward()
                optimizers[1].step()
            loss = -critic(generator(torch.randn(SIZE, LATENT_DIM))).mean()
            optimizers[0].zero_grad()
            loss.backward()
            optimizers[0].step()
            average.update_parameters(generator)
            loss.item()

    return way


def cases() -> list[Case]:
    images = torch.randint(256, (40 * SIZE, *SHAPE), dtype=torch.uint8)
    found = []
    for width in (16, 32):
        step = our_step(width)
        batches = train.Batches(images, batch_size=N_CRITIC * SIZE, drop_last=True)
        fixed = (images[: N_CRITIC * SIZE].float() / 255,)
        ways = {
            "ours": lambda n, step=step, batches=batches: train.fit(step, batches, n),
            "limit": repeated(our_step(width), fixed),
            "tutorial": tutorial(images, width),
        }
        bars = {"limit": 0.9, "tutorial": 1.3}
        found.append(Case(f"WGAN-GP, width {width}, batch {SIZE}", ways, 3, N_CRITIC * SIZE, bars))
    return found

"""Generative adversarial networks with the non-saturating loss.

Goodfellow et al. (2014). Networks come in as arguments.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lib.nets import pixels
from lib.train import evaluating, frozen


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """−log D(x) − log(1 − D(G(z))), averaged over the batch, in nats.

    Equation 1 of the paper, as what the discriminator minimises; D is the sigmoid of
    the logit. 2 log 2 where it cannot tell real from fake.
    """
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def generator_loss(fake_logits: Tensor) -> Tensor:
    """−log D(G(z)), averaged over the batch, in nats.

    The non-saturating loss (section 3 of the paper): its gradient is large when the
    discriminator is sure of a fake, where that of log(1 − D(G(z))) vanishes.
    """
    return F.softplus(-fake_logits).mean()


def sample(
    generator: nn.Module,
    count: int,
    latent_dim: int,
    device: torch.device | str,
    batch: int = 500,
) -> Tensor:
    """``count`` images G(z) in [0, 1], z ~ N(0, I), drawn in evaluation mode."""
    sizes = [min(batch, count - start) for start in range(0, count, batch)]
    with evaluating(generator):
        noise = (torch.randn(size, latent_dim, device=device) for size in sizes)
        return torch.cat([pixels(generator(z)) for z in noise])


class GANStep:
    """One update of the discriminator, one of the generator, and of its average.

    ``ema`` is what samples are drawn from: roughly the average of the last
    1/(1 − ``ema_decay``) generators, which no longer circles around the equilibrium
    with each step. Each call draws one batch of noise and uses it for both updates.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        generator_optimizer: torch.optim.Optimizer,
        discriminator_optimizer: torch.optim.Optimizer,
        latent_dim: int,
        ema_decay: float = 0.999,
    ) -> None:
        self.generator, self.discriminator = generator, discriminator
        self.generator_optimizer = generator_optimizer
        self.discriminator_optimizer = discriminator_optimizer
        self.latent_dim, self.ema_decay = latent_dim, ema_decay
        self.ema = AveragedModel(
            generator, multi_avg_fn=get_ema_multi_avg_fn(ema_decay), use_buffers=True
        )
        self.parts = {
            "generator": generator,
            "discriminator": discriminator,
            "generator_optimizer": generator_optimizer,
            "discriminator_optimizer": discriminator_optimizer,
            "ema": self.ema,
        }

    def __call__(self, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
        x = batch[0]
        self.generator.train()
        self.discriminator.train()
        z = torch.randn(len(x), self.latent_dim, device=x.device)
        x_fake = pixels(self.generator(z))

        # Detached: the generator's graph is still needed for its own update.
        real_logits = self.discriminator(x)
        fake_logits = self.discriminator(x_fake.detach())
        d_loss = discriminator_loss(real_logits, fake_logits)
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        d_loss.backward()
        self.discriminator_optimizer.step()

        # Nobody would use gradients of the discriminator's weights here.
        with frozen(self.discriminator):
            g_loss = generator_loss(self.discriminator(x_fake))
            self.generator_optimizer.zero_grad(set_to_none=True)
            g_loss.backward()
        self.generator_optimizer.step()
        self.ema.update_parameters(self.generator)
        return {"discriminator": d_loss.detach(), "generator": g_loss.detach()}

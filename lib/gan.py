"""The generative adversarial network of Goodfellow et al. (2014), with its non-saturating generator loss."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lib.nets import pixels
from lib.train import evaluating


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


def sample(generator: nn.Module, count: int, latent_dim: int, device: torch.device | str, batch: int = 500) -> Tensor:
    """``count`` images G(z) in [0, 1] with z ~ N(0, I), in evaluation mode, drawn in batches."""
    with evaluating(generator):
        return torch.cat(
            [
                pixels(generator(torch.randn(min(batch, count - start), latent_dim, device=device)))
                for start in range(0, count, batch)
            ]
        )


class GANStep:
    """One update of the discriminator, then one of the generator, and of the generator's moving average.

    ``ema`` is what samples are drawn from: the average of the last 1/(1 − ``ema_decay``) generators or so,
    which no longer circles around the equilibrium with each step.
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
        self.generator_optimizer, self.discriminator_optimizer = generator_optimizer, discriminator_optimizer
        self.latent_dim, self.ema_decay = latent_dim, ema_decay
        self.ema = AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(ema_decay), use_buffers=True)
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
        z = torch.randn(len(x), self.latent_dim, device=x.device)
        x_fake = pixels(self.generator(z))

        # Detached: the generator's graph is still needed for its own update.
        real_logits = self.discriminator(x)
        fake_logits = self.discriminator(x_fake.detach())
        d_loss = discriminator_loss(real_logits, fake_logits)
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        d_loss.backward()
        self.discriminator_optimizer.step()

        # No gradients for the discriminator's weights: nobody would use them.
        self.discriminator.requires_grad_(False)
        g_loss = generator_loss(self.discriminator(x_fake))
        self.generator_optimizer.zero_grad(set_to_none=True)
        g_loss.backward()
        self.generator_optimizer.step()
        self.discriminator.requires_grad_(True)
        self.ema.update_parameters(self.generator)
        return {"discriminator": d_loss.detach(), "generator": g_loss.detach()}

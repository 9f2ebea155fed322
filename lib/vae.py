"""The autoencoder and the variational autoencoder: models, objectives, and the terms of the ELBO.

Every term is per example, shape (B,), in nats where it is a log-probability; the mean over the batch is
taken once, last. Networks come in as arguments.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.nets import pixels


def reparameterise(mu: Tensor, logvar: Tensor) -> Tensor:
    """Draw z ~ N(mu, diag(exp(logvar))), (B, D), so that both get gradients.

    Kingma and Welling (2014), section 2.4: z = mu + sigma · eps, eps ~ N(0, I).
    """
    eps = torch.randn_like(mu)
    return mu + torch.exp(0.5 * logvar) * eps


def gaussian_kl(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, diag(exp(logvar))) ‖ N(0, I)) in nats, (B, D) -> (B,).

    Kingma and Welling (2014), appendix B: ½ Σ_d (mu² + sigma² − 1 − log sigma²).
    """
    return 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(1)


def gaussian_log_likelihood(x: Tensor, x_hat: Tensor, log_sigma: Tensor) -> Tensor:
    """log N(x; x_hat, sigma² I) in nats, summed over pixels, (B, C, H, W) -> (B,).

    One sigma for all pixels. With sigma fixed this is the squared error, scaled and
    shifted: sigma sets how much a unit of squared error weighs against a nat of KL.
    """
    squared_error = ((x - x_hat) / log_sigma.exp()) ** 2
    return -(0.5 * squared_error + log_sigma + 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)


def squared_error(x: Tensor, x_hat: Tensor) -> Tensor:
    """‖x − x_hat‖², summed over pixels, (B, C, H, W) -> (B,)."""
    return ((x - x_hat) ** 2).flatten(1).sum(1)


class Autoencoder(nn.Module):
    """A deterministic code: z = encoder(x), x_hat = sigmoid(decoder(z))."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def encode(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to codes (B, D)."""
        return self.encoder(x).float()

    def decode(self, z: Tensor) -> Tensor:
        """Codes (B, D) to images (B, C, H, W), pixels in [0, 1]."""
        return pixels(self.decoder(z))

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))


class VAE(nn.Module):
    """A Gaussian posterior per image, a standard normal prior, a Gaussian likelihood with one sigma.

    ``encoder`` ends in 2·D numbers, mu and logvar. ``sigma``, the likelihood's standard deviation per
    pixel, is fixed, or free with ``None``: then training keeps it where the ELBO is highest.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, sigma: float | None = None) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.sigma_is_free = sigma is None
        self.register_buffer("log_sigma", torch.tensor(math.log(0.3 if sigma is None else sigma)))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) to mu and logvar, each (B, D)."""
        mu, logvar = self.encoder(x).float().chunk(2, dim=1)
        return mu, logvar

    def decode(self, z: Tensor) -> Tensor:
        """Codes (B, D) to mean images (B, C, H, W), pixels in [0, 1]."""
        return pixels(self.decoder(z))

    @torch.no_grad()
    def calibrate(self, x: Tensor, x_hat: Tensor) -> None:
        """Move a free sigma towards its best value for one batch, as a running mean over batches.

        The ELBO is highest where sigma² is the mean squared error per pixel (Rybkin et al., 2021, section 3).
        """
        if self.sigma_is_free and self.training:
            self.log_sigma.lerp_(0.5 * F.mse_loss(x_hat, x).log(), 0.05)

    def forward(self, x: Tensor) -> Tensor:
        """The reconstruction from the posterior's mean."""
        return self.decode(self.encode(x)[0])


def elbo_terms(vae: VAE, x: Tensor) -> tuple[Tensor, Tensor]:
    """log p(x | z) at one z ~ q(z | x), and KL(q(z | x) ‖ p(z)), each (B,) in nats.

    Their difference is the ELBO, estimated with one draw.
    """
    mu, logvar = vae.encode(x)
    x_hat = vae.decode(reparameterise(mu, logvar))
    vae.calibrate(x, x_hat)
    return gaussian_log_likelihood(x, x_hat, vae.log_sigma), gaussian_kl(mu, logvar)


def vae_loss(vae: VAE, x: Tensor, likelihood_weight: float = 1, kl_weight: float = 1) -> dict[str, Tensor]:
    """The negative ELBO in nats per image, averaged over the batch, and its terms.

    A weight of 0 leaves a term out of what is minimised; both are reported.
    """
    log_likelihood, kl = elbo_terms(vae, x)
    loss = -(likelihood_weight * log_likelihood - kl_weight * kl).mean()
    return {"loss": loss, "log_likelihood": log_likelihood.mean(), "kl": kl.mean()}


def autoencoder_loss(autoencoder: Autoencoder, x: Tensor) -> dict[str, Tensor]:
    """‖x − x_hat‖² per image, averaged over the batch."""
    return {"loss": squared_error(x, autoencoder(x)).mean()}

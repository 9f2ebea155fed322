"""Autoencoders and variational autoencoders: models, objectives, terms of the ELBO.

Every term is per example, shape (B,), in nats where it is a log-probability; the mean
over the batch is taken once, last. Networks come in as arguments.
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
    mean_part, variance_part = gaussian_kl_parts(mu, logvar)
    return mean_part + variance_part


def gaussian_kl_parts(mu: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
    """The two parts of :func:`gaussian_kl`, each (B,) in nats and never negative.

    ½ Σ_d mu² pulls the means to 0, ½ Σ_d (sigma² − 1 − log sigma²) the variances to 1.
    """
    mean_part = 0.5 * (mu**2).sum(1)
    variance_part = 0.5 * (logvar.exp() - 1 - logvar).sum(1)
    return mean_part, variance_part


def gaussian_log_likelihood(x: Tensor, x_hat: Tensor, log_sigma: Tensor) -> Tensor:
    """log N(x; x_hat, sigma² I) in nats, summed over pixels, (B, C, H, W) -> (B,).

    One sigma for all pixels. With sigma fixed this is the squared error, scaled and
    shifted: sigma sets how much a unit of squared error weighs against a nat of KL.
    """
    squared_error = ((x - x_hat) / log_sigma.exp()) ** 2
    return (
        -(0.5 * squared_error + log_sigma + 0.5 * math.log(2 * math.pi))
        .flatten(1)
        .sum(1)
    )


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
    """A Gaussian posterior per image, a standard normal prior, a Gaussian likelihood.

    ``encoder`` ends in 2·D numbers, mu and logvar. ``sigma``, the likelihood's standard
    deviation per pixel, is fixed, or free with ``None``: then training keeps it where
    the ELBO is highest.
    """

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, sigma: float | None = None
    ) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.sigma_is_free = sigma is None
        self.register_buffer(
            "log_sigma", torch.tensor(math.log(0.3 if sigma is None else sigma))
        )

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) to mu and logvar, each (B, D)."""
        mu, logvar = self.encoder(x).float().chunk(2, dim=1)
        return mu, logvar

    def decode(self, z: Tensor) -> Tensor:
        """Codes (B, D) to mean images (B, C, H, W), pixels in [0, 1]."""
        return pixels(self.decoder(z))

    def reconstruct(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x_hat from one z ~ q(z | x), and the mu and logvar of q."""
        mu, logvar = self.encode(x)
        return self.decode(reparameterise(mu, logvar)), mu, logvar

    @torch.no_grad()
    def calibrate(self, x: Tensor, x_hat: Tensor) -> None:
        """Move sigma towards its best value for one batch, a running mean over batches.

        The ELBO is highest where sigma² is the mean squared error per pixel (Rybkin
        et al., 2021, section 3). Nothing happens in evaluation mode or to a fixed
        sigma.
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
    x_hat, mu, logvar = vae.reconstruct(x)
    return gaussian_log_likelihood(x, x_hat, vae.log_sigma), gaussian_kl(mu, logvar)


def vae_loss(
    vae: VAE,
    x: Tensor,
    likelihood_weight: float = 1,
    mean_weight: float = 1,
    variance_weight: float = 1,
) -> dict[str, Tensor]:
    """The negative ELBO in nats per image, averaged over the batch, and its terms.

    A weight of 0 leaves a term out of what is minimised: the log-likelihood, the part
    of the KL that pulls at means, or the part that pulls at variances. The
    log-likelihood and the whole KL are reported, whatever the weights.
    """
    x_hat, mu, logvar = vae.reconstruct(x)
    vae.calibrate(x, x_hat)
    log_likelihood = gaussian_log_likelihood(x, x_hat, vae.log_sigma)
    mean_part, variance_part = gaussian_kl_parts(mu, logvar)
    penalty = mean_weight * mean_part + variance_weight * variance_part
    return {
        "loss": (penalty - likelihood_weight * log_likelihood).mean(),
        "log_likelihood": log_likelihood.mean(),
        "kl": (mean_part + variance_part).mean(),
    }


def autoencoder_loss(autoencoder: Autoencoder, x: Tensor) -> dict[str, Tensor]:
    """‖x − x_hat‖² per image, averaged over the batch."""
    return {"loss": squared_error(x, autoencoder(x)).mean()}

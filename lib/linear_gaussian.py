"""The exact case: a linear model whose likelihood and posterior are known."""

import math

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn
from torch.distributions import (
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
)


class LinearGaussian(nn.Module):
    """Probabilistic PCA: z ~ N(0, I), x ~ N(mean + W z, sigma² I), where log p(x) is
    known (Tipping and Bishop, 1999).

    ``mean`` (P,) and ``weight`` (P, D), in double precision if they are. ``posterior``
    is the exact one; ``mean_field`` the best with a diagonal covariance, which is what
    a VAE's encoder could at most give.
    """

    def __init__(self, mean: Tensor, weight: Tensor, sigma: float) -> None:
        super().__init__()
        if weight.dim() != 2 or mean.shape != weight.shape[:1]:
            raise ValueError(
                f"mean {tuple(mean.shape)} and weight {tuple(weight.shape)}: (P,) and "
                "(P, D) are wanted."
            )
        if sigma <= 0:
            raise ValueError(f"sigma={sigma}: a standard deviation above 0 is wanted.")
        self.sigma = sigma
        identity = torch.eye(weight.shape[1]).to(weight)
        self.register_buffer("mean", mean)
        self.register_buffer("weight", weight)
        self.register_buffer("precision", weight.T @ weight / sigma**2 + identity)

    @classmethod
    def from_pca(cls, pca: PCA, turn: Tensor | None = None) -> "LinearGaussian":
        """The maximum-likelihood model that scikit-learn's PCA fitted, in double
        precision.

        ``turn`` (D, D), orthogonal, turns the latent axes: p(x) stays what it is, the
        posterior's covariance turns with them.
        """
        scale = np.sqrt(pca.explained_variance_ - pca.noise_variance_)
        weight = torch.from_numpy(pca.components_.T * scale).double()
        weight = weight if turn is None else weight @ turn.to(weight)
        return cls(
            torch.from_numpy(pca.mean_).double(), weight, math.sqrt(pca.noise_variance_)
        )

    @property
    def prior(self) -> Independent:
        """N(0, I), event (D,)."""
        origin = torch.zeros_like(self.weight[0])
        return Independent(
            Normal(origin, torch.ones_like(origin), validate_args=False), 1
        )

    def marginal(self) -> LowRankMultivariateNormal:
        """p(x) = N(mean, W Wᵀ + sigma² I), event (P,): its log_prob is the truth."""
        return LowRankMultivariateNormal(
            self.mean, self.weight, torch.full_like(self.mean, self.sigma**2)
        )

    def posterior(self, x: Tensor) -> MultivariateNormal:
        """p(z | x) = N(m, Λ⁻¹) with Λ = I + WᵀW/sigma² and m = Λ⁻¹ Wᵀ (x −
        mean)/sigma², for x (B, P).
        """
        return MultivariateNormal(
            self._posterior_mean(x),
            precision_matrix=self.precision,
            validate_args=False,
        )

    def mean_field(self, x: Tensor) -> Independent:
        """The diagonal q that is closest in KL(q ‖ p(z | x)): the same mean m,
        variances 1/Λ_dd.
        """
        m = self._posterior_mean(x)
        return Independent(
            Normal(
                m, self.precision.diagonal().rsqrt().expand_as(m), validate_args=False
            ),
            1,
        )

    def _posterior_mean(self, x: Tensor) -> Tensor:
        pull = (x - self.mean) @ self.weight / self.sigma**2
        return torch.linalg.solve(self.precision, pull.T).T

    def mean_field_gap(self) -> Tensor:
        """KL(mean_field ‖ posterior) = ½ (Σ_d log Λ_dd − log det Λ): its ELBO's
        distance below every log p(x).
        """
        return 0.5 * (
            self.precision.diagonal().log().sum() - torch.logdet(self.precision)
        )

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) for x (B, P) and z (K, B, D), shape (K, B), in nats."""
        return (
            Normal(self.mean + z @ self.weight.T, self.sigma, validate_args=False)
            .log_prob(x)
            .sum(-1)
        )

    def sample(self, count: int) -> tuple[Tensor, Tensor]:
        """z ~ p(z) (count, D), and x ~ p(x | z) (count, P)."""
        z = self.prior.sample((count,))
        return z, Normal(self.mean + z @ self.weight.T, self.sigma).sample()

"""Moving and measuring in a space of codes, whatever model they belong to.

Codes are (B, D). Nothing here decodes: a chapter does, with the network it has.
"""

import torch
from torch import Tensor


def lerp(z0: Tensor, z1: Tensor, alpha: Tensor) -> Tensor:
    """Points on the line from codes z0 to z1 (B, D) at alpha (A,): (A, B, D)."""
    return torch.lerp(z0, z1, alpha.view(-1, 1, 1))


def slerp(z0: Tensor, z1: Tensor, alpha: Tensor) -> Tensor:
    """Points on the great circle from codes z0 to z1 (B, D) at alpha (A,): (A, B, D).

    sin((1 − α)ω)/sin ω · z0 + sin(αω)/sin ω · z1 with the angle ω between them
    (Shoemake, 1985; for latent spaces White, 2016). Lengths stay between those of the
    ends as far as these are equal.
    """
    cosine = torch.cosine_similarity(z0, z1).clamp(-1 + 1e-6, 1 - 1e-6)
    omega = cosine.acos().view(1, -1, 1)
    alpha = alpha.view(-1, 1, 1)
    return (((1 - alpha) * omega).sin() * z0 + (alpha * omega).sin() * z1) / omega.sin()


def draw_fitted(z: Tensor, count: int) -> Tensor:
    """``count`` codes from the Gaussian with mean and covariance of z (N, D).

    The fair way to sample a model that has no prior: look where its codes are (Ghosh et
    al., 2020, section 4).
    """
    z = z.double()
    # A dimension that is never used has no variance, and a covariance no inverse.
    covariance = z.T.cov() + 1e-6 * torch.eye(z.shape[1], device=z.device)
    fitted = torch.distributions.MultivariateNormal(z.mean(0), covariance)
    return fitted.sample((count,)).float()


def random_directions(lengths: Tensor, dim: int) -> Tensor:
    """Codes (N, dim) of these lengths (N,), each in a direction of its own.

    Directions are uniform on the sphere: the draws of an isotropic normal distribution,
    brought to given lengths.
    """
    directions = torch.randn(len(lengths), dim, device=lengths.device)
    return lengths[:, None] * torch.nn.functional.normalize(directions, dim=1)


def nearest_distances(z: Tensor, bank: Tensor, batch: int = 500) -> Tensor:
    """Distances (N,) of codes z (N, D) from the nearest code of a bank (M, D)."""
    parts = [torch.cdist(part, bank).amin(1) for part in z.split(batch)]
    return torch.cat(parts)


def emptiness(z: Tensor, z_test: Tensor, bank: Tensor) -> float:
    """How much farther random codes z lie from the training codes than test codes do.

    The ratio of median distances to the nearest code of the bank, the training codes:
    1 where random codes fall as close as those of unseen images, more where they fall
    into gaps. Codes are (N, D); the ratio does not depend on their scale.
    """
    random, test = (nearest_distances(codes, bank).median() for codes in (z, z_test))
    return (random / test).item()


def nudge(z: Tensor, share: float) -> Tensor:
    """Each code z (N, D) moved in a random direction by a share of a typical distance.

    The typical distance is that between two codes, taken as the root mean square over
    pairs: √2 times the norm of the standard deviations.
    """
    typical = 2**0.5 * z.std(0).norm()
    direction = torch.nn.functional.normalize(torch.randn_like(z), dim=1)
    return z + share * typical * direction

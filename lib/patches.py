"""Features from k-means: a dictionary of image patches, and no training of any network.

Coates, Lee and Ng (2011). Patches are made of equal brightness and contrast and
whitened, k-means finds K typical ones, and an image is described by how near each of
its patches lies to each of them, summed over the four quadrants.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.data import to_unit

EPSILON = 10 / 255**2
"""Added to the variance of a patch's pixels in [0, 1]: the paper's 10, of 0–255."""

RIDGE = 0.1
"""Added to the eigenvalues of the patches' covariance, the paper's ε for ZCA."""


def draw(images: Tensor, count: int, size: int) -> Tensor:
    """``count`` random square patches (count, C, size, size) of uint8 images
    (N, C, H, W), as pixels in [0, 1].

    Raises ValueError for patches larger than the images.
    """
    _, _, height, width = images.shape
    if not 1 <= size <= min(height, width):
        raise ValueError(
            f"size={size}: patches of images of {height}×{width} pixels have a side of "
            f"1 to {min(height, width)}."
        )
    span = torch.arange(size, device=images.device)

    def within(high: int) -> Tensor:
        return torch.randint(high, (count, 1), device=images.device)

    image = within(len(images)).view(-1, 1, 1)
    rows = (within(height - size + 1) + span).unsqueeze(2)
    columns = (within(width - size + 1) + span).unsqueeze(1)
    # Advanced indices around the channels put these last.
    return to_unit(images[image, :, rows, columns].permute(0, 3, 1, 2))


def normalise(patches: Tensor) -> Tensor:
    """Patches (B, …), each flattened to mean 0 and standard deviation about 1: (B, P).

    Section 3.1.1 of the paper: (x − mean) / √(variance + :data:`EPSILON`).
    """
    x = patches.flatten(1)
    return F.layer_norm(x, x.shape[1:], eps=EPSILON)


@dataclass(frozen=True)
class Whitening:
    """ZCA: a rotation, a rescaling and the rotation back, after which patches are
    uncorrelated and still look like patches.
    """

    mean: Tensor
    """(P,), of normalised patches."""
    matrix: Tensor
    """(P, P), symmetric: V (Λ + ridge)^−½ Vᵀ for the covariance V Λ Vᵀ."""

    @classmethod
    def fit(cls, x: Tensor, ridge: float = RIDGE) -> "Whitening":
        """From patches (N, P); section 3.1.2 of the paper."""
        values, vectors = torch.linalg.eigh(torch.cov(x.T.double()))
        matrix = vectors @ torch.diag((values + ridge).rsqrt()) @ vectors.T
        return cls(x.mean(0), matrix.to(x.dtype))

    def __call__(self, x: Tensor) -> Tensor:
        """Patches (B, P), whitened: (B, P)."""
        return (x - self.mean) @ self.matrix


def cluster(x: Tensor, count: int, seed: int = 0) -> Tensor:
    """``count`` centres (count, P) of whitened patches (N, P), by k-means.

    Raises ValueError for fewer patches than centres.
    """
    from sklearn.cluster import MiniBatchKMeans

    if not 1 <= count <= len(x):
        raise ValueError(f"count={count}: choose 1 to {len(x)}, the number of patches.")
    means = MiniBatchKMeans(
        count, init="random", batch_size=4096, n_init=1, random_state=seed
    )
    found = means.fit(x.cpu().numpy()).cluster_centers_
    return torch.from_numpy(found).to(x)


class PatchFeatures(nn.Module):
    """Images (B, C, H, W), pixels in [0, 1], to features (B, 4·K) for K centres.

    Every patch of an image is normalised and whitened. Of its distances z to all
    centres the *triangle* activation max(0, mean(z) − z) keeps those that are shorter
    than average (section 3.2.1 of the paper, f_k), and these are averaged over each
    quadrant of the image, where the paper takes sums.
    """

    def __init__(self, centres: Tensor, whitening: Whitening, size: int) -> None:
        """``centres`` (K, P) of whitened patches of ``size`` × ``size`` pixels."""
        super().__init__()
        self.size = size
        self.register_buffer("centres", centres)
        self.register_buffer("mean", whitening.mean)
        self.register_buffer("matrix", whitening.matrix)

    def forward(self, x: Tensor) -> Tensor:
        # A few images at a time: their distances, (729 · K) numbers an image of 32×32
        # pixels, are written and read several times and should stay in the cache.
        return torch.cat([self._features(part) for part in x.split(2)])

    def _features(self, x: Tensor) -> Tensor:
        height, width = (side - self.size + 1 for side in x.shape[2:])
        patches = F.unfold(x, self.size).mT.flatten(0, 1)  # (B · height · width, P)
        near = triangle(self._whitened(patches), self.centres)
        near = near.view(len(x), height, width, -1)
        top, left = (height + 1) // 2, (width + 1) // 2
        quadrants = [
            half.mean((1, 2))
            for rows in near.split([top, height - top], dim=1)
            for half in rows.split([left, width - left], dim=2)
        ]
        return torch.cat(quadrants, dim=1)

    def _whitened(self, patches: Tensor) -> Tensor:
        return Whitening(self.mean, self.matrix)(normalise(patches))


def triangle(x: Tensor, centres: Tensor) -> Tensor:
    """max(0, mean(z) − z) for the distances z of patches (B, P) to centres (K, P):
    (B, K).
    """
    # ‖x − c‖² = ‖x‖² − 2 x·c + ‖c‖²: the products may be taken in bfloat16 (autocast),
    # the sum may not. In place, because this is where the time goes.
    z = torch.sub(centres.square().sum(1), x @ centres.T, alpha=2)
    z.add_(x.square().sum(1, keepdim=True)).clamp_(min=0).sqrt_()
    return torch.sub(z.mean(1, keepdim=True), z, out=z).clamp_(min=0)


def learn(
    images: Tensor,
    count: int,
    size: int = 6,
    patches: int = 100_000,
    seed: int = 0,
    clustered: bool = True,
) -> PatchFeatures:
    """Features with ``count`` centres, learned from ``patches`` random patches of uint8
    images (N, C, H, W).

    Without ``clustered``, the centres are whitened patches as they were drawn: what
    k-means is to be compared with.
    """
    x = normalise(draw(images, patches, size))
    whitening = Whitening.fit(x)
    centres = cluster(whitening(x), count, seed) if clustered else whitening(x[:count])
    return PatchFeatures(centres, whitening, size)

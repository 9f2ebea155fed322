"""Pixels predicted from the pixels around them."""

from torch import Tensor
from torch.nn import functional as F


def from_neighbours(x: Tensor) -> Tensor:
    """Predict each pixel as the mean of the four beside it.

    Images x (N, C, H, W) give predictions of the same shape. Beyond an edge, the edge's
    pixels repeat.
    """
    around = F.pad(x, (1, 1, 1, 1), mode="replicate")
    across = around[..., 1:-1, :-2] + around[..., 1:-1, 2:]
    along = around[..., :-2, 1:-1] + around[..., 2:, 1:-1]
    return (across + along) / 4

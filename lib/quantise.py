"""Networks small enough for a web page: weights rounded to eight bits."""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Quantised(NamedTuple):
    """The linear layers of a network, one after the other in flat tensors.

    Layer i maps sizes[i] numbers to sizes[i + 1]. Its weight in row r is
    ``weights · scale[r]``; a ReLU stands between layers and nothing behind the last.
    """

    sizes: list[int]
    weights: Tensor
    """int8, −127 to 127, row by row, (Σ sizes[i] · sizes[i + 1],)."""
    scale: Tensor
    """float32, one for each row of each layer, (Σ sizes[i + 1],)."""
    bias: Tensor
    """float32, as many."""


def quantise(network: nn.Sequential) -> Quantised:
    """The linear layers of a multilayer perceptron with ReLUs between them.

    Each row is rounded to 255 levels of its own, so a weight is off by at most half of
    its row's largest, over 127. Flatten and unflatten layers are left out: the numbers
    keep their order. Raises ValueError for any other layer.
    """
    kinds = (nn.Linear, nn.ReLU, nn.Flatten, nn.Unflatten)
    other = [layer for layer in network if not isinstance(layer, kinds)]
    if other:
        raise ValueError(
            f"{other[0]}: only linear layers with ReLUs between them are quantised."
        )
    layers = [layer for layer in network if isinstance(layer, nn.Linear)]
    sizes = [layers[0].in_features, *(layer.out_features for layer in layers)]
    rows = [layer.weight.detach().float().cpu() for layer in layers]
    scales = [row.abs().amax(1).clamp(min=1e-12) / 127 for row in rows]
    levels = [
        (row / scale[:, None]).round().to(torch.int8)
        for row, scale in zip(rows, scales, strict=True)
    ]
    return Quantised(
        sizes,
        torch.cat([level.flatten() for level in levels]),
        torch.cat(scales),
        torch.cat([layer.bias.detach().float().cpu() for layer in layers]),
    )

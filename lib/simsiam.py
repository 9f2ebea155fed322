"""SimSiam (Chen and He, 2021): two views, one network, one stopped gradient.

Networks come in as arguments; :mod:`lib.views` makes the views.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VARIANTS = ("SimSiam", "no stop-gradient", "no predictor", "no batch norm")
"""The method, and three ways to take a part of it away."""


# --- the objective --------------------------------------------------------------------


def negative_cosine(p: Tensor, z: Tensor, stop_gradient: bool = True) -> Tensor:
    """−cos(p, z) of predictions and targets (B, D), per example (B,), from −1 (alike)
    to 1.

    Equation 1 of the paper, and with ``stop_gradient`` the D(p, stopgrad(z)) of
    equation 3: z is then a constant, and no gradient reaches the branch that made it.
    In float32 at least, whatever the network ran in.
    """
    target = z.detach() if stop_gradient else z
    full = torch.promote_types(p.dtype, torch.float32)
    return -F.cosine_similarity(p.to(full), target.to(full), dim=1)


class SimSiam(nn.Module):
    """An encoder, a projector and a predictor; with ``stop_gradient`` off, one that is
    free to collapse.
    """

    def __init__(
        self,
        encoder: nn.Module,
        projector: nn.Module,
        predictor: nn.Module,
        stop_gradient: bool = True,
    ) -> None:
        super().__init__()
        self.encoder, self.projector, self.predictor = encoder, projector, predictor
        self.stop_gradient = stop_gradient

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Projection z and prediction p, (B, D) each, of images (B, C, H, W)."""
        z = self.projector(self.encoder(x))
        return z, self.predictor(z)

    def loss(self, x1: Tensor, x2: Tensor) -> dict[str, Tensor]:
        """The symmetric loss, equation 4, over a batch of two views, and the collapse
        meter of the first.

        Each view passes alone, so that batch norm sees one view's statistics at a time.
        Raises ValueError for fewer than 2 images: batch norm would subtract an image
        from itself.
        """
        if len(x1) < 2:
            raise ValueError(
                f"A batch of {len(x1)}: batch norm needs at least 2 images."
            )
        (z1, p1), (z2, p2) = self(x1), self(x2)
        terms = (
            negative_cosine(p1, z2, self.stop_gradient)
            + negative_cosine(p2, z1, self.stop_gradient)
        ) / 2
        return {"loss": terms.mean(), "spread": spread(z1.detach())}


def spread(z: Tensor) -> Tensor:
    """The collapse meter of outputs (B, D): 1 where they spread over the sphere evenly,
    0 where all point one way.

    The standard deviation over the batch of each number of z / ‖z‖₂, averaged, over its
    value 1/√D for directions of no preference (section 4.1 of the paper). Outputs that
    sum to 0 over the batch, as batch norm makes them while it trains and has no shift,
    keep its root mean square over the D numbers at 2/√B or above, however collapsed
    they are: all but one may point one way. (The mean of the deviations may be less,
    where few numbers carry the outputs.) Judge collapse in evaluation mode.
    """
    return F.normalize(z.float(), dim=1).std(0).mean() * math.sqrt(z.shape[1])


# --- the two heads --------------------------------------------------------------------


def projector(features: int, dim: int, batch_norm: bool = True) -> nn.Sequential:
    """Features (B, features) to projections (B, dim): two layers, both with batch norm,
    the last without ReLU.

    "The projection MLP (in f) has BN applied to each fully-connected (fc) layer,
    including its output fc. Its output fc has no ReLU." The paper has 3 layers for
    ImageNet and 2 for CIFAR-10. The last batch norm has a scale and a shift, as in its
    table 3; there they are found needless, and its published code leaves them out.
    """
    return nn.Sequential(
        *_layer(features, dim, batch_norm),
        nn.ReLU(inplace=True),
        *_layer(dim, dim, batch_norm),
    )


def predictor(dim: int, hidden: int, batch_norm: bool = True) -> nn.Sequential:
    """Projections (B, dim) to predictions (B, dim) through a narrower hidden layer.

    "The prediction MLP (h) has BN applied to its hidden fc layers. Its output fc does
    not have BN […] or ReLU."
    """
    return nn.Sequential(
        *_layer(dim, hidden, batch_norm), nn.ReLU(inplace=True), nn.Linear(hidden, dim)
    )


def _layer(wide: int, narrow: int, batch_norm: bool) -> list[nn.Module]:
    """A linear layer and its batch norm, whose shift makes the layer's own needless."""
    if batch_norm:
        return [nn.Linear(wide, narrow, bias=False), nn.BatchNorm1d(narrow)]
    return [nn.Linear(wide, narrow)]


def build(
    variant: str, encoder: nn.Module, features: int, dim: int, hidden: int
) -> SimSiam:
    """One of :data:`VARIANTS` around an encoder of so many ``features``.

    Raises ValueError for an unknown variant.
    """
    if variant not in VARIANTS:
        raise ValueError(
            f"variant={variant!r}: choose one of {', '.join(map(repr, VARIANTS))}."
        )
    batch_norm = variant != "no batch norm"
    return SimSiam(
        encoder,
        projector(features, dim, batch_norm),
        nn.Identity()
        if variant == "no predictor"
        else predictor(dim, hidden, batch_norm),
        stop_gradient=variant != "no stop-gradient",
    )

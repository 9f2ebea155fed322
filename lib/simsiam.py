"""SimSiam (Chen and He, 2021): two views, one network, one stopped gradient.

Networks come in as arguments; :mod:`lib.views` makes the views.
"""

import math
from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VARIANTS = {
    "full": {},
    "free": {"stop_gradient": False},
    "unpredicted": {"predicts": False},
    "unnormed": {"norms": ()},
    "unnormed_free": {"norms": (), "stop_gradient": False},
    "unnormed_unpredicted": {"norms": (), "predicts": False},
    "unnormed_projector": {"norms": ("predictor",)},
    "unnormed_predictor": {"norms": ("projector",)},
}
"""Options of :func:`build`: the method, and ways to take a part of it away.

Without a predictor the stop-gradient only halves the gradient, so the two together are
no variant of their own.
"""


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

    def loss(self, *views: Tensor) -> dict[str, Tensor]:
        """The loss of two or more views of a batch, and the collapse meter of the
        first.

        Each view's prediction meets the mean of the other views' projections. With two
        views that is equation 4 of the paper, with more FastSiam (Pototzky et al.,
        2022), whose target has less noise.

        Each view passes alone, so that batch norm sees one view's statistics at a time.
        Raises ValueError for fewer than 2 views, and for fewer than 2 images: batch
        norm would subtract an image from itself.
        """
        if len(views) < 2 or len(views[0]) < 2:
            raise ValueError(
                f"{len(views)} views of {len(views[0]) if views else 0} images: a view "
                "needs another to predict, and batch norm needs at least 2 images."
            )
        zs, ps = zip(*(self(x) for x in views), strict=True)
        terms = [
            negative_cosine(p, mean_of_others(zs, i), self.stop_gradient)
            for i, p in enumerate(ps)
        ]
        return {
            "loss": torch.stack(terms).mean(),
            "spread": spread(zs[0].detach()),
        }


def mean_of_others(zs: Sequence[Tensor], i: int) -> Tensor:
    """The mean of all projections (B, D) but the i-th."""
    return torch.stack([z for j, z in enumerate(zs) if j != i]).mean(0)


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


def on_axes(snapshots: Tensor) -> Tensor:
    """Unit vectors (N, D) at T moments, (T, N, D), on two axes each: (T, N, 2).

    The axes of a moment are the two directions in which its vectors are longest
    together, right singular vectors of the matrix, which is not centred: vectors that
    all agree lie on one point of the unit circle, others within it. Both axes are
    turned so that each moment lies as near as it can to the one before.
    """
    found: list[Tensor] = []
    for z in snapshots.double():
        flat = z @ torch.linalg.svd(z, full_matrices=False).Vh[:2].T
        if found:
            u, _, v = torch.linalg.svd(flat.T @ found[-1])
            flat = flat @ u @ v
        found.append(flat)
    return torch.stack(found)


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
    encoder: nn.Module,
    features: int,
    dim: int,
    hidden: int,
    *,
    stop_gradient: bool = True,
    predicts: bool = True,
    norms: Collection[str] = ("projector", "predictor"),
) -> SimSiam:
    """SimSiam around an encoder of so many ``features``, or one of :data:`VARIANTS`:
    without the stop-gradient, without the predictor, without batch norm in a head.
    """
    guess = predictor(dim, hidden, "predictor" in norms) if predicts else nn.Identity()
    head = projector(features, dim, "projector" in norms)
    return SimSiam(encoder, head, guess, stop_gradient)

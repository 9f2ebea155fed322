"""SimSiam (Chen and He, 2021): two views of an image, one network, one predictor, one stopped gradient.

The views are made here, too: a whole batch at once, on the device it lies on, each image with random
numbers of its own.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VARIANTS = ("SimSiam", "no stop-gradient", "no predictor", "no batch norm")
"""The method, and three ways to take a part of it away."""

GREY = (0.2989, 0.587, 0.114)
"""How much red, green and blue add to a grey level (ITU-R BT.601)."""


# --- the objective ---------------------------------------------------------------------------------


def negative_cosine(p: Tensor, z: Tensor, stop_gradient: bool = True) -> Tensor:
    """−cos(p, z) of predictions and targets (B, D), per example (B,), from −1 (alike) to 1.

    Equation 1 of the paper, and with ``stop_gradient`` the D(p, stopgrad(z)) of equation 3: z is then a
    constant, and no gradient reaches the branch that made it. In float32 at least, whatever the network ran in.
    """
    target = z.detach() if stop_gradient else z
    full = torch.promote_types(p.dtype, torch.float32)
    return -F.cosine_similarity(p.to(full), target.to(full), dim=1)


class SimSiam(nn.Module):
    """An encoder, a projector and a predictor; with ``stop_gradient`` off, one that is free to collapse."""

    def __init__(
        self, encoder: nn.Module, projector: nn.Module, predictor: nn.Module, stop_gradient: bool = True
    ) -> None:
        super().__init__()
        self.encoder, self.projector, self.predictor = encoder, projector, predictor
        self.stop_gradient = stop_gradient

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Projection z and prediction p, (B, D) each, of images (B, C, H, W)."""
        z = self.projector(self.encoder(x))
        return z, self.predictor(z)

    def loss(self, x1: Tensor, x2: Tensor) -> dict[str, Tensor]:
        """The symmetric loss, equation 4, over a batch of two views, and the collapse meter of the first.

        Each view passes alone, so that batch norm sees one view's statistics at a time. Raises ValueError
        for fewer than 2 images: batch norm would subtract an image from itself.
        """
        if len(x1) < 2:
            raise ValueError(f"A batch of {len(x1)}: batch norm needs at least 2 images.")
        (z1, p1), (z2, p2) = self(x1), self(x2)
        terms = (negative_cosine(p1, z2, self.stop_gradient) + negative_cosine(p2, z1, self.stop_gradient)) / 2
        return {"loss": terms.mean(), "spread": spread(z1.detach())}


def spread(z: Tensor) -> Tensor:
    """The collapse meter of outputs (B, D): 1 where they spread over the sphere evenly, 0 where all point one way.

    The standard deviation over the batch of each number of z / ‖z‖₂, averaged, over its value 1/√D for
    directions of no preference (section 4.1 of the paper). Outputs that sum to 0 over the batch, as batch norm
    makes them while it trains and has no shift, keep its root mean square over the D numbers at 2/√B or above,
    however collapsed they are: all but one may point one way. (The mean of the deviations may be less, where few
    numbers carry the outputs.) Judge collapse in evaluation mode.
    """
    return F.normalize(z.float(), dim=1).std(0).mean() * math.sqrt(z.shape[1])


# --- the two heads ---------------------------------------------------------------------------------


def projector(features: int, dim: int, batch_norm: bool = True) -> nn.Sequential:
    """Features (B, features) to projections (B, dim): two layers, both with batch norm, the last without ReLU.

    "The projection MLP (in f) has BN applied to each fully-connected (fc) layer, including its output fc.
    Its output fc has no ReLU." The paper has 3 layers for ImageNet and 2 for CIFAR-10. The last batch norm has
    a scale and a shift, as in its table 3; there they are found needless, and its published code leaves them out.
    """
    return nn.Sequential(*_layer(features, dim, batch_norm), nn.ReLU(inplace=True), *_layer(dim, dim, batch_norm))


def predictor(dim: int, hidden: int, batch_norm: bool = True) -> nn.Sequential:
    """Projections (B, dim) to predictions (B, dim) through a narrower hidden layer.

    "The prediction MLP (h) has BN applied to its hidden fc layers. Its output fc does not have BN […] or ReLU."
    """
    return nn.Sequential(*_layer(dim, hidden, batch_norm), nn.ReLU(inplace=True), nn.Linear(hidden, dim))


def _layer(wide: int, narrow: int, batch_norm: bool) -> list[nn.Module]:
    """A linear layer and its batch norm, whose shift makes the layer's own needless."""
    if batch_norm:
        return [nn.Linear(wide, narrow, bias=False), nn.BatchNorm1d(narrow)]
    return [nn.Linear(wide, narrow)]


def build(variant: str, encoder: nn.Module, features: int, dim: int, hidden: int) -> SimSiam:
    """One of :data:`VARIANTS` around an encoder of so many ``features``.

    Raises ValueError for an unknown variant.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant={variant!r}: choose one of {', '.join(map(repr, VARIANTS))}.")
    batch_norm = variant != "no batch norm"
    return SimSiam(
        encoder,
        projector(features, dim, batch_norm),
        nn.Identity() if variant == "no predictor" else predictor(dim, hidden, batch_norm),
        stop_gradient=variant != "no stop-gradient",
    )


# --- views -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Augmentation:
    """Random views of images: crop and resize, flip, colour jitter, grey, as SimSiam takes them on CIFAR-10.

    The same distributions as torchvision's RandomResizedCrop, RandomHorizontalFlip, RandomApply of
    ColorJitter and RandomGrayscale, drawn for each image on its own; only the order of the four jitters
    is one for the whole batch. There is no blur: 32×32 pixels have no detail to lose.
    """

    scale: tuple[float, float] = (0.2, 1.0)
    """Area of the crop, as a fraction of the image's."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Width of the crop over its height."""
    flip: float = 0.5
    jitter: float = 0.8
    grey: float = 0.2
    """Probabilities of a flip, of jitter, of a grey view."""
    strength: float = 0.4
    """Brightness, contrast and saturation are multiplied by 1 − strength … 1 + strength."""
    hue: float = 0.1
    """Hue turns by up to so much of the colour circle, either way."""

    def __call__(self, x: Tensor) -> Tensor:
        """One view of each image (B, 3, H, W), pixels in [0, 1], of the same shape."""
        boxes = self.boxes(len(x), x.shape[2], x.shape[3], x.device)
        flipped = torch.rand(len(x), device=x.device) < self.flip
        return self.recolour(crop_resize(x, boxes, flipped))

    def boxes(self, count: int, height: int, width: int, device: torch.device) -> Tensor:
        """``count`` boxes (top, left, height, width), whole pixels, within an image: int64 (count, 4).

        Up to ten tries for a crop that fits, then the whole image, as RandomResizedCrop.get_params.
        """
        tries = (count, 10)
        area = height * width * torch.empty(tries, device=device).uniform_(*self.scale)
        ratio = torch.empty(tries, device=device).uniform_(*map(math.log, self.ratio)).exp()
        w, h = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
        fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
        first = fits.int().argmax(1, keepdim=True)
        found = fits.any(1)
        w = torch.where(found, w.gather(1, first).squeeze(1), width)
        h = torch.where(found, h.gather(1, first).squeeze(1), height)
        top = (torch.rand(count, device=device) * (height - h + 1)).long()
        left = (torch.rand(count, device=device) * (width - w + 1)).long()
        return torch.stack([top, left, h, w], dim=1)

    def recolour(self, x: Tensor) -> Tensor:
        """Jitter and grey for images (B, 3, H, W), at random."""
        count, device = len(x), x.device
        jittered = torch.rand(count, device=device) < self.jitter
        drawn = torch.empty(3, count, device=device).uniform_(max(0.0, 1 - self.strength), 1 + self.strength)
        brightness, contrast, saturation = torch.where(jittered, drawn, 1.0)
        turn = torch.empty(count, device=device).uniform_(-self.hue, self.hue) * jittered
        jitters = (
            (adjust_brightness, brightness),
            (adjust_contrast, contrast),
            (adjust_saturation, saturation),
            (adjust_hue, turn),
        )
        for number in torch.randperm(len(jitters)).tolist():
            adjust, by = jitters[number]
            x = adjust(x, by)
        grey = torch.rand(count, device=device) < self.grey
        return torch.where(grey.view(-1, 1, 1, 1), to_grey(x), x)


def crop_resize(x: Tensor, boxes: Tensor, flipped: Tensor) -> Tensor:
    """Each image's box (B, 4) enlarged bilinearly to the image's size, mirrored where ``flipped`` (B,).

    Bilinear resizing is one small matrix per axis and image, so that a batch of crops is two batched
    matrix products: rows · x · columnsᵀ.
    """
    top, left, height, width = boxes.unbind(1)
    rows = _resizing(top, height, x.shape[2], x.dtype)
    columns = _resizing(left, width, x.shape[3], x.dtype)
    columns = torch.where(flipped.view(-1, 1, 1), columns.flip(1), columns)
    with torch.autocast(x.device.type, enabled=False):  # in bfloat16 pixels would be off by a grey level
        return rows.unsqueeze(1) @ x @ columns.mT.unsqueeze(1)


def _resizing(start: Tensor, length: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """Matrices (B, size, size) that read ``length`` pixels from ``start`` on and write ``size`` of them.

    Output pixel i has its centre at (i + ½) · length / size − ½ within the crop, and weighs the two pixels
    around it by their nearness; at the crop's edge both are its last pixel.
    """
    span = torch.arange(size, device=start.device)
    length, start = length.view(-1, 1, 1), start.view(-1, 1, 1)
    centre = ((span.view(1, -1, 1) + 0.5) * length / size - 0.5).clamp(min=0).minimum(length - 1)
    return (1 - (start + centre - span).abs()).clamp_(min=0).to(dtype)


def _blend(x: Tensor, other: Tensor | float, factor: Tensor) -> Tensor:
    """other + factor · (x − other), clipped to [0, 1], with a factor (B,) for each image."""
    factor = factor.view(-1, 1, 1, 1)
    return (factor * x + (1 - factor) * other).clamp_(0, 1)


def to_grey(x: Tensor) -> Tensor:
    """Images (B, 3, H, W) to their grey levels (B, 1, H, W)."""
    red, green, blue = x.unbind(1)
    return (GREY[0] * red + GREY[1] * green + GREY[2] * blue).unsqueeze(1)


def adjust_brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Images times factors (B,), clipped to [0, 1]."""
    return (x * factor.view(-1, 1, 1, 1)).clamp_(0, 1)


def adjust_contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Distances from the image's mean grey level times factors (B,), clipped to [0, 1]."""
    return _blend(x, to_grey(x).mean((2, 3), keepdim=True), factor)


def adjust_saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Distances from each pixel's grey level times factors (B,), clipped to [0, 1]."""
    return _blend(x, to_grey(x), factor)


def adjust_hue(x: Tensor, turn: Tensor) -> Tensor:
    """Images with each pixel's hue turned by ``turn`` (B,) of the colour circle, from −½ to ½.

    Through hue, chroma and the lowest of the three colours (Smith, 1978). The circle has six sixths, and in
    each two colours stand still, so the way back is piecewise linear in the hue.
    """
    red, green, blue = x.unbind(1)
    high = torch.maximum(torch.maximum(red, green), blue)
    low = torch.minimum(torch.minimum(red, green), blue)
    chroma = high - low
    is_red, is_green = high == red, high == green
    difference = torch.where(is_red, green - blue, torch.where(is_green, blue - red, red - green))
    sixths = difference / chroma.clamp(min=torch.finfo(x.dtype).tiny)  # 0 for a grey pixel, whose difference is 0
    sixths += torch.where(is_red, 0.0, torch.where(is_green, 2.0, 4.0)) + 6 * turn.view(-1, 1, 1)
    sixths -= 6 * (sixths / 6).floor()
    shares = ((sixths - 3).abs_() - 1, 2 - (sixths - 2).abs_(), 2 - (sixths - 4).abs_())
    return torch.stack([low + chroma * share.clamp_(0, 1) for share in shares], dim=1)

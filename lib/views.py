"""Random views of images, made for a whole batch at once on the device it lies on.

Images are (B, 3, H, W) with pixels in [0, 1]. Each image gets its own random numbers.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

GREY = (0.2989, 0.587, 0.114)
"""How much red, green and blue add to a grey level (ITU-R BT.601)."""


@dataclass(frozen=True)
class Augmentation:
    """Random views of images: crop and resize, flip, colour jitter, grey, as SimSiam
    takes them on CIFAR-10.

    The same distributions as torchvision's RandomResizedCrop, RandomHorizontalFlip,
    RandomApply of ColorJitter and RandomGrayscale, drawn for each image on its own;
    only the order of the four jitters is one for the whole batch. There is no blur:
    32×32 pixels have no detail to lose.
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
    """Brightness, contrast and saturation are multiplied by 1 − strength … 1 +
    strength.
    """
    hue: float = 0.1
    """Hue turns by up to so much of the colour circle, either way."""
    size: int | None = None
    """Pixels on each side of a view; by default as many as the image has."""

    def __call__(self, x: Tensor) -> Tensor:
        """One view of each image (B, 3, H, W), pixels in [0, 1]: (B, 3, size, size)."""
        boxes = self.boxes(len(x), x.shape[2], x.shape[3], x.device)
        flipped = torch.rand(len(x), device=x.device) < self.flip
        return self.recolour(crop_resize(x, boxes, flipped, self.size))

    def boxes(
        self, count: int, height: int, width: int, device: torch.device
    ) -> Tensor:
        """``count`` boxes (top, left, height, width), whole pixels, within an image:
        int64 (count, 4).

        Up to ten tries for a crop that fits, then the whole image, as
        RandomResizedCrop.get_params.
        """
        tries = (count, 10)
        area = height * width * torch.empty(tries, device=device).uniform_(*self.scale)
        ratio = (
            torch.empty(tries, device=device).uniform_(*map(math.log, self.ratio)).exp()
        )
        w, h = (
            (area * ratio).sqrt().round().long(),
            (area / ratio).sqrt().round().long(),
        )
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
        drawn = torch.empty(3, count, device=device).uniform_(
            max(0.0, 1 - self.strength), 1 + self.strength
        )
        brightness, contrast, saturation = torch.where(jittered, drawn, 1.0)
        turn = (
            torch.empty(count, device=device).uniform_(-self.hue, self.hue) * jittered
        )
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


def crop_resize(
    x: Tensor, boxes: Tensor, flipped: Tensor, size: int | None = None
) -> Tensor:
    """Each image's box (B, 4), resized bilinearly to ``size`` pixels on each side, by
    default the image's, and mirrored where ``flipped`` (B,).

    Bilinear resizing is one small matrix per axis and image, so that a batch of crops
    is two batched matrix products: rows · x · columnsᵀ.
    """
    top, left, height, width = boxes.unbind(1)
    rows = resizing(top, height, x.shape[2], size or x.shape[2])
    columns = resizing(left, width, x.shape[3], size or x.shape[3])
    columns = torch.where(flipped.view(-1, 1, 1), columns.flip(1), columns)
    with torch.autocast(
        x.device.type, enabled=False
    ):  # in bfloat16 pixels would be off by a grey level
        return rows.unsqueeze(1) @ x @ columns.mT.unsqueeze(1)


def resizing(start: Tensor, length: Tensor, side: int, size: int) -> Tensor:
    """Matrices (B, size, side) that read ``length`` of ``side`` pixels from ``start``
    on, (B,) each, and write ``size`` pixels.

    Output pixel i has its centre at (i + ½) · length / size − ½ within the crop. It
    weighs pixels by their nearness: of two at most where the crop is enlarged, of more
    where it is reduced (antialiasing). Pixels outside of the crop have no weight.
    """
    length, start = length.view(-1, 1, 1), start.view(-1, 1, 1)
    step = length / size
    centre = (torch.arange(size, device=start.device).view(-1, 1) + 0.5) * step - 0.5
    pixel = torch.arange(side, device=start.device) - start
    weights = (1 - (centre - pixel).abs() / step.clamp(min=1)).clamp_(min=0)
    weights *= (pixel >= 0) & (pixel < length)
    return weights / weights.sum(2, keepdim=True)


def _blend(x: Tensor, other: Tensor | float, factor: Tensor) -> Tensor:
    """other + factor · (x − other), clipped to [0, 1], with a factor (B,) for each
    image.
    """
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
    """Distances from the image's mean grey level times (B,), clipped to [0, 1]."""
    return _blend(x, to_grey(x).mean((2, 3), keepdim=True), factor)


def adjust_saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Distances from each pixel's grey level times factors (B,), clipped to [0, 1]."""
    return _blend(x, to_grey(x), factor)


def adjust_hue(x: Tensor, turn: Tensor) -> Tensor:
    """Images with each pixel's hue turned by ``turn`` (B,) of the colour circle, from
    −½ to ½.

    Through hue, chroma and the lowest of the three colours (Smith, 1978). The circle
    has six sixths, and in each two colours stand still, so the way back is piecewise
    linear in the hue.
    """
    red, green, blue = x.unbind(1)
    high = torch.maximum(torch.maximum(red, green), blue)
    low = torch.minimum(torch.minimum(red, green), blue)
    chroma = high - low
    is_red, is_green = high == red, high == green
    difference = torch.where(
        is_red, green - blue, torch.where(is_green, blue - red, red - green)
    )
    sixths = difference / chroma.clamp(
        min=torch.finfo(x.dtype).tiny
    )  # 0 for a grey pixel, whose difference is 0
    sixths += torch.where(is_red, 0.0, torch.where(is_green, 2.0, 4.0)) + 6 * turn.view(
        -1, 1, 1
    )
    sixths -= 6 * (sixths / 6).floor()
    shares = ((sixths - 3).abs_() - 1, 2 - (sixths - 2).abs_(), 2 - (sixths - 4).abs_())
    return torch.stack([low + chroma * share.clamp_(0, 1) for share in shares], dim=1)

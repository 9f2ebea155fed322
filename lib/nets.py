"""Networks, and nothing but networks: no losses, no data sets.

Images are (B, C, H, W) with pixels in [0, 1]; codes are (B, D). Every decoder ends in
*logits*, one per pixel: a sigmoid makes pixels of them, a Bernoulli likelihood wants
them as they are.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

Shape = tuple[int, int, int]
"""Channels, height, width of one image."""


def mlp(sizes: Sequence[int], activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers, (B, sizes[0]) -> (B, sizes[-1]), and activations between them."""
    layers: list[nn.Module] = []
    for wide, narrow in itertools.pairwise(sizes):
        layers += [nn.Linear(wide, narrow), activation()]
    return nn.Sequential(*layers[:-1])


def mlp_encoder(shape: Shape, hidden: Sequence[int], out: int) -> nn.Sequential:
    """Images (B, C, H, W), flattened, to (B, out)."""
    return nn.Sequential(nn.Flatten(), *mlp([math.prod(shape), *hidden, out]))


def mlp_decoder(latent_dim: int, hidden: Sequence[int], shape: Shape) -> nn.Sequential:
    """Codes (B, latent_dim) to logits (B, C, H, W)."""
    return nn.Sequential(
        *mlp([latent_dim, *hidden, math.prod(shape)]), nn.Unflatten(1, shape)
    )


def conv_encoder(
    shape: Shape,
    width: int,
    out: int,
    activation: type[nn.Module] = nn.ReLU,
    blocks: int = 0,
) -> nn.Sequential:
    """Images (B, C, H, W) to (B, out): two strided convolutions, each with so many
    residual ``blocks`` behind it, then two linear layers.
    """
    channels, side = shape[0], _quarter(shape)
    return nn.Sequential(
        nn.Conv2d(channels, width, 4, stride=2, padding=1),  # (B, width, H/2, W/2)
        *(ResidualBlock(width) for _ in range(blocks)),
        activation(),
        nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),  # (B, 2 width, H/4, W/4)
        *(ResidualBlock(2 * width) for _ in range(blocks)),
        activation(),
        nn.Flatten(),
        nn.Linear(2 * width * side * side, 8 * width),
        activation(),
        nn.Linear(8 * width, out),
    )


def conv_decoder(
    latent_dim: int,
    width: int,
    shape: Shape,
    activation: type[nn.Module] = nn.ReLU,
    blocks: int = 0,
) -> nn.Sequential:
    """Codes (B, latent_dim) to logits (B, C, H, W): the mirror image of
    :func:`conv_encoder`.
    """
    channels, side = shape[0], _quarter(shape)
    return nn.Sequential(
        nn.Linear(latent_dim, 8 * width),
        activation(),
        nn.Linear(8 * width, 2 * width * side * side),
        nn.Unflatten(1, (2 * width, side, side)),
        *(ResidualBlock(2 * width) for _ in range(blocks)),
        activation(),
        nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1),
        *(ResidualBlock(width) for _ in range(blocks)),
        activation(),
        nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1),
    )


class ELU(nn.ELU):
    """ELU with alpha = 1, torch's to within 1e-7, but not at 10 ns a number.

    torch's own kernel takes expm1 of one number after the other, which on a CPU costs
    as much as the convolution before it. exp(x) − 1 is vectorised, and taken in single
    precision at least, as bfloat16 knows too little of numbers near 1.
    """

    def forward(self, x: Tensor) -> Tensor:
        return _EluFunction.apply(x)


class _EluFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        at_least_single = torch.promote_types(x.dtype, torch.float32)
        low = x.clamp_max(0).to(at_least_single).exp_().sub_(1)
        y = low.to(x.dtype).add_(x.clamp_min(0))
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return torch.ops.aten.elu_backward(gradient, 1, 1, 1, True, y)


class PixelBias(nn.Module):
    """Adds a learned number to each logit (B, C, H, W), beginning at the logit of that
    pixel's mean.

    ``mean`` (C, H, W), pixels in [0, 1]. A decoder without it must first find out where
    ink is at all.
    """

    def __init__(self, mean: Tensor) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.logit(mean, eps=2e-3))

    def forward(self, logits: Tensor) -> Tensor:
        return logits + self.bias


def pooled_encoder(shape: Shape, out: int) -> nn.Sequential:
    """28×28 images (B, C, 28, 28) to (B, out), by convolution and average pooling down
    to 256 numbers.

    The encoder that report 004's course hands out with its assignment.
    """
    channels = _exactly_28(shape)
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3),  # (B, 32, 26, 26)
        ELU(),
        nn.AvgPool2d(2),
        nn.Conv2d(32, 64, 3),  # (B, 64, 11, 11)
        ELU(),
        nn.AvgPool2d(2),
        nn.Conv2d(64, 256, 5),  # (B, 256, 1, 1)
        ELU(),
        nn.Flatten(),
        nn.Linear(256, out),
    )


def upsampled_decoder(latent_dim: int, shape: Shape) -> nn.Sequential:
    """Codes (B, latent_dim) to logits (B, C, 28, 28), by bilinear upsampling between
    convolutions.

    The decoder of the same assignment. Its first layer, a 5×5 convolution of a single
    pixel padded by 4, is written as the transposed convolution that it is, at a 25th of
    the work. The other convolutions' padding is a layer of its own: in bfloat16 the
    gradient of one padded by 2 takes three times as long.
    """
    channels = _exactly_28(shape)
    return nn.Sequential(
        nn.Linear(latent_dim, 256),
        ELU(),
        nn.Unflatten(1, (256, 1, 1)),
        nn.ConvTranspose2d(256, 64, 5),  # (B, 64, 5, 5)
        ELU(),
        nn.UpsamplingBilinear2d(scale_factor=2),
        nn.ZeroPad2d(2),
        nn.Conv2d(64, 32, 3),  # (B, 32, 12, 12)
        ELU(),
        nn.UpsamplingBilinear2d(scale_factor=2),
        nn.ZeroPad2d(2),
        nn.Conv2d(32, 16, 3),  # (B, 16, 26, 26)
        ELU(),
        nn.ZeroPad2d(2),
        nn.Conv2d(16, channels, 3),
    )


def _exactly_28(shape: Shape) -> int:
    """The number of channels of 28×28 images; refuses others."""
    if tuple(shape[1:]) != (28, 28):
        raise ValueError(
            f"Images of {shape[1]}×{shape[2]} pixels: these networks are made for "
            "28×28."
        )
    return shape[0]


def discriminator(shape: Shape, width: int) -> nn.Sequential:
    """Images (B, C, H, W) to one logit each (B,), after DCGAN without batch norm.

    Each image is judged alone, as a gradient penalty needs it.
    """
    channels, side = shape[0], _quarter(shape)
    return nn.Sequential(
        nn.Conv2d(channels, width, 4, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(2 * width, 4 * width, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(4 * width * side * side, 1),
        nn.Flatten(0),
    )


class Classifier(nn.Module):
    """A small convolutional classifier; ``features`` ends in its last layer but one."""

    def __init__(self, shape: Shape, classes: int, width: int = 32) -> None:
        super().__init__()
        side = _quarter(shape)
        self.features = nn.Sequential(
            nn.Conv2d(shape[0], width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.25),
            nn.Linear(2 * width * side * side, 64),
            nn.ReLU(),
        )
        self.head = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to class logits (B, classes)."""
        return self.head(self.features(x))


def _quarter(shape: Shape) -> int:
    """The side of the image after two halvings; refuses what cannot be halved twice."""
    _, height, width = shape
    if height != width or height % 4:
        raise ValueError(
            f"Images of {height}×{width} pixels: these networks need a square side "
            "divisible by 4."
        )
    return height // 4


def count_parameters(module: nn.Module) -> int:
    """How many numbers training can change."""
    return sum(
        parameter.numel()
        for parameter in module.parameters()
        if parameter.requires_grad
    )


def pixels(logits: Tensor) -> Tensor:
    """Logits as pixels in [0, 1], in float32 whatever the network ran in."""
    return torch.sigmoid(logits.float())


def _halved(shape: Shape, channels: Sequence[int]) -> tuple[int, int]:
    """The side left when a square's is halved per entry of channels, and how far its
    doublings exceed the square.

    Raises ValueError for channels below 1, and where the excess cannot be cropped or
    padded equally on both sides.
    """
    if not channels or min(channels) < 1:
        raise ValueError(f"channels={list(channels)}: give positive numbers.")
    _, height, width = shape
    side = math.ceil(height / 2 ** len(channels))
    surplus = side * 2 ** len(channels) - height
    if height != width or surplus % 2 or surplus >= height:
        raise ValueError(
            f"Images of {height}×{width} pixels: {len(channels)} entries of channels "
            "make a square of side "
            f"{side} · 2^{len(channels)}. That may exceed the image's side by an "
            "even number smaller than the side, to be cropped or padded."
        )
    return side, surplus


def deconv_decoder(
    latent_dim: int,
    channels: Sequence[int],
    shape: Shape,
    closing: bool = False,
) -> nn.Sequential:
    """Codes (B, latent_dim) to logits (B, C, H, W); the side doubles per entry of
    channels.

    A linear layer makes a map of channels[0] × s × s, s = ⌈H / 2^n⌉ for n entries; each
    transposed convolution doubles the side and the last one makes pixels. A surplus is
    cropped, the same on every side: a 1×1 transposed convolution with padding does just
    that. ``closing`` adds a sigmoid and a linear layer from all pixels to all pixels.

    Raises ValueError for a latent_dim below 1 and for images that cannot be made so.
    """
    if latent_dim < 1:
        raise ValueError(f"latent_dim={latent_dim}: a code needs at least one number.")
    colours, side, surplus = shape[0], *_halved(shape, channels)
    layers: list[nn.Module] = [
        nn.Linear(latent_dim, channels[0] * side * side),
        nn.Unflatten(1, (channels[0], side, side)),
        nn.BatchNorm2d(channels[0]),
        nn.ReLU(),
    ]
    for wide, narrow in itertools.pairwise(channels):
        layers += [
            nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(narrow),
            nn.ReLU(),
        ]
    layers += [nn.ConvTranspose2d(channels[-1], colours, 4, stride=2, padding=1)]
    if surplus:
        layers += [nn.ZeroPad2d(-surplus // 2)]
    if closing:
        size = math.prod(shape)
        layers += [
            nn.Sigmoid(),
            nn.Flatten(),
            nn.Linear(size, size),
            nn.Unflatten(1, shape),
        ]
    return nn.Sequential(*layers)


def generator(latent_dim: int, width: int, shape: Shape) -> nn.Sequential:
    """Noise (B, latent_dim) to logits (B, C, H, W), after DCGAN (Radford et al., 2016).

    Batch norm between the layers keeps a generator from collapsing early. There is none
    in front of the output, which has to learn the pixels' own mean and scale.
    """
    return deconv_decoder(latent_dim, [4 * width, 2 * width], shape)


class Leaky(nn.Module):
    """Leaky ReLU with torch's values and gradients, but cheaper where a gradient is
    differentiated again.

    Its second derivative is 0. torch's own hands those zeros on, and a whole backward
    pass of a gradient penalty is spent on them; here there is no path for them.
    """

    def __init__(self, slope: float = 0.2) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        return _LeakyFunction.apply(x, self.slope)


class _LeakyFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.slope = slope
        return F.leaky_relu(x, slope)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return torch.ops.aten.leaky_relu_backward(
            gradient, x.detach(), ctx.slope, False
        ), None


class CriticConv2d(nn.Conv2d):
    """A convolution with torch's values and gradients of every order, but cheaper in a
    gradient penalty.

    torch differentiates a convolution's input gradient by a convolution whose kernel is
    as large as the image. Written as the transposed convolution that it is, it has an
    ordinary gradient. Plain zero padding only, no dilation, no groups.
    """

    def forward(self, x: Tensor) -> Tensor:
        # Low precision is never used where a gradient is differentiated.
        if torch.is_autocast_enabled(x.device.type):
            return super().forward(x)
        return _CriticConvolution.apply(
            x, self.weight, self.bias, self.stride, self.padding
        )


class _CriticConvolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        stride: tuple[int, int],
        padding: tuple[int, int],
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            missing = [
                size - ((out - 1) * step - 2 * pad + kernel)
                for size, out, step, pad, kernel in zip(
                    x.shape[2:],
                    gradient.shape[2:],
                    ctx.stride,
                    ctx.padding,
                    weight.shape[2:],
                    strict=True,
                )
            ]
            of_x = F.conv_transpose2d(
                gradient, weight, None, ctx.stride, ctx.padding, missing
            )
        if ctx.needs_input_grad[1]:
            _, of_weight, of_bias = torch.ops.aten.convolution_backward(
                gradient,
                x,
                weight,
                [len(weight)],
                ctx.stride,
                ctx.padding,
                (1, 1),
                False,
                (0, 0),
                1,
                (False, True, True),
            )
        return of_x, of_weight, of_bias, None, None


def conv_critic(shape: Shape, channels: Sequence[int]) -> nn.Sequential:
    """Images (B, C, H, W) to one score each (B,), the side halved per entry of
    channels: DCGAN without batch norm.

    The mirror image of :func:`deconv_decoder`: a side that cannot be halved so often is
    padded with zeros, as much on every side. Raises ValueError for images that cannot
    be made to fit so.
    """
    colours, side, missing = shape[0], *_halved(shape, channels)
    layers: list[nn.Module] = [nn.ZeroPad2d(missing // 2)] if missing else []
    for before, after in itertools.pairwise([colours, *channels]):
        layers += [CriticConv2d(before, after, 4, stride=2, padding=1), Leaky()]
    # No last bias: a Wasserstein critic is defined up to a constant, whose gradient
    # would be rounding noise.
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Linear(channels[-1] * side * side, 1, bias=False),
        nn.Flatten(0),
    )


class Standardise(nn.Module):
    """Pixels in [0, 1] to numbers of mean 0 and standard deviation 1 in each colour: (x
    − mean) / std, (C,) each.
    """

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.view(-1, 1, 1))
        self.register_buffer("std", std.view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def small_resnet(
    channels: int, width: int, blocks: Sequence[int], stem_stride: int = 2
) -> nn.Sequential:
    """Images (B, C, H, W) to features (B, width · 2^(n−1)) for n entries of ``blocks``:
    a ResNet for small images.

    Stage i has blocks[i] of torchvision's residual blocks with width · 2^i channels,
    and halves the side but for the first. With a ``stem_stride`` of 2 the stem halves
    it, too: most of the work is done at 16×16 and below. Width 64, four stages of two
    blocks and a stride of 1 are the ResNet-18 that is used for CIFAR-10 (He et al.,
    2016, with a 3×3 stem and no pooling behind it).
    """
    if width < 1 or not blocks or min(blocks) < 1:
        raise ValueError(
            f"width={width}, blocks={list(blocks)}: give positive numbers, one of "
            "blocks per stage."
        )
    layers: list[nn.Module] = [
        nn.Conv2d(channels, width, 3, stem_stride, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    ]
    narrow = width
    for stage, count in enumerate(blocks):
        wide = width * 2**stage
        for number in range(count):
            stride = 2 if stage and not number else 1
            shortcut = None
            if stride > 1:
                shortcut = nn.Sequential(
                    nn.Conv2d(narrow, wide, 1, stride, bias=False), nn.BatchNorm2d(wide)
                )
            layers.append(BasicBlock(narrow, wide, stride, shortcut))
            narrow = wide
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


# --- the U-Net of chapter 6 -----------------------------------------------------------


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(relu(x)))), the identity at the start: (B, C, H, W) ->
    (B, C, H, W).

    He et al. (2016b), without its batch norm: a second convolution that begins at zero
    makes a deep network as easy to start (Zhang et al., 2019), and each image is judged
    alone.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(torch.relu(self.first(torch.relu(x))))


class UNet(nn.Module):
    """One encoder, one or more decoders with skips: (B, C, H, W) to logits (B, decoders
    · out, H, W).

    Ronneberger et al. (2015), with residual blocks, and skips that are added, not
    appended. ``channels`` are those of each level, from the finest to the bottleneck;
    every level halves the side. ``patch`` folds patch × patch pixels into channels
    first and unfolds them last: the finest level then works on a side ``patch`` times
    smaller, where a convolution of the same width costs patch² times less. ``blocks``
    per level.

    Raises ValueError for channels below 1, no level, and sides that cannot be halved so
    often.
    """

    def __init__(
        self,
        shape: Shape,
        channels: Sequence[int],
        out: int,
        decoders: int = 1,
        patch: int = 1,
        blocks: int = 1,
    ) -> None:
        super().__init__()
        if not channels or min(channels) < 1:
            raise ValueError(
                f"channels={list(channels)}: give one positive number a level."
            )
        if min(decoders, patch, blocks) < 1:
            raise ValueError(
                f"decoders={decoders}, patch={patch}, blocks={blocks}: at least 1 each."
            )
        colours, height, width = shape
        factor = patch * 2 ** (len(channels) - 1)
        if height % factor or width % factor:
            raise ValueError(
                f"Images of {height}×{width} pixels: patch {patch} and {len(channels)} "
                "levels of channels need sides "
                f"divisible by {factor}. Give fewer channels, or a smaller patch."
            )
        steps = list(itertools.pairwise(channels))

        def level(count: int) -> nn.Sequential:
            return nn.Sequential(*(ResidualBlock(count) for _ in range(blocks)))

        self.stem = nn.Sequential(
            nn.PixelUnshuffle(patch),
            nn.Conv2d(colours * patch**2, channels[0], 3, padding=1),
        )
        self.encoder = nn.ModuleList(level(count) for count in channels)
        self.down = nn.ModuleList(
            nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in steps
        )
        self.decoders = nn.ModuleList(
            nn.ModuleDict(
                {
                    "up": nn.ModuleList(
                        nn.ConvTranspose2d(coarse, fine, 2, stride=2)
                        for fine, coarse in steps
                    ),
                    "levels": nn.ModuleList(level(fine) for fine, _ in steps),
                    "head": nn.Sequential(
                        nn.ReLU(),
                        nn.Conv2d(channels[0], out * patch**2, 3, padding=1),
                        nn.PixelShuffle(patch),
                    ),
                }
            )
            for _ in range(decoders)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to (B, decoders · out, H, W)."""
        h = self.encoder[0](self.stem(x))
        skips = []
        for down, level in zip(self.down, self.encoder[1:], strict=True):
            skips.append(h)
            h = level(down(h))
        return torch.cat(
            [self._decode(decoder, h, skips) for decoder in self.decoders], dim=1
        )

    @staticmethod
    def _decode(decoder: nn.ModuleDict, h: Tensor, skips: Sequence[Tensor]) -> Tensor:
        for up, level, skip in reversed(
            list(zip(decoder["up"], decoder["levels"], skips, strict=True))
        ):
            h = level(up(h) + skip)
        return decoder["head"](h)

"""Networks, and nothing but networks: no losses, no data sets.

Images are (B, C, H, W) with pixels in [0, 1]; codes are (B, D). Every decoder ends in *logits*, one per
pixel: a sigmoid makes pixels of them, a Bernoulli likelihood wants them as they are.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

Shape = tuple[int, int, int]
"""Channels, height, width of one image."""


def mlp(sizes: Sequence[int], activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers (B, sizes[0]) -> (B, sizes[-1]) with an activation between them, none at the end."""
    layers: list[nn.Module] = []
    for wide, narrow in itertools.pairwise(sizes):
        layers += [nn.Linear(wide, narrow), activation()]
    return nn.Sequential(*layers[:-1])


def mlp_encoder(shape: Shape, hidden: Sequence[int], out: int) -> nn.Sequential:
    """Images (B, C, H, W), flattened, to (B, out)."""
    return nn.Sequential(nn.Flatten(), *mlp([math.prod(shape), *hidden, out]))


def mlp_decoder(latent_dim: int, hidden: Sequence[int], shape: Shape) -> nn.Sequential:
    """Codes (B, latent_dim) to logits (B, C, H, W)."""
    return nn.Sequential(*mlp([latent_dim, *hidden, math.prod(shape)]), nn.Unflatten(1, shape))


def conv_encoder(shape: Shape, width: int, out: int, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Images (B, C, H, W) to (B, out): two strided convolutions, then two linear layers."""
    channels, side = shape[0], _quarter(shape)
    return nn.Sequential(
        nn.Conv2d(channels, width, 4, stride=2, padding=1),  # (B, width, H/2, W/2)
        activation(),
        nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),  # (B, 2 width, H/4, W/4)
        activation(),
        nn.Flatten(),
        nn.Linear(2 * width * side * side, 8 * width),
        activation(),
        nn.Linear(8 * width, out),
    )


def conv_decoder(latent_dim: int, width: int, shape: Shape, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Codes (B, latent_dim) to logits (B, C, H, W): the mirror image of :func:`conv_encoder`."""
    channels, side = shape[0], _quarter(shape)
    return nn.Sequential(
        nn.Linear(latent_dim, 8 * width),
        activation(),
        nn.Linear(8 * width, 2 * width * side * side),
        activation(),
        nn.Unflatten(1, (2 * width, side, side)),
        nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1),
        activation(),
        nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1),
    )


class PixelBias(nn.Module):
    """Adds a learned number to each logit (B, C, H, W), beginning at the logit of that pixel's mean.

    ``mean`` (C, H, W), pixels in [0, 1]. A decoder without it must first find out where ink is at all.
    """

    def __init__(self, mean: Tensor) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.logit(mean, eps=2e-3))

    def forward(self, logits: Tensor) -> Tensor:
        return logits + self.bias


def pooled_encoder(shape: Shape, out: int) -> nn.Sequential:
    """28×28 images (B, C, 28, 28) to (B, out), by convolution and average pooling down to 256 numbers.

    The encoder that report 004's course hands out with its assignment.
    """
    channels = _exactly_28(shape)
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3),  # (B, 32, 26, 26)
        nn.ELU(),
        nn.AvgPool2d(2),
        nn.Conv2d(32, 64, 3),  # (B, 64, 11, 11)
        nn.ELU(),
        nn.AvgPool2d(2),
        nn.Conv2d(64, 256, 5),  # (B, 256, 1, 1)
        nn.ELU(),
        nn.Flatten(),
        nn.Linear(256, out),
    )


def upsampled_decoder(latent_dim: int, shape: Shape) -> nn.Sequential:
    """Codes (B, latent_dim) to logits (B, C, 28, 28), by bilinear upsampling between convolutions.

    The decoder of the same assignment. Its first layer, a 5×5 convolution of a single pixel padded by 4,
    is written as the transposed convolution that it is, at a 25th of the work.
    """
    channels = _exactly_28(shape)
    return nn.Sequential(
        nn.Linear(latent_dim, 256),
        nn.ELU(),
        nn.Unflatten(1, (256, 1, 1)),
        nn.ConvTranspose2d(256, 64, 5),  # (B, 64, 5, 5)
        nn.ELU(),
        nn.UpsamplingBilinear2d(scale_factor=2),
        nn.Conv2d(64, 32, 3, padding=2),  # (B, 32, 12, 12)
        nn.ELU(),
        nn.UpsamplingBilinear2d(scale_factor=2),
        nn.Conv2d(32, 16, 3, padding=2),  # (B, 16, 26, 26)
        nn.ELU(),
        nn.Conv2d(16, channels, 3, padding=2),
    )


def _exactly_28(shape: Shape) -> int:
    """The number of channels of 28×28 images; refuses others."""
    if tuple(shape[1:]) != (28, 28):
        raise ValueError(f"Images of {shape[1]}×{shape[2]} pixels: these networks are made for 28×28.")
    return shape[0]


def generator(latent_dim: int, width: int, shape: Shape) -> nn.Sequential:
    """Noise (B, latent_dim) to logits (B, C, H, W), after DCGAN (Radford et al., 2016).

    Batch norm between the transposed convolutions keeps a generator from collapsing early; there is
    none in front of the output, which has to learn the pixels' own mean and scale.
    """
    channels, side = shape[0], _quarter(shape)
    return nn.Sequential(
        nn.Linear(latent_dim, 4 * width * side * side, bias=False),
        nn.Unflatten(1, (4 * width, side, side)),
        nn.BatchNorm2d(4 * width),
        nn.ReLU(),
        nn.ConvTranspose2d(4 * width, 2 * width, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.ConvTranspose2d(2 * width, channels, 4, stride=2, padding=1),
    )


def discriminator(shape: Shape, width: int) -> nn.Sequential:
    """Images (B, C, H, W) to one number each (B,): a logit for a GAN, a score for a Wasserstein critic.

    There is no batch norm: each image is judged alone, as a gradient penalty needs it.
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
    """A small convolutional classifier; ``features`` is its last hidden layer (B, 64)."""

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
        raise ValueError(f"Images of {height}×{width} pixels: these networks need a square side divisible by 4.")
    return height // 4


def count_parameters(module: nn.Module) -> int:
    """How many numbers training can change."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def pixels(logits: Tensor) -> Tensor:
    """A decoder's logits as pixels in [0, 1], in float32 whatever the network ran in."""
    return torch.sigmoid(logits.float())


def deconv_decoder(
    latent_dim: int,
    channels: Sequence[int],
    shape: Shape,
    closing: bool = False,
) -> nn.Sequential:
    """Codes (B, latent_dim) to logits (B, C, H, W); the side doubles per entry of channels.

    A linear layer makes a map of channels[0] × s × s, s = ⌈H / 2^n⌉ for n entries; each
    transposed convolution doubles the side and the last one makes pixels. A surplus is
    cropped, the same on every side: a 1×1 transposed convolution with padding does just
    that. ``closing`` adds a sigmoid and a linear layer from all pixels to all pixels.

    Raises ValueError for a latent_dim below 1 and for images that cannot be made so.
    """
    if latent_dim < 1:
        raise ValueError(f"latent_dim={latent_dim}: a code needs at least one number.")
    if not channels or min(channels) < 1:
        raise ValueError(f"channels={list(channels)}: give positive numbers.")
    colours, height, width = shape
    side = math.ceil(height / 2 ** len(channels))
    surplus = side * 2 ** len(channels) - height
    if height != width or surplus % 2 or surplus >= height:
        raise ValueError(
            f"Images of {height}×{width} pixels: {len(channels)} doublings make a square "
            f"of side {side} · 2^{len(channels)}. That may exceed the image's side by an "
            "even number smaller than the side, to be cropped."
        )
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


# --- the U-Net of chapter 6 ------------------------------------------------------------------------


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(relu(x)))), the identity at the start: (B, C, H, W) -> (B, C, H, W).

    He et al. (2016b), without its batch norm: a second convolution that begins at zero makes a deep network as
    easy to start (Zhang et al., 2019), and each image is judged alone.
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
    """One encoder, one or more decoders with skips: (B, C, H, W) to logits (B, decoders · out, H, W).

    Ronneberger et al. (2015), with residual blocks, and skips that are added, not appended. ``channels`` are
    those of each level, from the finest to the bottleneck; every level halves the side. ``patch`` folds
    patch × patch pixels into channels first and unfolds them last: the finest level then works on a side ``patch``
    times smaller, where a convolution of the same width costs patch² times less. ``blocks`` per level.

    Raises ValueError for channels below 1, no level, and sides that cannot be halved so often.
    """

    def __init__(
        self, shape: Shape, channels: Sequence[int], out: int, decoders: int = 1, patch: int = 1, blocks: int = 1
    ) -> None:
        super().__init__()
        if not channels or min(channels) < 1:
            raise ValueError(f"channels={list(channels)}: give one positive number a level.")
        if min(decoders, patch, blocks) < 1:
            raise ValueError(f"decoders={decoders}, patch={patch}, blocks={blocks}: at least 1 each.")
        colours, height, width = shape
        factor = patch * 2 ** (len(channels) - 1)
        if height % factor or width % factor:
            raise ValueError(
                f"Images of {height}×{width} pixels: patch {patch} and {len(channels)} levels of channels need sides "
                f"divisible by {factor}. Give fewer channels, or a smaller patch."
            )
        steps = list(itertools.pairwise(channels))

        def level(count: int) -> nn.Sequential:
            return nn.Sequential(*(ResidualBlock(count) for _ in range(blocks)))

        self.stem = nn.Sequential(nn.PixelUnshuffle(patch), nn.Conv2d(colours * patch**2, channels[0], 3, padding=1))
        self.encoder = nn.ModuleList(level(count) for count in channels)
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in steps)
        self.decoders = nn.ModuleList(
            nn.ModuleDict(
                {
                    "up": nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in steps),
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
        return torch.cat([self._decode(decoder, h, skips) for decoder in self.decoders], dim=1)

    @staticmethod
    def _decode(decoder: nn.ModuleDict, h: Tensor, skips: Sequence[Tensor]) -> Tensor:
        for up, level, skip in reversed(list(zip(decoder["up"], decoder["levels"], skips, strict=True))):
            h = level(up(h) + skip)
        return decoder["head"](h)

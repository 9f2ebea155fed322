"""Figures, image grids and animations from arrays, all in one look. Nothing here knows where arrays come from."""

import io
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from IPython.display import Image as DisplayedImage
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib_inline.config import InlineBackend
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from lib.data import to_bytes

_PALETTE = sns.color_palette("colorblind")
COLORS = {"AE": _PALETTE[0], "VAE": _PALETTE[1], "GAN": _PALETTE[2], "PCA": _PALETTE[7], "real": (0.1, 0.1, 0.1)}
"""A method keeps its colour in every figure of the book."""

WIDTH = 7.5
"""Inches of a figure that fills the page; text is sized for that width."""


def use_style() -> None:
    """The book's one matplotlib style: white ground drawn in, so that figures stay readable in dark mode."""
    sns.set_theme(style="whitegrid", palette=_PALETTE)
    plt.rcParams.update(
        {
            "figure.dpi": 150,
            "savefig.dpi": 150,
            "figure.figsize": (WIDTH, 3.6),
            "figure.constrained_layout.use": True,
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "font.size": 11.5,
            "axes.titlesize": 12,
            "axes.labelsize": 11.5,
            "xtick.labelsize": 10.5,
            "ytick.labelsize": 10.5,
            "legend.fontsize": 10.5,
            "axes.edgecolor": "0.4",
            "grid.color": "0.9",
            "image.cmap": "gray",
            "image.interpolation": "nearest",
        }
    )
    # Figures come out as wide as they were asked for, so that their text has the size it was given.
    InlineBackend.instance().print_figure_kwargs = {"bbox_inches": None}


def image_rows(rows: Mapping[str, Tensor], gap: int = 2) -> Figure:
    """One row of images (N, C, H, W), pixels in [0, 1] or uint8, per label, the label at its left."""
    tiled = {label: tile_row(images, gap) for label, images in rows.items()}
    ratio = sum(image.shape[0] / image.shape[1] for image in tiled.values())
    fig, axes = plt.subplots(len(rows), 1, figsize=(WIDTH, (WIDTH - 1.2) * ratio + 0.06 * len(rows)), squeeze=False)
    for ax, (label, image) in zip(axes[:, 0], tiled.items(), strict=True):
        ax.imshow(image, vmin=0, vmax=255)
        ax.set(xticks=[], yticks=[])
        ax.set_ylabel(label, rotation=0, ha="right", va="center", labelpad=6)
        ax.spines[:].set_visible(False)
    for _ in range(2):  # images take their shape after the layout made room for labels, which it must learn
        fig.draw_without_rendering()
    return fig


def captioned_rows(rows: Mapping[str, Tensor], captions: Sequence[str], gap: int = 2) -> Figure:
    """:func:`image_rows` with a caption above each column."""
    fig = image_rows(rows, gap)
    width = next(iter(rows.values())).shape[-1]
    ax = fig.axes[0]
    for column, caption in enumerate(captions):
        ax.annotate(
            caption, (column * (width + gap) + width / 2, -1.5), ha="center", va="bottom", annotation_clip=False
        )
    return fig


def tile_row(images: Tensor, gap: int = 2) -> np.ndarray:
    """Images (N, C, H, W) side by side as uint8 (H, N·(W+gap)−gap, 3), white between them."""
    array = _to_rgb(images)
    padded = np.pad(array, ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=255)
    return np.concatenate(list(padded), axis=1)[:, :-gap]


def latent_scatter(ax: Axes, z: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> None:
    """Points (N, 2), or (N, 3) in 3-D axes, coloured by class, each class named at its centre."""
    colors = sns.color_palette("husl", len(classes)) if len(classes) > 10 else _PALETTE
    size = np.clip(6000 / len(z), 2, 15)
    ax.scatter(*z.T, c=[colors[label] for label in labels], s=size, alpha=0.5, linewidths=0)
    for label, name in enumerate(classes):
        if (labels == label).any():
            box = {"boxstyle": "round,pad=0.15", "fc": "white", "ec": colors[label], "lw": 1.5}
            ax.text(*np.median(z[labels == label], axis=0), name, ha="center", va="center", size=10, bbox=box, zorder=9)


def distance_heatmap(ax: Axes, distances: np.ndarray, classes: Sequence[str]) -> None:
    """A symmetric matrix of distances between classes, each written in its cell."""
    lower = distances[1:, :-1]
    sns.heatmap(
        lower,
        ax=ax,
        mask=np.triu(np.ones_like(lower, dtype=bool), k=1),
        annot=True,
        fmt=".1f",
        annot_kws={"size": 10},
        cmap="viridis",
        square=True,
        xticklabels=classes[:-1],
        yticklabels=classes[1:],
        cbar_kws={"shrink": 0.8, "label": "distance"},
    )
    ax.grid(False)
    ax.tick_params(rotation=0)


def walk_gif(
    rows: Mapping[str, Tensor], scale: int = 2, hold: int = 800, step: int = 80, colors: int = 16
) -> DisplayedImage:
    """An animation of images (T, N, C, H, W) per labelled row, there and back, resting at both ends.

    ``scale`` enlarges pixels; ``hold`` and ``step`` are milliseconds at the ends and in between; all frames
    share one palette of so many ``colors``.
    """
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 16)
    margin = 12 + max(int(font.getlength(label)) for label in rows)
    frames = []
    for moment in range(len(next(iter(rows.values())))):
        strips = [tile_row(images[moment], gap=4).repeat(scale, 0).repeat(scale, 1) for images in rows.values()]
        height = sum(strip.shape[0] + 8 for strip in strips)
        canvas = Image.new("RGB", (margin + strips[0].shape[1], height), "white")
        draw, top = ImageDraw.Draw(canvas), 4
        for label, strip in zip(rows, strips, strict=True):
            canvas.paste(Image.fromarray(strip), (margin, top))
            draw.text((margin - 8, top + strip.shape[0] // 2), label, fill="black", font=font, anchor="rm")
            top += strip.shape[0] + 8
        frames.append(np.asarray(canvas))
    there_and_back = frames + frames[-2:0:-1]
    durations = [step] * len(there_and_back)
    durations[0] = durations[len(frames) - 1] = hold
    return _gif(there_and_back, durations, colors)


def grid(images: Tensor, columns: int, gap: int = 1) -> np.ndarray:
    """Images (N, C, H, W) in rows of so many columns as one uint8 (height, width, 3), white between them."""
    rows = [tile_row(part, gap) for part in images.split(columns)]
    padded = [
        np.pad(row, ((0, gap), (0, rows[0].shape[1] - row.shape[1]), (0, 0)), constant_values=255) for row in rows
    ]
    return np.concatenate(padded)[:-gap]


def figure_frame(fig: Figure, dpi: int = 100) -> np.ndarray:
    """What a figure looks like as uint8 (height, width, 3), for :func:`film`; the figure is closed."""
    fig.set_dpi(dpi)
    fig.canvas.draw()
    frame = np.asarray(fig.canvas.buffer_rgba())[..., :3].copy()
    plt.close(fig)
    return frame


def photograph(fig: Figure, quality: int = 70) -> DisplayedImage:
    """A figure as a JPEG, for grids of photographs, of which a PNG would be several times as large."""
    frame = figure_frame(fig, dpi=int(fig.dpi))
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=quality)
    return DisplayedImage(buffer.getvalue(), format="jpeg")


def film(frames: Sequence[np.ndarray], step: int = 300, hold: int = 2500, colors: int = 128) -> DisplayedImage:
    """An animation of frames uint8 (height, width, 3) from first to last, resting on the last.

    ``step`` and ``hold`` are milliseconds. All frames share one palette of so many ``colors``, taken
    from the first, the middle and the last.
    """
    return _gif(frames, [step] * (len(frames) - 1) + [hold], colors)


def _gif(frames: Sequence[np.ndarray], durations: Sequence[int], colors: int) -> DisplayedImage:
    """An endless animation, every frame in one palette taken from the first, the middle and the last."""
    typical = np.concatenate([frames[0], frames[len(frames) // 2], frames[-1]])
    palette = Image.fromarray(typical).quantize(colors, dither=Image.Dither.NONE)
    images = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    buffer = io.BytesIO()
    images[0].save(
        buffer, "GIF", save_all=True, append_images=images[1:], duration=list(durations), loop=0, optimize=False
    )
    return DisplayedImage(buffer.getvalue(), format="gif")


def headed(image: np.ndarray, text: str, scale: int = 1) -> np.ndarray:
    """An image uint8 (height, width, 3), its pixels enlarged, under a line of text: a frame for :func:`film`."""
    image = image.repeat(scale, 0).repeat(scale, 1)
    canvas = Image.new("RGB", (image.shape[1], image.shape[0] + 26), "white")
    canvas.paste(Image.fromarray(image), (0, 26))
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 16)
    ImageDraw.Draw(canvas).text((4, 13), text, fill="black", font=font, anchor="lm")
    return np.asarray(canvas)


def _to_rgb(images: Tensor) -> np.ndarray:
    """Images (N, C, H, W), C = 1 or 3, as uint8 (N, H, W, 3)."""
    if images.is_floating_point():
        images = to_bytes(images)
    array = images.cpu().permute(0, 2, 3, 1).numpy()
    return array.repeat(3, axis=-1) if array.shape[-1] == 1 else array

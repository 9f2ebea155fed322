"""Arrays of pixels: taken from wherever they come, tiled, reduced and encoded."""

import base64
from collections.abc import Iterator
from typing import Any

import imageio.v3 as iio
import numpy as np
from PIL import Image


def as_array(values: Any) -> np.ndarray:
    """A tensor of any device, a list or an array, as an array."""
    if not hasattr(values, "detach"):
        return np.asarray(values)
    values = values.detach().cpu()
    # NumPy has no such type.
    return (values.float() if "bfloat16" in str(values.dtype) else values).numpy()


def to_bytes(pixels: Any) -> np.ndarray:
    """Pixels in [0, 1] as uint8 0–255, rounded; values outside are clipped."""
    clipped = np.clip(as_array(pixels).astype(np.float32), 0, 1)
    return np.rint(clipped * np.float32(255)).astype(np.uint8)


def to_rgb(images: Any) -> np.ndarray:
    """Images (N, C, H, W), C = 1 or 3, as uint8 (N, H, W, 3)."""
    array = as_array(images)
    if np.issubdtype(array.dtype, np.floating):
        array = to_bytes(array)
    array = array.transpose(0, 2, 3, 1)
    return array.repeat(3, axis=-1) if array.shape[-1] == 1 else array


def reduced(images: np.ndarray, longest: int) -> np.ndarray:
    """Images uint8 (N, C, H, W) with no side of more than ``longest`` pixels."""
    height, width = images.shape[-2:]
    factor = longest / max(height, width)
    if factor >= 1:
        return images
    size = max(1, round(width * factor)), max(1, round(height * factor))
    planes = images.reshape(-1, height, width)
    small = [
        np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BILINEAR))
        for plane in planes
    ]
    return np.stack(small).reshape(*images.shape[:2], size[1], size[0])


def sprite(images: np.ndarray, columns: int) -> np.ndarray:
    """Images uint8 (N, C, H, W) as one (height, width, C), without gaps.

    ``columns`` of them stand side by side; white fills the last line.
    """
    count, channels, height, width = images.shape
    lines = -(-count // columns)
    missing = ((0, lines * columns - count), (0, 0), (0, 0), (0, 0))
    filled = np.pad(images, missing, constant_values=255)
    grid = filled.reshape(lines, columns, channels, height, width)
    whole = grid.transpose(0, 3, 1, 4, 2)
    return whole.reshape(lines * height, columns * width, channels)


def encoded(image: np.ndarray, extension: str, **options: Any) -> bytes:
    """An image uint8 (height, width, 1 or 3) as a file; grey ones take less."""
    if image.ndim == 3 and (image[..., :1] == image).all():
        image = image[..., 0]
    return iio.imwrite(
        "<bytes>", image, extension=extension, plugin="pillow", **options
    )


def uris(image: np.ndarray) -> Iterator[str]:
    """``data:`` addresses of an image: without loss, then smaller and smaller."""
    yield data_uri("image/png", encoded(image, ".png", optimize=True))
    for quality in (90, 75, 60, 45):
        yield data_uri("image/webp", webp(image, quality))


def webp(image: np.ndarray, quality: int) -> bytes:
    """An image uint8 (height, width, 1 or 3) as WebP, its quality 1 to 100."""
    return encoded(image, ".webp", quality=quality, method=4)


def gif(frames: list[np.ndarray], durations: list[int], colors: int) -> bytes:
    """An endless animation of frames uint8 (height, width, 3), each for its ms.

    All share one palette, taken from the first, the middle and the last.
    """
    typical = np.concatenate([frames[0], frames[len(frames) // 2], frames[-1]])
    plain = Image.Dither.NONE
    palette = Image.fromarray(typical).quantize(colors, dither=plain)
    shared = [
        Image.fromarray(frame).quantize(palette=palette, dither=plain).convert("RGB")
        for frame in frames
    ]
    return iio.imwrite(
        "<bytes>",
        [np.asarray(frame) for frame in shared],
        extension=".gif",
        plugin="pillow",
        duration=durations,
        loop=0,
    )


def data_uri(media_type: str, content: bytes) -> str:
    """An address that holds its own content."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"

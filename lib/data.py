"""Image sets as resident uint8 tensors (N, C, H, W): embedded, through torchvision, or
your own folder.

A set of this book fits in memory, so it is decoded once, cached as one file and indexed
from then on. Nothing here knows what a model is.
"""

import hashlib
import io
import math
import mimetypes
import os
import stat
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import torch
import torch.nn.functional as F
from filelock import FileLock, Timeout
from PIL import Image, ImageOps
from torch import Tensor

from lib.files import ROOT, atomic_write, work

DIGITS = tuple("0123456789")


class DataError(Exception):
    """A data set cannot be had as asked; the message names the file or name and the
    remedy.
    """


@dataclass(frozen=True)
class Split:
    """Images uint8 (N, C, H, W) and their labels int64 (N,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int | None) -> "Split":
        """The first ``count`` examples; all of them for ``None``."""
        return (
            self if count is None else Split(self.images[:count], self.labels[:count])
        )

    def to(self, device: torch.device | str) -> "Split":
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class ImageData:
    """A train and a test split, the class names, and a title to print beside every
    number.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    train: Split
    test: Split

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        return tuple(self.train.images.shape[1:])

    def digest(self) -> str:
        """SHA-256 over both splits: what a number was measured on."""
        return _digest(
            [self.train.images, self.train.labels, self.test.images, self.test.labels]
        )


def to_unit(images: Tensor) -> Tensor:
    """uint8 pixels 0–255 as float32 in [0, 1]."""
    return images.float().div_(255)


def to_bytes(x: Tensor) -> Tensor:
    """Pixels in [0, 1] as uint8 0–255, rounded; values outside are clipped."""
    return x.float().clamp(0, 1).mul(255).round().byte()


def load(
    name: str,
    root: str | Path | None = None,
    train: int | None = None,
    test: int | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> ImageData:
    """Load an image set whole into memory, its pixels uint8.

    ``name``
        Embedded, without a download: ``digits`` (scikit-learn's 1,797 handwritten
        digits as 28×28, grey) and ``photo_digits`` (the same digits blended into
        photographs, 32×32, colour). Real, downloaded through torchvision if they are
        not under ``root``: ``mnist``, ``fashion_mnist``, ``svhn``, ``cifar10``, and
        ``photo_mnist``, made of ``mnist`` as ``photo_digits`` is of ``digits``. Your
        own: ``folder:NAME`` reads ``root/NAME/{train,test}/<class>/*.png`` (or .jpg),
        images as a viewer shows them: upright, 16 bits as 8, on white where they are
        transparent.
    ``root``
        Where data sets lie; by default $LWL_DATA, else ``data`` in the project's
        folder.
    ``train``, ``test``
        Keep only the first so many images of each split. For ``photo_digits`` and
        ``photo_mnist``: make so many, by default 10,000 and 2,000.
    ``seed``
        Draws the pairs of digit and photograph of these two sets; the others ignore it.

    Raises :class:`DataError` if the set cannot be had, and says what to do.
    """
    for split, count in (("train", train), ("test", test)):
        if count is not None and count < 1:
            raise DataError(
                f"{split}_images = {count}: ask for at least one {split} image, or "
                "for all."
            )
    root = Path(root or os.environ.get("LWL_DATA") or ROOT / "data").expanduser()
    if name == "digits":
        data = _digits()
    elif name == "photo_digits":
        data = _photo_digits(train or 10_000, test or 2_000, seed)
    elif name == "photo_mnist":
        data = _photo_mnist(train or 10_000, test or 2_000, seed, root)
    elif name in TORCHVISION:
        data = _torchvision(name, root)
    elif name.startswith("folder:"):
        data = _folder(name.removeprefix("folder:"), root)
    else:
        hint = (
            f" There is a folder {root / name}: say folder:{name}."
            if (root / name / "train").is_dir()
            else ""
        )
        raise DataError(
            f"Unknown data set {name!r} (the parameter dataset). Known: "
            f"{', '.join(NAMES)}, folder:NAME.{hint}"
        )
    for split, whole, count in (
        ("train", data.train, train),
        ("test", data.test, test),
    ):
        if count is not None and count > len(whole):
            raise DataError(
                f"{split}_images = {count}: {name!r} has only {len(whole)} images in "
                f"its {split} split. Ask for at most so many, or for all."
            )
    return replace(
        data,
        train=data.train.first(train).to(device),
        test=data.test.first(test).to(device),
    )


# --- embedded sets --------------------------------------------------------------------


def _digits(size: int = 28) -> ImageData:
    """The UCI handwritten digits that scikit-learn carries, resized from 8×8, in a
    fixed stratified split.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    x = torch.from_numpy(bunch.images).float().unsqueeze(1) / 16
    images = to_bytes(
        F.interpolate(x, size=(size, size), mode="bicubic", align_corners=False)
    )
    labels = torch.from_numpy(bunch.target).long()
    train, test = train_test_split(
        np.arange(len(labels)), test_size=0.2, random_state=0, stratify=bunch.target
    )
    return ImageData(
        name="digits",
        title="scikit-learn digits",
        classes=DIGITS,
        train=Split(images[train], labels[train]),
        test=Split(images[test], labels[test]),
    )


def _photo_digits(train: int, test: int, seed: int) -> ImageData:
    """scikit-learn's digits on photographs."""
    return _on_photos(
        "photo_digits", "digits on photographs", _digits(size=32), train, test, seed
    )


def _photo_mnist(train: int, test: int, seed: int, root: Path) -> ImageData:
    """MNIST's digits on photographs, padded to 32×32."""
    mnist = _torchvision("mnist", root)
    padded = [
        Split(F.pad(split.images, (2, 2, 2, 2)), split.labels)
        for split in (mnist.train, mnist.test)
    ]
    digits = replace(mnist, train=padded[0], test=padded[1])
    return _on_photos("photo_mnist", "MNIST on photographs", digits, train, test, seed)


def _on_photos(
    name: str, title: str, digits: ImageData, train: int, test: int, seed: int
) -> ImageData:
    """Digits blended into photographs by |photo − digit|, as MNIST-M does (Ganin
    et al., 2016).
    """
    from sklearn.datasets import load_sample_images

    photos = [
        torch.from_numpy(photo.copy()).permute(2, 0, 1)
        for photo in load_sample_images().images
    ]
    # One generator a split, so that the number of training images does not change the
    # test images.
    generators = [torch.Generator().manual_seed(2 * seed + split) for split in (0, 1)]
    # Test patches come from the right fifth of each photograph, which no training patch
    # touches.
    cut = int(0.8 * photos[0].shape[2])
    return ImageData(
        name=name,
        title=title,
        classes=DIGITS,
        train=_blend(
            digits.train, [photo[:, :, :cut] for photo in photos], train, generators[0]
        ),
        test=_blend(
            digits.test, [photo[:, :, cut:] for photo in photos], test, generators[1]
        ),
    )


def _blend(
    digits: Split, photos: list[Tensor], count: int, generator: torch.Generator
) -> Split:
    """``count`` random digits, each subtracted from a random patch of a random
    photograph.
    """

    def draw(high: int) -> Tensor:
        return torch.randint(high, (count,), generator=generator)

    size = digits.images.shape[-1]
    stack = torch.stack(photos)
    chosen, photo = draw(len(digits)), draw(len(photos))
    top, left = draw(stack.shape[2] - size + 1), draw(stack.shape[3] - size + 1)
    span = torch.arange(size)
    rows, columns = top[:, None] + span, left[:, None] + span
    patches = stack.permute(0, 2, 3, 1)[
        photo[:, None, None], rows[:, :, None], columns[:, None, :]
    ]
    blended = (
        (patches.permute(0, 3, 1, 2).short() - digits.images[chosen].short())
        .abs()
        .byte()
    )
    return Split(blended.contiguous(), digits.labels[chosen])


# --- real sets through torchvision ----------------------------------------------------


@dataclass(frozen=True)
class _Source:
    title: str
    classes: tuple[str, ...]
    folder: str
    """The folder of its files under the root."""
    files: str
    """What torchvision looks for there, for the message when it is missing."""
    instead: str
    open: Callable[[Path, bool, bool], tuple[Tensor, Tensor]]
    """(root, is it the training split, may it download) -> images and labels."""


def _open_grey(dataset: str) -> Callable[[Path, bool, bool], tuple[Tensor, Tensor]]:
    def open_split(root: Path, training: bool, download: bool) -> tuple[Tensor, Tensor]:
        from torchvision import datasets

        split = getattr(datasets, dataset)(root, train=training, download=download)
        return split.data.unsqueeze(1), split.targets

    return open_split


def _open_svhn(root: Path, training: bool, download: bool) -> tuple[Tensor, Tensor]:
    from torchvision.datasets import SVHN

    split = SVHN(
        root / "SVHN", split="train" if training else "test", download=download
    )
    return torch.from_numpy(split.data), torch.from_numpy(split.labels)


def _open_cifar10(root: Path, training: bool, download: bool) -> tuple[Tensor, Tensor]:
    from torchvision.datasets import CIFAR10

    split = CIFAR10(root, train=training, download=download)
    return torch.from_numpy(split.data).permute(0, 3, 1, 2), torch.tensor(split.targets)


_IDX = "{train,t10k}-images-idx3-ubyte and {train,t10k}-labels-idx1-ubyte"
_GARMENTS = (
    "T-shirt",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_OBJECTS = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)

TORCHVISION: dict[str, _Source] = {
    "mnist": _Source(
        "MNIST", DIGITS, "MNIST/raw", f"MNIST/raw/{_IDX}", "digits", _open_grey("MNIST")
    ),
    "fashion_mnist": _Source(
        "Fashion-MNIST",
        _GARMENTS,
        "FashionMNIST/raw",
        f"FashionMNIST/raw/{_IDX}",
        "digits",
        _open_grey("FashionMNIST"),
    ),
    "svhn": _Source(
        "SVHN",
        DIGITS,
        "SVHN",
        "SVHN/{train,test}_32x32.mat",
        "photo_digits",
        _open_svhn,
    ),
    "cifar10": _Source(
        "CIFAR-10",
        _OBJECTS,
        "cifar-10-batches-py",
        "cifar-10-batches-py",
        "photo_digits",
        _open_cifar10,
    ),
}

NAMES = ("digits", "photo_digits", *TORCHVISION, "photo_mnist")
"""The names that :func:`load` knows, besides ``folder:NAME``."""


def _torchvision(name: str, root: Path) -> ImageData:
    source = TORCHVISION[name]

    def build() -> tuple[Split, Split]:
        # Another chapter may be downloading the same files: half of them is no set.
        with _alone(root, source.title):
            try:
                return _open_both(source, root, download=False)
            except Exception:  # noqa: BLE001 — missing, truncated or garbled: torchvision fetches what is missing
                return _download(source, root)

    def stamp() -> str:
        return _stamps(sorted((root / source.folder).glob("*")))

    train, test = _cached(f"{name}-{_short(str(root.resolve()))}", stamp, build)
    return ImageData(name, source.title, source.classes, train, test)


def _download(source: _Source, root: Path) -> tuple[Split, Split]:
    try:
        return _open_both(source, root, download=True)
    except Exception as error:
        raise DataError(
            f"{source.title} is not (or not whole) under {root}, and downloading it "
            f"failed: {error}. Put {source.files} under {root} (if files lie there, "
            "delete them first: a broken one is not replaced), name another place "
            f"(root or $LWL_DATA), or use the embedded set {source.instead!r}, which "
            "needs no file."
        ) from error


@contextmanager
def _alone(root: Path, title: str) -> Iterator[None]:
    """Waits until no other process opens or downloads what lies under ``root``.

    Where nothing can be written, nothing can be downloaded either.
    """
    lock = FileLock(root / f".{title}.lock", timeout=60 * 60)
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise DataError(
            f"Another process has been opening {title} for an hour: end it, or remove "
            f"{lock.lock_file}."
        ) from error
    except (OSError, NotImplementedError):
        pass
    try:
        yield
    finally:
        lock.release()


def _open_both(source: _Source, root: Path, download: bool) -> tuple[Split, Split]:
    train, test = (source.open(root, training, download) for training in (True, False))
    return tuple(
        Split(images.contiguous(), labels.long()) for images, labels in (train, test)
    )


# --- your own folder of images --------------------------------------------------------

SUFFIXES = (".png", ".jpg", ".jpeg")
LARGEST = 2**24
"""Pixels of an image, at most: what is larger is a mistake or a bomb, no example."""
UNREAD = (".heic", ".heif", ".avif", ".jxl", ".dng", ".cr2", ".nef", ".arw")
"""Images that neither Pillow nor ``mimetypes`` knows everywhere."""
MARKUP = "<$`|\\[]"
"""Letters that no name of a folder may have."""
DECODING = 2
"""Goes up when images are decoded otherwise, so that no older cache is taken."""


def _folder(name: str, root: Path) -> ImageData:
    folder = root / name
    _class_name(folder)  # the set is called as its folder, too
    listing = {split: _list_images(folder / split) for split in ("train", "test")}
    classes = tuple(listing["train"])
    if tuple(listing["test"]) != classes:
        odd = sorted(set(classes).symmetric_difference(listing["test"]))
        raise DataError(
            f"{_shown(folder)}: train and test must have the same class folders; only "
            f"one has {', '.join(odd)}."
        )
    paths = [
        path for split in listing.values() for files in split.values() for path in files
    ]

    def build() -> tuple[Split, Split]:
        with ThreadPoolExecutor() as pool:  # Pillow lets go of the GIL while it decodes
            _refuse_size(paths, list(pool.map(_pixels, paths)))
            decoded = list(pool.map(_decode, paths))
        sizes = [image.size for image in decoded]
        if odd := [
            path for path, size in zip(paths, sizes, strict=True) if size != sizes[0]
        ]:
            found, first = (
                "×".join(map(str, sizes[paths.index(path)]))
                for path in (odd[0], paths[0])
            )
            raise DataError(
                f"{_shown(odd[0])} is {found} pixels, the first image of the set "
                f"{first}: resize all images to one size."
            )
        mode = "L" if all(image.mode in ("1", "L") for image in decoded) else "RGB"
        count = sum(map(len, listing["train"].values()))
        return tuple(
            _stack(listing[split], images, mode)
            for split, images in (("train", decoded[:count]), ("test", decoded[count:]))
        )

    def stamp() -> str:
        return f"{DECODING} {_stamps(paths)}"

    train, test = _cached(f"folder-{_short(str(folder.resolve()))}", stamp, build)
    return ImageData(f"folder:{name}", name, classes, train, test)


def _list_images(folder: Path) -> dict[str, list[Path]]:
    """The image files of each class folder, sorted by name.

    No image is left out without a word: what cannot be read is refused by its path.
    """
    if not folder.is_dir():
        raise DataError(
            f"There is no folder {_shown(folder)}. Lay images out as "
            f"{_shown(folder)}/<class>/*.png (or .jpg)."
        )
    entries = _entries(folder)
    if loose := [path for path in entries if _is_image(path)]:
        raise DataError(
            f"{_shown(loose[0])} lies beside the class folders: move it into one."
        )
    listing = {
        _class_name(entry): _images_of(entry) for entry in entries if entry.is_dir()
    }
    if not any(listing.values()):
        raise DataError(
            f"{_shown(folder)} holds no images. Lay them out as "
            f"{_shown(folder)}/<class>/*.png (or .jpg)."
        )
    for name, files in listing.items():
        if not files:
            raise DataError(
                f"{_shown(folder / name)} is a class without images: add some, or "
                "remove the folder."
            )
    return listing


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, hidden files aside, sorted by name."""
    try:
        found = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    except OSError as error:
        raise DataError(
            f"{_shown(folder)} cannot be listed ({error.strerror}): let it be read."
        ) from error
    for path in found:
        try:
            kind = path.stat().st_mode
        except OSError as error:
            raise DataError(
                f"{_shown(path)} leads nowhere ({error.strerror}): repair or remove it."
            ) from error
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            raise DataError(
                f"{_shown(path)} is neither a file nor a folder: remove it."
            )
    return found


def _class_name(folder: Path) -> str:
    """A class is called as its folder. A name is text, on pages and in figures: what
    cannot be printed, or would be taken for HTML, a link or mathematics, is refused.
    """
    if not folder.name.isprintable():  # nor are bytes that are no UTF-8
        raise DataError(
            f"{_shown(folder)}: a class is called as its folder, and this name cannot "
            "be printed. Rename it."
        )
    if odd := [letter for letter in MARKUP if letter in folder.name]:
        raise DataError(
            f"{_shown(folder)}: a name with {' '.join(odd)} would be taken for markup "
            "by pages and figures. Rename it."
        )
    return folder.name


def _images_of(folder: Path) -> list[Path]:
    entries = _entries(folder)
    for path in entries:
        if path.is_dir() and any(map(_is_image, _entries(path))):
            raise DataError(
                f"{_shown(path)} is a folder within a class, where no image is looked "
                f"for: move its images to {_shown(folder)}, or remove it."
            )
        if _is_image(path) and path.suffix.lower() not in SUFFIXES:
            raise DataError(
                f"{_shown(path)} is an image of a format that is not read: make a PNG "
                "or JPEG of it, with the suffix .png or .jpg, or remove it."
            )
    return [path for path in entries if path.suffix.lower() in SUFFIXES]


def _is_image(path: Path) -> bool:
    """Whether a file is an image, read here or not, by its name or its first bytes."""
    if path.is_dir() or path.suffix.lower() in (*SUFFIXES, *UNREAD):
        return not path.is_dir()
    if kind := mimetypes.guess_type(path.name)[0]:
        return kind.startswith("image/")
    try:
        with Image.open(path):
            return True
    except Exception:  # noqa: BLE001 — whatever it is, Pillow does not take it for one
        return False


def _shown(path: Path) -> str:
    """A path as a message can print it, in any encoding."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _refuse_size(paths: list[Path], pixels: list[int]) -> None:
    """What the heads of the files tell, before any of them fills the memory."""
    for path, count in zip(paths, pixels, strict=True):
        if count > LARGEST:
            raise DataError(
                f"{_shown(path)} has {count:,} pixels, more than {LARGEST:,}: resize "
                "it, or remove it."
            )
    needed, memory = 3 * sum(pixels), psutil.virtual_memory().total
    if needed > memory / 2:
        raise DataError(
            f"{_shown(paths[0].parents[2])} takes {needed / 1e9:.1f} GB in memory, and "
            f"this machine has {memory / 1e9:.1f}: fewer or smaller images are needed."
        )


def _pixels(path: Path) -> int:
    with _opened(path) as image:
        return math.prod(image.size)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with warnings.catch_warnings():
            # Bombs have a limit of their own here.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                yield image
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"{_shown(path)} cannot be read as an image ({_plainly(error)}): repair or "
            "remove it."
        ) from error


def _plainly(error: Exception) -> str:
    """What went wrong, without the file's name, which may be in any encoding."""
    return ascii(str(error)).strip("'\"") or type(error).__name__


def _decode(path: Path) -> Image.Image:
    """An image as a viewer shows it: upright, of 8 bits, on white where it is
    transparent. Grey ones come as "L" (or "1").
    """
    with _opened(path) as image:
        if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
            raise DataError(
                f"{_shown(path)} is an animation of {image.n_frames} images: save the "
                "one that is meant."
            )
        upright = ImageOps.exif_transpose(image)
        if image.mode.startswith("I") and image.format == "PNG":
            if "transparency" in image.info:
                raise DataError(
                    f"{_shown(path)} has 16 bits and a transparent colour, which is "
                    "not read: save it with 8 bits a pixel."
                )
            levels = np.asarray(upright).astype(np.float64) / 257  # 65535 / 255
            return Image.fromarray(np.rint(levels).clip(0, 255).astype(np.uint8))
        if upright.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
            raise DataError(
                f"{_shown(path)} has pixels of kind {upright.mode}, which is not read: "
                "save it in grey or RGB, with 8 bits a channel."
            )
        if upright.has_transparency_data:
            grey = upright.mode in ("1", "L", "LA")
            seen = upright.convert("RGBA")
            white = Image.new("RGBA", seen.size, "white")
            white.alpha_composite(seen)
            return white.convert("L" if grey else "RGB")
        return upright


def _stack(
    listing: dict[str, list[Path]], decoded: list[Image.Image], mode: str
) -> Split:
    """One split, shuffled, always alike: the first n images of a sorted one would be of
    one class.
    """
    pixels = torch.from_numpy(
        np.stack([np.asarray(image.convert(mode)) for image in decoded])
    )
    images = pixels.unsqueeze(1) if mode == "L" else pixels.permute(0, 3, 1, 2)
    labels = torch.tensor(
        [label for label, files in enumerate(listing.values()) for _ in files]
    )
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return Split(images[order].contiguous(), labels[order])


# --- the cache ------------------------------------------------------------------------


def _cached(
    key: str, stamp: Callable[[], str], build: Callable[[], tuple[Split, Split]]
) -> tuple[Split, Split]:
    """The splits from the cache file ``key`` if it is whole and carries the stamp of
    the files that lie there now, or if none do; else built and cached.
    """
    path = Path(os.environ.get("LWL_CACHE") or work() / "cache") / f"{key}.pt"
    names = ("train_images", "train_labels", "test_images", "test_labels")
    try:
        saved = torch.load(path, weights_only=True)
        tensors = [saved[name] for name in names]
        known = stamp() in ("", saved["stamp"])
        if known and saved["digest"] == _digest(tensors):
            return Split(*tensors[:2]), Split(*tensors[2:])
    except FileNotFoundError:
        pass
    except Exception:  # noqa: BLE001 — truncated, altered or foreign: whatever torch says of it, it is rebuilt
        pass
    train, test = build()
    tensors = [train.images, train.labels, test.images, test.labels]
    saved = dict(zip(names, tensors, strict=True))
    buffer = io.BytesIO()
    torch.save({"stamp": stamp(), "digest": _digest(tensors), **saved}, buffer)
    # Where nothing can be written, each start decodes anew, and nothing else is lost.
    with suppress(OSError), atomic_write(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())
    return train, test


def _stamps(paths: list[Path]) -> str:
    """Stands for what files hold; "" for none. Dates can be set back, but not the
    time of the last change of a file's entry.
    """
    facts = [(os.fsencode(path), path.stat()) for path in paths]
    marks = [
        (name, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for name, s in sorted(facts)
    ]
    return _short(repr(marks)) if marks else ""


def _digest(tensors: list[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]

"""One's own images: each is read as a viewer shows it, or refused by its path with what to do."""

import os
import socket
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from lib.data import DataError, load

GREY = Image.fromarray(np.tile(np.arange(28, dtype=np.uint8) * 9, (28, 1)))
COLOUR = Image.merge("RGB", [GREY, GREY.rotate(90), GREY.rotate(180)])


@pytest.fixture
def folder(tmp_path):
    for split in ("train", "test"):
        for name in "ab":
            (tmp_path / "mine" / split / name).mkdir(parents=True)
            COLOUR.save(tmp_path / "mine" / split / name / "0.png")
    return tmp_path / "mine"


def shown(folder, save):
    """The pixels that a set has whose images were all saved so."""
    for path in folder.rglob("*.png"):
        save(path)
    data = load("folder:mine", root=folder.parent)
    return data.train.images[0].numpy().transpose(1, 2, 0)


def test_sixteen_bits_keep_their_levels(folder, tried):
    tried("faults", "images")
    ramp = np.tile(np.linspace(0, 65535, 28).astype(np.uint16), (28, 1))
    pixels = shown(folder, Image.fromarray(ramp).save)[:, :, 0]
    assert np.array_equal(pixels, np.rint(ramp / 257))


def test_photographs_stand_upright(folder, tried):
    tried("faults", "images")
    tag = Image.Exif()
    tag[0x0112] = 6  # the camera was turned by 90°
    pixels = shown(folder, lambda path: COLOUR.save(path, exif=tag))
    assert np.array_equal(pixels, np.rot90(np.asarray(COLOUR), -1))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(folder, mode, tried):
    tried("faults", "images")
    if mode == "P":
        image = GREY.convert("P")
        pixels = shown(folder, lambda path: image.save(path, transparency=0))
        assert (pixels[:, 0] == 255).all() and (pixels[:, 1] != 255).all()
        return
    image = (GREY if mode == "LA" else COLOUR).copy()
    alpha = np.zeros((28, 28), np.uint8)
    alpha[:14] = 255
    image.putalpha(Image.fromarray(alpha))
    pixels = shown(folder, image.save)
    assert pixels.shape[2] == (1 if mode == "LA" else 3), "grey stays grey"
    assert (pixels[14:] == 255).all()
    opaque = np.asarray(GREY)[:, :, None] if mode == "LA" else np.asarray(COLOUR)
    assert np.array_equal(pixels[:14], opaque[:14])


def test_a_file_name_may_be_of_another_encoding(folder, tried):
    tried("faults", "images")
    os.rename(folder / "train/a/0.png", os.fsencode(folder / "train/a") + b"/\xe9t\xe9.png")
    assert len(load("folder:mine", root=folder.parent).train) == 2


def bomb(width, height):
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def links(path):
    path.symlink_to("nowhere")


def loops(path):
    path.symlink_to(path.name)


def listens(path):
    os.chdir(path.parent)  # names of sockets are short
    socket.socket(socket.AF_UNIX).bind(path.name)


def animates(path):
    GREY.save(path, save_all=True, append_images=[GREY.rotate(90)])


def written(content):
    return lambda path: path.write_bytes(content)


def cut(share):
    def write(path):
        COLOUR.save(path)
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])

    return write


REFUSED = {
    "a pipe": ("1.png", os.mkfifo, "neither a file nor a folder"),
    "a socket": ("1.png", listens, "neither a file nor a folder"),
    "a link to nothing": ("1.png", links, "leads nowhere"),
    "a link to itself": ("1.png", loops, "leads nowhere"),
    "a bomb": ("1.png", written(bomb(60_000, 60_000)), "cannot be read|pixels, more than"),
    "a large bomb below Pillow's limit": ("1.png", written(bomb(9_000, 9_000)), "pixels, more than"),
    "an empty file": ("1.png", written(b""), "cannot be read"),
    "text": ("1.jpg", written(b"no image"), "cannot be read"),
    "half an image": ("1.png", cut(0.5), "cannot be read"),
    "three quarters of an image": ("1.png", cut(0.75), "cannot be read"),
    "an image of a few bytes": ("1.png", cut(0.02), "cannot be read"),
    "an animation": ("1.png", animates, "animation"),
    "CMYK": ("1.jpg", COLOUR.convert("CMYK").save, "kind CMYK"),
    "a GIF": ("1.gif", GREY.save, "format that is not read"),
    "a WebP": ("1.webp", COLOUR.save, "format that is not read"),
    "a TIFF": ("1.tiff", COLOUR.save, "format that is not read"),
    "a BMP": ("1.bmp", COLOUR.save, "format that is not read"),
    "a HEIC": ("1.heic", written(b"\0\0\0\x18ftypheic"), "format that is not read"),
    "an image without a suffix": ("1", lambda path: COLOUR.save(path, "PNG"), "format that is not read"),
    "another size": ("1.png", COLOUR.resize((14, 28)).save, "14×28"),
    "a folder called as an image": ("1.png", os.mkdir, "cannot be read"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_shown_is_refused_by_its_path(folder, what, tried, monkeypatch):
    tried("faults", "images")
    monkeypatch.chdir(folder)
    name, write, reason = REFUSED[what]
    path = folder / "train" / "b" / name
    write(path)
    with pytest.raises(DataError, match=reason) as error:
        load("folder:mine", root=folder.parent)
    assert str(path) in str(error.value)


PLACED = {
    "an image beside the classes": (lambda f: COLOUR.save(f / "train" / "1.png"), "train/1.png lies beside"),
    "a folder in a class": (
        lambda f: ((f / "train/a/more").mkdir(), COLOUR.save(f / "train/a/more/1.png")),
        "train/a/more is a folder within",
    ),
    "a class that is a loop": (lambda f: (f / "train/c").symlink_to("c"), "train/c leads nowhere"),
}


@pytest.mark.parametrize("what", PLACED)
def test_what_lies_where_no_image_is_looked_for_is_refused(folder, what, tried):
    tried("faults", "images")
    place, reason = PLACED[what]
    place(folder)
    with pytest.raises(DataError, match=reason):
        load("folder:mine", root=folder.parent)


@pytest.mark.parametrize("name", [b"<img src=x onerror=alert(1)>", b"$x", b"`x`", b"a|b", b"\xe9", b"a\nb", b"[x]"])
def test_markup_and_what_cannot_be_printed_is_no_name_of_a_class(folder, name, tried):
    tried("faults", "names of classes")
    for split in ("train", "test"):
        os.rename(folder / split / "a", os.fsencode(folder / split) + b"/" + name)
    with pytest.raises(DataError, match="Rename it") as error:
        load("folder:mine", root=folder.parent)
    assert str(error.value).encode(), "and the message can be printed"


@pytest.mark.parametrize("name", ["C++", "cats & dogs", "été", "a_b", "50 %", "猫"])
def test_other_names_are_names(folder, name):
    for split in ("train", "test"):
        (folder / split / "a").rename(folder / split / name)
    assert name in load("folder:mine", root=folder.parent).classes


def test_notes_beside_images_are_no_images(folder):
    for name in ("notes.txt", "labels.csv", "Thumbs.db", ".DS_Store"):
        (folder / "train" / "a" / name).write_bytes(b"some notes")
    assert len(load("folder:mine", root=folder.parent).train) == 2

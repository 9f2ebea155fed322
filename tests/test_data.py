import gzip
import os
import pickle
import shutil
import struct
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image
from torchvision import datasets

from lib import data
from lib.data import DataError, Split, load, to_bytes, to_unit

# --- embedded --------------------------------------------------------------------------------------


def test_digits_are_the_whole_set_in_a_fixed_split_without_overlap():
    digits = load("digits")
    assert digits.train.images.shape == (1437, 1, 28, 28)
    assert digits.test.images.shape == (360, 1, 28, 28)
    assert digits.train.images.dtype == torch.uint8
    assert digits.digest() == load("digits", seed=5).digest()
    train = {image.numpy().tobytes() for image in digits.train.images}
    assert not any(image.numpy().tobytes() in train for image in digits.test.images)
    assert torch.bincount(digits.test.labels).min() >= 30, "the split is not stratified"


def test_photo_digits_repeat_by_seed_and_come_in_the_numbers_asked_for():
    one, again, other = (load("photo_digits", train=50, test=20, seed=seed) for seed in (1, 1, 2))
    assert one.train.images.shape == (50, 3, 32, 32)
    assert len(one.test) == 20
    assert one.digest() == again.digest() != other.digest()


def test_photo_digits_are_photo_minus_digit_and_test_patches_are_apart(monkeypatch):
    columns = np.arange(640)
    photo = np.broadcast_to(np.stack([columns % 256, columns // 256, 0 * columns], -1), (427, 640, 3)).astype(np.uint8)
    bunch = type("Bunch", (), {"images": [photo, photo]})
    monkeypatch.setattr("sklearn.datasets.load_sample_images", lambda: bunch)

    def blank(value):
        split = Split(torch.full((5, 1, 32, 32), value, dtype=torch.uint8), torch.arange(5))
        return lambda size: data.ImageData("digits", "", data.DIGITS, split, split)

    monkeypatch.setattr(data, "_digits", blank(0))  # |photo − 0| is the patch, whose pixels tell their column
    made = load("photo_digits", train=300, test=300)
    column = [split.images[:, 0].int() + 256 * split.images[:, 1].int() for split in (made.train, made.test)]
    assert column[0].max() < 512 <= column[1].min()
    monkeypatch.setattr(data, "_digits", blank(255))
    inverse = load("photo_digits", train=300, test=300)
    assert torch.equal(inverse.train.images, 255 - made.train.images)


def test_pixels_survive_the_way_to_the_unit_interval_and_back():
    grey = torch.arange(256, dtype=torch.uint8)
    assert to_unit(grey).max() == 1
    assert torch.equal(to_bytes(to_unit(grey)), grey)
    assert to_bytes(torch.tensor([-0.2, 1.7])).tolist() == [0, 255]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "mnits"}, r"Unknown data set 'mnits' \(the parameter dataset\). Known: digits, photo_digits, mnist"),
        ({"name": "digits", "train": 0}, "train_images = 0"),
        ({"name": "digits", "test": 999}, "only 360"),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_the_reason(arguments, message):
    with pytest.raises(DataError, match=message):
        load(**arguments)


def test_each_split_has_the_count_asked_for():
    digits = load("digits", train=50, test=20)
    assert (len(digits.train), len(digits.test)) == (50, 20)


@pytest.mark.parametrize("change", ["train", "test", "label", "shape"])
def test_the_digest_covers_both_splits_their_labels_and_their_shapes(change):
    def made(change=None):
        splits = []
        for name in ("train", "test"):
            images = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
            labels = torch.zeros(3, dtype=torch.long)
            images[0, 0, 0, 0] += change == name
            labels[2] += change == "label" and name == "test"
            splits.append(Split(images.view(3, 1, 2, 8) if change == "shape" else images, labels))
        return data.ImageData("x", "", ("a", "b"), *splits)

    assert made().digest() == made().digest() != made(change).digest()


# --- torchvision -----------------------------------------------------------------------------------


def write_idx(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(header + array.tobytes())


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_idx_files_are_read(tmp_path, pixels, name, folder):
    grey = pixels[:, :28, :28, 0].copy()
    for split, count in (("train", 6), ("t10k", 4)):
        write_idx(tmp_path / folder / "raw" / f"{split}-images-idx3-ubyte", grey[:count])
        write_idx(tmp_path / folder / "raw" / f"{split}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8))
    loaded = load(name, root=tmp_path)
    assert torch.equal(loaded.train.images[:, 0], torch.from_numpy(grey))
    assert loaded.test.labels.tolist() == [0, 1, 2, 3]
    assert len(loaded.classes) == 10


def test_svhn_mat_files_are_read(tmp_path, pixels, monkeypatch):
    monkeypatch.setattr(datasets.SVHN, "_check_integrity", lambda self: True)  # tiny files have other checksums
    (tmp_path / "SVHN").mkdir()
    for split, shown in (("train", pixels), ("test", 255 - pixels)):
        contents = {"X": shown.transpose(1, 2, 3, 0), "y": np.array([[10], [1], [2], [3], [4], [5]], np.uint8)}
        scipy.io.savemat(tmp_path / "SVHN" / f"{split}_32x32.mat", contents)
    loaded = load("svhn", root=tmp_path)
    assert torch.equal(loaded.train.images, torch.from_numpy(pixels).permute(0, 3, 1, 2))
    assert torch.equal(loaded.test.images, 255 - loaded.train.images)
    assert loaded.train.labels.tolist() == [0, 1, 2, 3, 4, 5], "SVHN writes the digit 0 as 10"


@pytest.fixture
def tiny_mnist(tmp_path):
    """A root with an MNIST of six blank digits: a photograph minus nothing stays as it is."""
    for split in ("train", "t10k"):
        path = tmp_path / "MNIST" / "raw"
        write_idx(path / f"{split}-images-idx3-ubyte", np.zeros((6, 28, 28), np.uint8))
        write_idx(path / f"{split}-labels-idx1-ubyte", np.arange(6, dtype=np.uint8))
    return tmp_path


def test_photo_mnist_is_made_of_mnist_as_photo_digits_is_of_digits(tiny_mnist):
    made = load("photo_mnist", root=tiny_mnist, train=40, test=20, seed=1)
    assert made.train.images.shape == (40, 3, 32, 32) and len(made.test) == 20
    assert set(made.train.labels.tolist()) <= set(range(6))
    assert made.digest() == load("photo_mnist", root=tiny_mnist, train=40, test=20, seed=1).digest()
    assert made.digest() != load("photo_mnist", root=tiny_mnist, train=40, test=20, seed=2).digest()


def test_the_digits_of_photo_mnist_stand_in_the_middle(tiny_mnist):
    blank = load("photo_mnist", root=tiny_mnist, train=30, test=5)
    path = tiny_mnist / "MNIST" / "raw" / "train-images-idx3-ubyte"
    write_idx(path, np.full((6, 28, 28), 255, np.uint8))
    # Another root, so that the cache of the blank one is not read.
    shutil.copytree(tiny_mnist / "MNIST", tiny_mnist / "other" / "MNIST")
    white = load("photo_mnist", root=tiny_mnist / "other", train=30, test=5)
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[2:-2, 2:-2] = True
    assert torch.equal(white.train.images[..., inside], 255 - blank.train.images[..., inside])
    assert torch.equal(white.train.images[..., ~inside], blank.train.images[..., ~inside])


def test_cifar10_batches_are_read(tmp_path, pixels, monkeypatch):
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *args: True)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    batch = {"data": pixels.transpose(0, 3, 1, 2).reshape(6, -1), "labels": [0, 1, 2, 3, 4, 9]}
    for name in ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"):
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    loaded = load("cifar10", root=tmp_path)
    assert len(loaded.train) == 30
    assert torch.equal(loaded.test.images, torch.from_numpy(pixels).permute(0, 3, 1, 2))


def test_without_files_and_network_the_error_says_what_to_do(tmp_path, monkeypatch):
    def no_network(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", no_network)
    with pytest.raises(DataError) as error:
        load("mnist", root=tmp_path)
    for part in ("MNIST/raw/{train,t10k}-images-idx3-ubyte", str(tmp_path), "'digits'", "no route to host"):
        assert part in str(error.value)


def test_a_truncated_file_is_not_taken_for_whole(tmp_path, pixels, monkeypatch):
    def no_network(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", no_network)
    for split in ("train", "t10k"):
        path = tmp_path / "MNIST" / "raw" / f"{split}-images-idx3-ubyte"
        write_idx(path, pixels[:, :28, :28, 0].copy())
        write_idx(tmp_path / "MNIST" / "raw" / f"{split}-labels-idx1-ubyte", np.arange(6, dtype=np.uint8))
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="not whole"):
        load("mnist", root=tmp_path)


# --- folders ---------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, pixels):
    for split in ("train", "test"):
        for label, name in enumerate(("apple", "pear")):
            (tmp_path / "fruit" / split / name).mkdir(parents=True)
            for number in range(2):
                image = Image.fromarray(pixels[2 * label + number])
                image.save(tmp_path / "fruit" / split / name / f"{number}.png")
    return tmp_path / "fruit"


def load_folder(folder):
    return load("folder:fruit", root=folder.parent)


def test_a_folder_of_images_is_read_with_its_labels_always_in_the_same_mixed_order(folder, pixels):
    (folder / "train" / ".ipynb_checkpoints").mkdir()
    (folder / "train" / "apple" / "._0.png").write_bytes(b"what a Mac leaves behind")
    fruit = load_folder(folder)
    assert fruit.classes == ("apple", "pear")
    expected = torch.from_numpy(pixels[:4]).permute(0, 3, 1, 2)
    order = [int((expected == image).flatten(1).all(1).nonzero()) for image in fruit.train.images]
    assert sorted(order) == [0, 1, 2, 3]
    assert fruit.train.labels.tolist() == [number // 2 for number in order]


def test_images_and_labels_of_a_folder_are_shuffled_alike(tmp_path):
    """Each image's grey level tells its class and number."""
    for split in ("train", "test"):
        for label, name in enumerate(("apple", "fig", "pear", "plum")):
            (tmp_path / "fruit" / split / name).mkdir(parents=True)
            for number in range(5):
                grey = Image.new("L", (4, 4), 50 * label + number)
                grey.save(tmp_path / "fruit" / split / name / f"{number}.png")
    fruit = load("folder:fruit", root=tmp_path)
    for split in (fruit.train, fruit.test):
        levels = split.images[:, 0, 0, 0].long()
        assert sorted(levels.tolist()) == [50 * label + number for label in range(4) for number in range(5)]
        assert (levels // 50).tolist() == split.labels.tolist() != sorted(split.labels.tolist())


def test_classes_are_sorted_whatever_order_the_disk_lists_them_in(folder, monkeypatch):
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(sorted(listed(self), reverse=True)))
    assert load_folder(folder).classes == ("apple", "pear")


def test_the_first_images_of_a_folder_are_not_all_of_one_class(folder, pixels):
    for name in ("apple", "pear"):
        for number in range(20):
            Image.fromarray(pixels[0]).save(folder / "train" / name / f"{number:02}.png")
    # 22 of each class: the first ten are of one class in 5 of 10,000 orders.
    assert 0 < load_folder(folder).train.first(10).labels.sum() < 10


def test_one_grey_image_first_does_not_turn_a_set_grey(folder):
    path = folder / "train" / "apple" / "0.png"
    Image.open(path).convert("L").save(path)
    assert load_folder(folder).shape == (3, 32, 32)


def test_grey_images_stay_grey(folder):
    for path in folder.rglob("*.png"):
        Image.open(path).convert("L").save(path)
    assert load_folder(folder).shape == (1, 32, 32)


def damage_empty(folder):
    shutil.rmtree(folder / "train")
    (folder / "train").mkdir()
    return folder / "train", "holds no images"


def damage_class(folder):
    for path in (folder / "train" / "pear").iterdir():
        path.unlink()
    return folder / "train" / "pear", "class without images"


def damage_size(folder):
    path = folder / "test" / "pear" / "1.png"
    Image.new("RGB", (16, 16)).save(path)
    return path, "16×16"


def damage_bytes(folder):
    path = folder / "test" / "pear" / "1.png"
    path.write_bytes(path.read_bytes()[:200])
    return path, "cannot be read"


def damage_first(folder):
    path = folder / "train" / "apple" / "0.png"
    path.write_bytes(b"no image")
    return path, "cannot be read"


def damage_missing(folder):
    shutil.rmtree(folder / "test")
    return folder / "test", "There is no folder"


def damage_names(folder):
    (folder / "test" / "pear").rename(folder / "test" / "plum")
    return folder, "pear, plum"


@pytest.mark.parametrize(
    "damage", [damage_empty, damage_class, damage_size, damage_bytes, damage_first, damage_missing, damage_names]
)
def test_a_damaged_folder_is_refused_by_path(folder, damage):
    path, reason = damage(folder)
    with pytest.raises(DataError) as error:
        load_folder(folder)
    assert str(path) in str(error.value)
    assert reason in str(error.value)


def test_a_folder_named_without_its_prefix_is_pointed_out(folder):
    with pytest.raises(DataError, match="say folder:fruit"):
        load("fruit", root=folder.parent)


# --- the cache -------------------------------------------------------------------------------------


def cache_file(tmp_path):
    (path,) = (tmp_path / "cache").iterdir()
    return path


@pytest.fixture
def no_decoding(monkeypatch):
    def forbidden(*args):
        raise AssertionError("images were decoded although the cache is whole")

    return lambda: monkeypatch.setattr(data, "_decode", forbidden)


def test_the_second_start_decodes_nothing(folder, no_decoding):
    first = load_folder(folder)
    no_decoding()
    assert load_folder(folder).digest() == first.digest()


@pytest.mark.parametrize("harm", ["truncate", "alter", "garbage"])
def test_a_harmed_cache_is_noticed_and_rebuilt(folder, tmp_path, harm):
    first = load_folder(folder)
    path = cache_file(tmp_path)
    if harm == "truncate":
        path.write_bytes(path.read_bytes()[:-500])
    elif harm == "garbage":
        path.write_bytes(gzip.compress(b"something else"))
    else:
        saved = torch.load(path, weights_only=True)
        saved["train_images"][0, 0, 0, 0] += 1
        torch.save(saved, path)
    assert load_folder(folder).digest() == first.digest()
    repaired = torch.load(cache_file(tmp_path), weights_only=True)
    assert torch.equal(repaired["train_images"], first.train.images)


def test_a_changed_folder_is_read_again(folder):
    first = load_folder(folder)
    Image.new("RGB", (32, 32)).save(folder / "train" / "apple" / "0.png")
    assert load_folder(folder).digest() != first.digest()


def test_another_image_of_the_same_size_is_noticed_by_its_time(folder):
    path = folder / "train" / "apple" / "0.png"
    Image.new("RGB", (32, 32), "black").save(path, compress_level=0)
    first, size = load_folder(folder), path.stat().st_size
    Image.new("RGB", (32, 32), "white").save(path, compress_level=0)
    os.utime(path, (1e9, 1e9))
    assert path.stat().st_size == size
    assert load_folder(folder).digest() != first.digest()


# --- details ---------------------------------------------------------------------------------------


def test_a_set_lies_where_it_was_said_then_where_the_environment_says(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LWL_DATA", str(tmp_path))
    assert load("folder:fruit").name == "folder:fruit"
    monkeypatch.setenv("LWL_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(DataError, match="elsewhere"):
        load("folder:fruit")
    assert load("folder:fruit", root=tmp_path).title == "fruit"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(load("folder:fruit", root="~").train) == 4


def test_digits_keep_their_grey_levels_and_labels():
    from sklearn.datasets import load_digits

    bunch, digits = load_digits(), load("digits")
    assert digits.train.images.max() == 255 and digits.train.images.min() == 0
    small = torch.nn.functional.adaptive_avg_pool2d(to_unit(digits.train.images), 8).flatten(1)
    distances = torch.cdist(small, torch.from_numpy(bunch.images).float().flatten(1) / 16)
    assert distances.min(1).values.max() < 2, "each is one of scikit-learn's"
    assert (torch.from_numpy(bunch.target)[distances.argmin(1)] == digits.train.labels).float().mean() > 0.98
    assert (digits.name, digits.title, digits.classes) == ("digits", "scikit-learn digits", tuple("0123456789"))


def test_the_number_of_training_images_does_not_change_the_test_images():
    few, many = (load("photo_digits", train=count, test=20) for count in (10, 60))
    assert torch.equal(few.test.images, many.test.images) and torch.equal(few.test.labels, many.test.labels)


def test_a_set_that_is_made_has_ten_thousand_images_unless_other_numbers_are_asked_for(monkeypatch):
    made = []
    monkeypatch.setattr(
        data, "_photo_digits", lambda train, test, seed: made.append((train, test, seed)) or data._digits()
    )
    monkeypatch.setattr(
        data, "_photo_mnist", lambda train, test, seed, root: made.append((train, test, seed)) or data._digits()
    )
    for name in ("photo_digits", "photo_mnist"):
        load(name)
        load(name, train=7, test=3, seed=4)
    assert made == [(10_000, 2_000, 0), (7, 3, 4)] * 2


def test_every_patch_of_every_photograph_can_be_drawn():
    """Pixels tell photograph, row and column; a blank digit leaves them."""
    rows, columns = torch.meshgrid(torch.arange(33), torch.arange(34), indexing="ij")
    photos = [torch.stack([rows, columns, torch.full_like(rows, 100 * n)]).byte() for n in range(2)]
    digits = Split(torch.zeros(3, 1, 32, 32, dtype=torch.uint8), torch.tensor([4, 5, 6]))
    made = data._blend(digits, photos, 400, torch.Generator().manual_seed(0))
    corners = {tuple(image[:, 0, 0].tolist()) for image in made.images}
    assert corners == {(top, left, 100 * n) for top in (0, 1) for left in (0, 1, 2) for n in (0, 1)}
    assert torch.equal(made.images[:, 0, -1, 0], made.images[:, 0, 0, 0] + 31)
    assert torch.equal(made.images[:, 1, 0, -1], made.images[:, 1, 0, 0] + 31)
    assert set(made.labels.tolist()) == {4, 5, 6}


def test_labels_are_those_of_the_digits_on_the_photographs():
    photos = [torch.zeros(3, 40, 40, dtype=torch.uint8)]
    digits = Split(torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 1, 8, 8), torch.arange(5))
    made = data._blend(digits, photos, 100, torch.Generator().manual_seed(0))
    assert torch.equal(made.images[:, 0, 3, 3].long(), made.labels)


def test_the_training_split_is_checked_against_the_count_asked_for():
    with pytest.raises(DataError, match=r"train_images = 1438: 'digits' has only 1437 images"):
        load("digits", train=1438)
    assert len(load("digits", train=1437).train) == 1437 and len(load("digits", train=1).train) == 1


def test_the_first_images_are_kept_in_their_order_with_their_labels():
    digits = load("digits")
    some = load("digits", train=9, test=4)
    for few, all_of_them, count in ((some.train, digits.train, 9), (some.test, digits.test, 4)):
        assert torch.equal(few.images, all_of_them.images[:count]) and torch.equal(
            few.labels, all_of_them.labels[:count]
        )
    assert digits.train.first(None) is digits.train and digits.shape == (1, 28, 28)


def test_every_name_can_be_asked_for_and_says_what_to_use_instead():
    assert data.NAMES == ("digits", "photo_digits", "mnist", "fashion_mnist", "svhn", "cifar10", "photo_mnist")
    for name, source in data.TORCHVISION.items():
        assert len(set(source.classes)) == 10 and source.instead in ("digits", "photo_digits")
        assert (source.instead == "digits") == (name in ("mnist", "fashion_mnist")), "grey for grey"


def test_jpegs_and_capital_suffixes_are_read(folder):
    for path in list(folder.rglob("*.png")):
        image = Image.open(path)
        image.load()
        path.unlink()
        image.save(path.with_suffix(".JPG" if path.stem == "0" else ".jpeg"), format="JPEG")
    assert len(load_folder(folder).train) == 4


def test_a_folder_that_is_not_there_is_not_pointed_out(tmp_path):
    with pytest.raises(DataError) as error:
        load("mnits", root=tmp_path)
    assert str(error.value).endswith("folder:NAME.")

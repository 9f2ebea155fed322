import numpy as np
import pytest
import torch
from torch import nn

from lib import data, endless, train
from lib.data import DataError, Split


def grounds(height=34, width=35):
    """Two photographs whose pixels tell their row, their column and which one it is."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.stack([rows, columns, torch.full_like(rows, 100 * n)]) for n in (0, 1)]).byte()


def blends(value=0):
    """Three digits of one grey level each, labelled 4, 5, 6."""
    images = torch.full((3, 1, 32, 32), value, dtype=torch.uint8)
    return endless.Blends(Split(images, torch.tensor([4, 5, 6])), grounds())


def drawn(source, count=600, seed=0):
    return source.draw(count, torch.Generator().manual_seed(seed))


def test_every_patch_of_every_photograph_and_every_digit_can_be_drawn():
    made = drawn(blends())
    corners = {tuple(image[:, 0, 0].tolist()) for image in made.images}
    assert corners == {(top, left, 100 * n) for top in range(3) for left in range(4) for n in (0, 1)}
    assert torch.equal(made.images[:, 0, -1, 0], made.images[:, 0, 0, 0] + 31), "rows run down"
    assert torch.equal(made.images[:, 1, 0, -1], made.images[:, 1, 0, 0] + 31), "columns run to the right"
    assert set(made.labels.tolist()) == {4, 5, 6}
    assert made.images.shape == (600, 3, 32, 32) and made.images.is_contiguous()


def test_a_digit_is_subtracted_without_wrapping_around():
    plain, dark = drawn(blends()), drawn(blends(200))
    expected = (plain.images.int() - 200).abs()
    assert torch.equal(dark.images.int(), expected) and (plain.images < 200).any()


def test_labels_are_those_of_the_digits():
    digits = Split(torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 1, 32, 32), torch.arange(5))
    made = drawn(endless.Blends(digits, torch.zeros(1, 3, 40, 40, dtype=torch.uint8)))
    assert torch.equal(made.images[:, 0, 3, 3].long(), made.labels)


@pytest.mark.parametrize("validation", [False, True])
def test_no_digit_is_in_two_sources_and_choices_are_made_with_others_than_results(validation):
    train_, reference, held = endless.sources("photo_digits", validation=validation)
    parts = [{image.numpy().tobytes() for image in part.digits.images} for part in (train_, reference, held)]
    # The set has a few digits twice; they may fall on both sides.
    assert all(len(a & b) <= 4 for a, b in ((parts[0], parts[1]), (parts[0], parts[2]), (parts[1], parts[2])))
    assert [len(part.digits) for part in (train_, reference, held)] == [1079, 180, 179]
    other = endless.sources("photo_digits", validation=not validation)
    assert torch.equal(other[0].digits.images, train_.digits.images)
    assert not {image.numpy().tobytes() for image in other[1].digits.images} & parts[1]
    assert torch.equal(train_.photos, held.photos) and train_.photos.shape == (2, 3, 427, 640)


def test_digits_stand_in_the_middle_with_their_own_labels():
    digits, (source, *_) = data.load("digits"), endless.sources("photo_digits")
    assert source.digits.images[:, :, :2].max() == 0 == source.digits.images[..., -2:].max()
    inner = source.digits.images[0, :, 2:-2, 2:-2]
    both = torch.cat([digits.train.images, digits.test.images])
    (place,) = (both == inner).flatten(1).all(1).nonzero()[0].tolist()
    assert torch.cat([digits.train.labels, digits.test.labels])[place] == source.digits.labels[0]


def test_digits_that_cannot_be_had_are_named(tmp_path, monkeypatch):
    def offline(name, root=None, **options):
        raise DataError("MNIST is not there")

    monkeypatch.setattr(data, "load", offline)
    with pytest.raises(DataError, match="MNIST is not there"):
        endless.sources("photo_mnist", tmp_path)


def test_a_made_set_repeats_by_seed_and_its_test_images_come_in_order():
    parts = endless.sources("photo_digits")
    made, again, other = (endless.made("photo_digits", parts, (30, 20, 10), seed) for seed in (1, 1, 2))
    assert made.digest() == again.digest() != other.digest()
    assert (len(made.train), len(made.test), made.shape, made.name) == (30, 30, (3, 32, 32), "photo_digits")
    last = parts[2].draw(10, torch.Generator().manual_seed(3 + 2))
    assert torch.equal(made.test.images[20:], last.images) and torch.equal(made.test.labels[20:], last.labels)


def test_batches_never_end_and_repeat_by_seed():
    one, again, other = (endless.Endless(blends(), 7, seed) for seed in (0, 0, 1))
    first = [next(one) for _ in range(3)]
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, again, strict=False))
    assert not torch.equal(first[0][0], first[1][0]) and not torch.equal(first[0][0], next(other)[0])
    x, labels = first[0]
    assert x.shape == (7, 3, 32, 32) and x.dtype == torch.float32 and x.min() >= 0 and x.max() <= 1
    assert labels.dtype == torch.int64
    with pytest.raises(ValueError, match="batch_size=0"):
        endless.Endless(blends(), 0)


def test_a_killed_training_goes_on_with_the_images_that_were_to_come(tmp_path):
    """The generator of images is part of a checkpoint, or the first ones would come twice."""

    limits, seen = [], []

    class Step:
        def __init__(self):
            torch.manual_seed(0)
            self.model = nn.Linear(1, 1)
            self.parts = {"model": self.model}

        def __call__(self, batch):
            if limits and len(seen) == limits[0]:
                raise KeyboardInterrupt
            seen.append(batch[0].sum().item())
            return {"loss": batch[0].mean()}

    def run(folder):
        seen.clear()
        train.fit(Step(), endless.Endless(blends(), 5), 10, checkpoint=folder / "run", checkpoint_every=4)
        return list(seen)

    whole = run(tmp_path / "whole")
    limits.append(6)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed")
    limits.clear()
    np.testing.assert_allclose(run(tmp_path / "killed"), whole[4:])

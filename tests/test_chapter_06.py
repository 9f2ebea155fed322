"""Chapter 6: who may meet whom, and what is refused before anything trains."""

import numpy
import pytest
import torch
from chapter_cells import cells_of
from PIL import Image

from lib import nets, train, unmix
from lib.data import Split
from lib.report import unconverted as chapter


def cells_of_unmixing(upto, **parameters):
    return cells_of("06_unmixing", upto, **parameters)


def as_bytes(images):
    """Each image (C, H, W) of a tensor (…, C, H, W) as something a set can hold."""
    pixels = images if images.dtype == torch.uint8 else images.mul(255).round().byte()
    return [bytes(image.flatten().tolist()) for image in pixels.reshape(-1, *pixels.shape[-3:])]


def test_unmixing_splits_images_before_it_draws_pairs(monkeypatch):
    """All images that reach a training, in any part of the chapter, and all that are scored as test pairs."""
    trained, first_losses = [], {}

    def fit(step, batches, steps, **options):
        trained.extend(batches.tensors)
        losses = {name: value.view(1) for name, value in step(next(batches)).items()}
        first_losses[options["label"]] = losses
        probe = options.get("probe")
        return train.History(losses, probes=[{"step": 1, **probe()}] if probe else [])

    monkeypatch.setattr(train, "fit", fit)
    monkeypatch.setattr(chapter, "display", lambda *args, **options: None)
    run = cells_of_unmixing("table-general", curve=[10], flips=False)
    data = run["data"]
    test, seen = set(as_bytes(data.test.images)), {image for images in trained for image in as_bytes(images)}
    assert len(trained) >= 14 and len(seen) == len(data.train) == 60
    assert not seen & test
    assert set(as_bytes(run["x_test"])) <= test and set(as_bytes(run["x_kinds"])) <= test
    for name in ("x_train", "x_few", "x_sides"):
        assert set(as_bytes(run[name])) <= set(as_bytes(data.train.images)), name
    # No pair of an image with itself, wherever pairs stay the same.
    for name in ("x_test", "x_train", "x_few", "x_sides", "x_kinds"):
        first, second = as_bytes(run[name][:, 0]), as_bytes(run[name][:, 1])
        assert all(a != b for a, b in zip(first, second, strict=True)), name

    # Losses and levels reach the networks they are meant for.
    for label, losses in first_losses.items():
        if label in ("ours", "short-dB"):
            assert losses["loss"] < -5 < 0 < losses["error"], "decibels"
        elif label != "protocol-vae":  # nats
            assert torch.equal(losses["loss"], losses["error"]), label
    assert {"ours", "short-dB", "memory"} <= first_losses.keys()
    levels = {name: nets.count_parameters(run[name]) for name in ("ours", "remembering")}
    assert levels["ours"] < levels["remembering"], "levels of its own"

    # Floors that need no training: what is linear in the mixture keeps it, and beats the mixture twice.
    x, m, linear = run["x_test"], run["m_uneven"], run["linear"]
    torch.testing.assert_close(unmix.mix(linear, 0.7), m)
    assert unmix.pair_error(x, linear).mean() < 0.95 * unmix.pair_error(x, run["twice"](m)).mean()


def test_unmixings_score_is_a_mean_of_decibels_in_one_order_a_pair():
    run = cells_of_unmixing("score")
    x = run["x_test"][:5]
    x_hat = (x + torch.tensor([0.02, 0.3]).view(2, 1, 1, 1) * torch.randn_like(x)).clamp(0, 1)
    decibels = -10 * ((x - x_hat) ** 2).mean((2, 3, 4)).log10().mean(1)
    swapped = x_hat.clone()
    swapped[1::2] = swapped[1::2].flip(1)
    for answers, assign in ((x_hat, False), (x_hat, True), (swapped, True)):
        torch.testing.assert_close(run["score"](x, answers, assign)["psnr"], decibels)
    assert (run["score"](x, swapped, False)["psnr"][1::2] < decibels[1::2]).all()


def test_unmixings_two_kinds_keep_their_places():
    run = cells_of_unmixing("protocol-data")
    low, high = torch.arange(8.0).view(8, 1, 1, 1), torch.arange(100.0, 108).view(8, 1, 1, 1)
    drawn = [run["two_kinds"](low, high) for _ in range(2)]
    for x in drawn:
        assert torch.equal(x[:, 0], low) and torch.equal(x[:, 1].flatten().sort().values, high.flatten())
    assert not torch.equal(*drawn), "paired anew"
    sides = [set(as_bytes(side)) for side in run["sides"]]
    assert not sides[0] & sides[1]
    labels = dict(zip(as_bytes(run["data"].train.images), run["data"].train.labels.tolist(), strict=True))
    assert max(labels[image] for image in sides[0]) < 5 <= min(labels[image] for image in sides[1])
    one_sided = Split(run["data"].test.images[:4], torch.zeros(4, dtype=torch.long))
    with pytest.raises(chapter.ParameterError, match="both halves of the classes are needed"):
        run["halves_of_classes"](one_sided)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"other_weight": 0.0}, "other_weight = 0.0: it must be between 0 and 1"),
        ({"other_weight": 1.0}, "other_weight = 1.0: it must be between 0 and 1"),
        ({"other_weight": -0.2}, "other_weight = -0.2: it must be between 0 and 1"),
        ({"train_images": 1}, "train_images = 1: a pair needs 2"),
        ({"test_images": 1}, "test_images = 1: a pair needs 2"),
        ({"protocol_images": 1}, "protocol_images = 1: it must be at least 2"),
        ({"protocol_images": 61}, "protocol_images = 61: with this data at most 60"),
        ({"test_pairs": 1}, r"test_pairs = 1: it must be 0 \(all\) or at least 2"),
        ({"test_pairs": 41}, "test_pairs = 41: with this data at most 40"),
        ({"curve": [10, 61]}, r"curve = \[10, 61\]: with this data at most 60"),
        ({"curve": [1]}, r"curve = \[1\]: it must be a list of values at least 2"),
        ({"kinds": ["digits"]}, "kinds = .*: it must be empty or two names"),
        ({"kinds": ["digits", "photo_digits"]}, r"images of one shape are wanted, not \(1, 28, 28\) and \(3, 32, 32\)"),
        ({"channels": [4] * 6}, "32×32 pixels.*divisible by 64"),
        ({"memory_channels": [4] * 6}, "32×32 pixels.*divisible by 64"),
        ({"protocol_channels": [4] * 7}, "32×32 pixels.*divisible by 64"),
        ({"patch": 3}, "32×32 pixels.*divisible by 6"),
        ({"kinds": ["digits", "digits"]}, "two different sets are wanted"),
    ],
)
def test_unmixing_refuses_what_cannot_be_unmixed_before_it_trains(parameters, message):
    with pytest.raises(ValueError, match=message):
        cells_of_unmixing("setup", **parameters)


def test_unmixing_refuses_images_that_the_reports_autoencoder_cannot_halve_twice(tmp_path):
    """30×30 pixels suit our U-Net of one halving; the autoencoder beside the report's U-Net halves twice."""
    generator = numpy.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("apple", "pear"):
            folder = tmp_path / "odd" / split / name
            folder.mkdir(parents=True)
            for number in range(10):
                pixels = generator.integers(0, 256, (30, 30, 3), dtype=numpy.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    small = {"channels": [4], "protocol_channels": [4], "kinds_channels": [4], "curve": [10], "test_pairs": 10}
    small |= {"protocol_images": 10, "train_images": 0, "test_images": 0, "data_root": str(tmp_path)}
    with pytest.raises(ValueError, match=r"30×30 pixels.*divisible by 4"):
        cells_of_unmixing("setup", dataset="folder:odd", **small)

"""Chapter 6: who may meet whom, and what is refused before anything trains."""

import numpy
import pytest
import torch
from chapter_cells import code_cells, read, tiny
from PIL import Image

from lib import train, unmix
from lib.report import chapter

CELLS = code_cells(read("06_unmixing"))


def cells_of_unmixing(upto, **changes):
    """The namespace after the chapter's measuring cells up to one, with tiny settings and a run that is kept."""
    namespace = {"In": [""]}
    for cell in CELLS:
        measuring = "measure" in cell.metadata.get("tags", [])
        if not (measuring or cell.id in ("parameters", "opening")):
            continue
        namespace["In"].append(cell.source)
        exec(compile(cell.source, cell.id, "exec"), namespace)
        if cell.id == "parameters":
            namespace |= {**tiny("06_unmixing"), "device": "cpu", **changes}
        if cell.id == upto:
            return namespace
    raise AssertionError(f"no cell {upto}")


@pytest.fixture(autouse=True)
def own(monkeypatch, tmp_path):
    for name in ("LWL_TELL", "LWL_RESULTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LWL_CHECKPOINTS", str(tmp_path))


def as_bytes(images):
    """Each image (C, H, W) of a tensor (…, C, H, W) as something a set can hold."""
    pixels = images if images.dtype == torch.uint8 else images.mul(255).round().byte()
    return [bytes(image.flatten().tolist()) for image in pixels.reshape(-1, *pixels.shape[-3:])]


def test_unmixing_splits_images_before_it_draws_pairs(monkeypatch):
    """All images that reach a training, in any part of the chapter, and all that are scored as test pairs."""
    trained, labels = [], []

    def fit(step, batches, steps, **options):
        trained.extend(batches.tensors)
        labels.append(options["label"])
        losses = {name: value.view(1) for name, value in step(next(batches)).items()}
        probe = options.get("probe")
        return train.History(losses, probes=[{"step": 1, **probe()}] if probe else [])

    monkeypatch.setattr(train, "fit", fit)
    run = cells_of_unmixing("kinds-run", flips=False)
    data = run["data"]
    test, seen = set(as_bytes(data.test.images)), {image for images in trained for image in as_bytes(images)}
    assert len(labels) == len(set(labels)) >= 20 and len(seen) == len(data.train) == 60
    assert not seen & test
    assert set(as_bytes(run["x_test"])) <= test and set(as_bytes(run["x_kinds"])) <= test
    for name in ("x_seen", "x_few"):
        assert set(as_bytes(run[name])) <= set(as_bytes(data.train.images)), name
    for name in ("x_test", "x_seen", "x_few", "x_kinds"):
        first, second = as_bytes(run[name][:, 0]), as_bytes(run[name][:, 1])
        assert all(a != b for a, b in zip(first, second, strict=True)), name
    # An answer that is linear in the mixture keeps it and, at an uneven weight, beats the mixture twice.
    x, m, linear = run["x_test"], run["m_uneven"], run["linear"]
    torch.testing.assert_close(unmix.mix(linear, 0.7), m)
    assert unmix.pair_error(x, linear).mean() < unmix.pair_error(x, unmix.twice(m)).mean()


def test_the_readings_of_the_protocol_are_what_the_page_says():
    run = cells_of_unmixing("protocol-data")
    readings = {name: [set(as_bytes(part)) for part in parts] for name, parts in run["readings"].items()}
    labels = dict(zip(as_bytes(run["data"].train.images), run["data"].train.labels.tolist(), strict=True))
    assert [len(readings[name]) for name in ("one", "two", "kinds")] == [1, 2, 2]
    for name in ("two", "kinds"):
        assert not readings[name][0] & readings[name][1], name
    assert readings["one"][0] == readings["two"][0]
    low, high = ({labels[image] for image in side} for side in readings["kinds"])
    assert max(low) < 5 <= min(high)


def test_gains_are_over_the_mixture_of_the_same_pairs():
    run = cells_of_unmixing("floors")
    results, x, m = run["results"], run["x_test"], run["m_test"]
    assert results["twice_gain"].mean == 0
    found = run["judge"]("own", x, 1 - x, 1 - m)
    floor = unmix.scores(1 - x, unmix.twice(1 - m))["psnr"]
    torch.testing.assert_close(found["gain"], found["psnr"] - floor)
    assert found["gain"].mean() == pytest.approx(results["own_gain"].mean)
    assert results["floor_train"].mean == pytest.approx(
        unmix.pair_error(run["x_seen"], unmix.twice(unmix.mix(run["x_seen"]))).mean().item()
    )
    assert run["results"].array("pairs_sha256").tobytes().hex() == unmix.digest(run["x_bytes"])


@pytest.mark.parametrize(
    ("upto", "parameters", "message"),
    [
        ("opening", {"other_weight": 0.0}, "other_weight = 0.0: it must be above 0"),
        ("opening", {"protocol_images": 1}, "protocol_images = 1: it must be at least 2"),
        ("opening", {"curve": [1]}, r"curve = \[1\]: it must be a list"),
        ("data", {"train_images": 1}, "train_images = 1: a pair needs two images"),
        ("data", {"test_images": 1}, "test_images = 1: a pair needs two images"),
        ("limits", {"other_weight": 1.0}, "other_weight = 1.0: it must be below 1"),
        ("limits", {"protocol_images": 31}, "protocol_images = 31: at most 30, half of the training images"),
        ("limits", {"photographs": 61}, "photographs = 61: at most 60"),
        ("limits", {"curve": [20, 61]}, r"curve = \[20, 61\]: at most 60, the training images"),
        ("limits", {"first_kind": "digits"}, "first_kind = 'digits', second_kind = '': two different sets"),
        (
            "limits",
            {"first_kind": "digits", "second_kind": "photo_digits"},
            "two different sets of images of one shape",
        ),
        ("limits", {"first_kind": "digits", "second_kind": "digits"}, "second_kind = 'digits': two different sets"),
        ("networks", {"channels": [4] * 5}, "32×32 pixels.*divisible by 64"),
        ("networks", {"channels": [4] * 6}, "32×32 pixels.*divisible by 64"),
        ("networks", {"protocol_channels": [4] * 7}, "32×32 pixels.*divisible by 64"),
        ("networks", {"patch": 3}, "32×32 pixels.*divisible by 6"),
    ],
)
def test_unmixing_refuses_what_cannot_be_unmixed_before_it_trains(upto, parameters, message):
    assert issubclass(chapter.ParameterError, ValueError)
    with pytest.raises(ValueError, match=message):
        cells_of_unmixing(upto, **parameters)


def test_unmixing_refuses_images_that_the_reports_autoencoder_cannot_halve_twice(tmp_path):
    """30×30 pixels suit a U-Net of one halving; the autoencoder beside the report's U-Net halves twice."""
    generator = numpy.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("apple", "pear"):
            folder = tmp_path / "odd" / split / name
            folder.mkdir(parents=True)
            for number in range(10):
                pixels = generator.integers(0, 256, (30, 30, 3), dtype=numpy.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    small = {name: [4] for name in ("channels", "small_channels", "protocol_channels")}
    small |= {"protocol_images": 10, "train_images": 0, "test_images": 0, "data_root": str(tmp_path)}
    with pytest.raises(ValueError, match=r"30×30 pixels.*divisible by 4"):
        cells_of_unmixing("networks", dataset="folder:odd", photographs=3, **small)

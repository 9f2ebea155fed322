"""What every chapter's notebook must be, before and under papermill."""

import ast
import math
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy
import papermill
import pytest
import torch
import yaml
from papermill.exceptions import PapermillExecutionError
from PIL import Image

from lib import evaluate, nets, train, unmix, wgan
from lib.data import Split
from lib.files import ROOT
from lib.report import unconverted as chapter
from lib.site import book

CHAPTERS = book.chapters()
# Settings so small that a whole chapter runs in seconds.
TINY = {
    "01_autoencoders": {
        "train_images": 200,
        "test_images": 100,
        "latent_dim": 3,
        "hidden": [16],
        "sweep_sigmas": [0.5],
        "epochs": 1,
        "short_epochs": 1,
        "seeds": 1,
        "gan_steps": 2,
        "gan_width": 2,
        "slow_steps": 2,
        "classifier_epochs": 1,
    },
    "02_autodecoders": {
        "train_images": 60,
        "test_images": 50,
        "latent_dim": 3,
        "channels_001": [8, 4],
        "epochs": 1,
        "best_epochs": 1,
        "inference_steps": 2,
        "tsne_steps": 300,
        "classifier_images": 200,
        "classifier_epochs": 1,
        "samples": 100,
        "all_epochs": 1,
        "seeds": 2,
    },
    "03_likelihood": {
        "train_images": 150,
        "test_images": 30,
        "validation_images": 50,
        "latent_dim": 6,
        "width": 2,
        "epochs": 1,
        "ablation_epochs": 1,
        "report_epochs": 1,
        "K": 4,
        "scored_images": 20,
        "counts": [1, 2, 4],
        "curve_images": 5,
        "objective_epochs": 1,
        "objective_hidden": 8,
        "exact_images": 5,
        "annealed_images": 3,
        "temperatures": [1, 2],
        "chains": 2,
        "leapfrog": 1,
    },
    "04_wgan_gp": {
        "train_images": 120,
        "test_images": 40,
        "latent_dim": 6,
        "cells": 3,
        "width": 2,
        "steps": 4,
        "n_critic": 2,
        "batch_size": 8,
        "optimizer": "Muon",
        "penalty_share": 0.5,
        "short_steps": 2,
        "moments": 2,
        "samples": 32,
        "classifier_epochs": 1,
        "sweep_codes": 2,
        "pairs": 4,
        "toy_steps": 20,
    },
    "05_simsiam": {
        "train_images": 60,
        "test_images": 40,
        "width": 2,
        "blocks": [1, 1],
        "dim": 6,
        "hidden": 2,
        "epochs": 2,
        "batch_size": 20,
        "optimizer": "Muon",
        "learning_rate": 0.02,
        "variant_epochs": 1,
        "label_epochs": 1,
        "curve_images": 20,
        "k": 5,
        "ks": [1, 5],
        "temperatures": [0.1, 1.0],
        "tsne_images": 12,
    },
    "06_unmixing": {
        "train_images": 60,
        "test_images": 40,
        "test_pairs": 20,
        "channels": [4, 6],
        "steps": 2,
        "short_steps": 1,
        "batch_size": 4,
        "curve": [10],
        "protocol_images": 20,
        "protocol_channels": [2, 4],
        "protocol_latent_dim": 3,
        "protocol_width": 2,
        "protocol_steps": 2,
        "protocol_batch_size": 4,
        "flips": True,
        "memory_channels": [4, 8],
        "memory_steps": 1,
        "kinds_channels": [4],
    },
}


@pytest.fixture(params=CHAPTERS)
def name(request):
    return request.param


@pytest.fixture
def notebook(name):
    return nbformat.read(ROOT / "book" / f"{name}.ipynb", 4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_the_table_of_contents_lists_every_notebook():
    assert {path.stem for path in (ROOT / "book").glob("*.ipynb")} == {*book.chapters(), *book.pages()}


def test_pages_of_numbers_are_committed_clean_and_run_on_what_is_published(tmp_path):
    for name in book.pages():
        page = nbformat.read(ROOT / "book" / f"{name}.ipynb", 4)
        assert not any(cell.outputs for cell in code_cells(page))
        papermill.execute_notebook(ROOT / "book" / f"{name}.ipynb", tmp_path / "page.ipynb", progress_bar=False)
        executed = nbformat.read(tmp_path / "page.ipynb", 4)
        text = "".join(str(output) for cell in code_cells(executed) for output in cell.outputs)
        # A number asked for under a name that its chapter does not record.
        assert "not in the published run" not in text


def test_notebooks_are_committed_clean(notebook):
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in code_cells(notebook):
        assert not cell.outputs and cell.execution_count is None
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


def test_parameters_come_first_typed_and_explained(notebook):
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert tagged == code_cells(notebook)[:1]
    for line in tagged[0].source.splitlines():
        assert re.fullmatch(r"\w+: [\w\[\]]+ = .+  # .+", line), f"not `name: type = default  # what it is`: {line}"


def test_papermills_help_lists_every_parameter_with_type_and_help(name, notebook):
    inferred = papermill.inspect_notebook(str(ROOT / "book" / f"{name}.ipynb"))
    declared = [node.target.id for node in ast.parse(code_cells(notebook)[0].source).body]
    assert list(inferred) == declared
    for entry in inferred.values():
        assert entry["inferred_type_name"] != "None" and entry["help"]


def test_nothing_is_imported_or_run_before_the_check(notebook):
    second = code_cells(notebook)[1].source
    assert "chapter.start(" in second
    assert "fit(" not in second


def test_every_figure_is_numbered_captioned_and_described(notebook):
    for cell in code_cells(notebook):
        if re.search(r"^(plots\.(image_rows|walk_gif)|plt\.show)\(", cell.source, re.M):
            figure = cell.metadata["mystnb"]["figure"]
            assert figure["name"].startswith("fig-") and len(figure["caption"]) > 20, cell.source
            assert len(cell.metadata["mystnb"]["image"]["alt"]) > 20
        if re.search(r"^explorer\.(plane|strips|scatter)\(", cell.source, re.M):  # these describe themselves
            figure = cell.metadata["mystnb"]["figure"]
            assert figure["name"].startswith("fig-explore-") and len(figure["caption"]) > 20, cell.source


def test_labels_are_unique_in_the_whole_book():
    labels = []
    for path in (ROOT / "book").glob("*.ipynb"):
        cells = nbformat.read(path, 4).cells
        labels += [
            cell.metadata["mystnb"]["figure"]["name"] for cell in cells if "figure" in cell.metadata.get("mystnb", {})
        ]
        for cell in cells:
            labels += re.findall(r"\$\$ \((eq-[\w-]+)\)|^\(([\w-]+)\)=$", cell.source, re.M)
    assert not {label for label in labels if labels.count(label) > 1}


def test_references_to_figures_exist(notebook):
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    figures = {cell.metadata["mystnb"]["figure"]["name"] for cell in code_cells(notebook) if "mystnb" in cell.metadata}
    assert set(re.findall(r"\{numref\}`(fig-[\w-]+)`", prose)) <= figures


@pytest.mark.parametrize("profile", ["laptop", "paper"])
def test_profiles_set_known_parameters_to_values_of_their_type(name, notebook, profile):
    values = book.parameters(name, profile)
    namespace = {}
    exec(code_cells(notebook)[0].source, namespace)
    unknown = values.keys() - namespace["__annotations__"].keys()
    assert not unknown
    problems = [chapter._mistyped(key, value, namespace["__annotations__"][key]) for key, value in values.items()]
    assert not any(problems), problems


def test_profiles_name_no_chapter_that_is_not_there():
    for path in (ROOT / "book" / "profiles").glob("*.yaml"):
        assert set(yaml.safe_load(path.read_text())) <= set(CHAPTERS)


@pytest.mark.parametrize(
    ("folder", "arguments", "message"),
    [
        (ROOT, ["-p", "seeed", "3"], "seeed: unknown. Did you mean seed?"),
        (ROOT / "book", ["-p", "device", "gpu"], "device = 'gpu': it must be one of 'auto', 'cpu', 'cuda'"),
    ],
)
def test_plain_papermill_refuses_wrong_parameters_from_anywhere(tmp_path, name, folder, arguments, message):
    path = Path("..") / "book" / f"{name}.ipynb" if folder.name == "book" else Path("book") / f"{name}.ipynb"
    command = [sys.executable, "-m", "papermill", str(path), str(tmp_path / "out.ipynb"), *arguments]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 1
    assert message in result.stderr
    executed = nbformat.read(tmp_path / "out.ipynb", 4)
    ran = [cell for cell in code_cells(executed) if cell.execution_count]
    assert len(ran) == 3, "the parameters, papermill's own and the check: nothing after them may run"


def test_a_tiny_run_from_an_unrelated_folder_records_its_numbers(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    try:
        path, out = str(ROOT / "book" / f"{name}.ipynb"), str(tmp_path / "out.ipynb")
        papermill.execute_notebook(path, out, parameters=TINY[name], progress_bar=False)
    except PapermillExecutionError as error:
        pytest.fail(str(error))
    executed = nbformat.read(out, 4)
    records = book.records(executed)
    assert records["provenance"]["parameters"]["seed"] == 0
    assert len(records) > 5
    streams = [out for cell in code_cells(executed) for out in cell.outputs if out.output_type == "stream"]
    assert not streams, f"debris on the page: {streams[0].text[:300]}"


# --- chapter 6: who may meet whom, and what is refused ----------------------------------------------


def cells_of(name, upto, skip=("show-", "fig-", "say-", "sweep"), **parameters):
    """The namespace after a chapter's own cells up to the one named ``upto``, without what is only shown."""
    namespace = {}
    for cell in code_cells(nbformat.read(ROOT / "book" / f"{name}.ipynb", 4)):
        if not cell.id.startswith(skip):
            exec(compile(cell.source, cell.id, "exec"), namespace)
        if cell.id == "parameters":
            namespace |= {**TINY[name], "device": "cpu", **parameters}
        if cell.id == upto:
            return namespace
    raise AssertionError(f"no cell {upto}")


def cells_of_unmixing(upto, **parameters):
    return cells_of("06_unmixing", upto, **parameters)


def test_wgans_step_has_what_was_asked_for_and_its_scores_are_relative_to_real_images(monkeypatch):
    monkeypatch.setattr(chapter, "display", lambda *args, **options: None)
    run = cells_of("04_wgan_gp", "train-wgan")
    step = run["step"]
    assert step.penalty_share == 0.5 and step.n_critic == 2
    for optimizer in (step.generator_optimizer, step.critic_optimizer):
        assert isinstance(optimizer, train.Muon) and optimizer.param_groups[0]["momentum"] == 0
    assert step.generator[0].count == 3 and step.generator[1][0].in_features == 6 + 3
    x = run["data"].test.images[:32] // 2
    length, real = (
        evaluate.classifier_features(run["classifier"], images).norm(dim=1).mean() for images in (x, run["images"][:32])
    )
    assert run["scores"](x)["strength"] == pytest.approx((length / real).item(), rel=1e-5)
    assert abs(length / real - 1) > 0.05, "darker images, other features"


@pytest.mark.parametrize("cells", [1, 6])
def test_cells_that_leave_a_code_nothing_else_are_refused(cells):
    with pytest.raises(chapter.ParameterError, match=f"cells = {cells}.*fewer than latent_dim = 6"):
        cells_of("04_wgan_gp", "setup", cells=cells)


def test_between_classes_means_sure_on_both_sides_of_a_code_in_its_own_cell(monkeypatch):
    monkeypatch.setattr(chapter, "display", lambda *args, **options: None)
    drawn = []

    def turn(*arguments):
        drawn.append(wgan_turn(*arguments))
        return drawn[-1]

    wgan_turn = wgan.turn
    monkeypatch.setattr(wgan, "turn", turn)
    run = cells_of("04_wgan_gp", "seams", skip=("show-", "sweep", "push", "perturb"))
    one, other = drawn
    codes = run["codes"]
    assert torch.equal(one[:, :3], codes[:, :3]) and torch.equal(other[:, :3], codes[:, :3])
    # Mirror images in the code: their mean is the code, made shorter.
    torch.testing.assert_close((one + other)[:, 3:] / 2, math.cos(math.radians(15)) * codes[:, 3:])
    named = [evaluate.class_probabilities(run["classifier"], run["draw"](run["generator"], z)).max(1) for z in drawn]
    for i, flag in enumerate(run["between_classes"]):
        sure = all(verdict.values[i] >= 0.9 for verdict in named)
        assert bool(flag) == (sure and named[0].indices[i] != named[1].indices[i])
    # In cells that are the classes, the commonest class is the only one.
    commonest = run["named"].bincount(minlength=10).argmax()
    assert run["purity"](torch.zeros(32, dtype=torch.long)) == (run["named"] == commonest).float().mean()


def test_the_critic_of_the_plane_finds_the_distance_and_its_generator_closes_it():
    """A penalty too heavy for so small distances leaves the estimate at 0 and the points where they were."""
    run = cells_of("04_wgan_gp", "toy-moments", toy_steps=240)
    exact, half = run["exact"], run["last_half"]
    assert exact[-1] < 0.11 and exact[-1] < exact[0] / 1.3
    assert 0.4 < (run["estimate"] / exact)[half].mean() < 1.6


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
        ({"kinds": ["digits", "digits"], "kinds_channels": [4] * 3}, "28×28 pixels.*divisible by 8"),
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

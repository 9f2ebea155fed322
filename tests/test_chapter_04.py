"""Cells of chapter 4 that decide what its numbers mean."""

import math

import pytest
import torch
from chapter_cells import cells_of

from lib import evaluate, optim, wgan
from lib.report import unconverted as chapter


def test_wgans_step_has_what_was_asked_for_and_its_scores_are_relative_to_real_images(monkeypatch):
    monkeypatch.setattr(chapter, "display", lambda *args, **options: None)
    run = cells_of("04_wgan_gp", "train-wgan")
    step = run["step"]
    assert step.penalty_share == 0.5 and step.n_critic == 2
    for optimizer in (step.generator_optimizer, step.critic_optimizer):
        assert isinstance(optimizer, optim.Muon) and optimizer.param_groups[0]["momentum"] == 0
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

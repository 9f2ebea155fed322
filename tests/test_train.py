import math
import random
import sys
import types

import numpy as np
import pytest
import torch
import tqdm
import tqdm.auto
from tiny import make_batches, make_step, weights
from torch import nn

from lib import train
from lib.train import Batches, GradientStep, NonFiniteLoss, fit

# --- batches ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("drop_last", [False, True])
def test_an_epoch_covers_every_example_once_and_epochs_differ(drop_last):
    batches = Batches(torch.arange(23), batch_size=5, drop_last=drop_last)
    epochs = [[next(batches)[0] for _ in range(len(batches))] for _ in range(3)]
    orders = [torch.cat(epoch).tolist() for epoch in epochs]
    for order in orders:
        assert len(order) == len(set(order)) == (20 if drop_last else 23)
    assert orders[0] != orders[1] != orders[2]
    assert [len(batch) for batch in epochs[0]] == [5, 5, 5, 5] + ([] if drop_last else [3])


def test_tensors_stay_aligned_and_bytes_become_pixels():
    images = torch.arange(10, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2)
    x, index = next(Batches(images, torch.arange(10), batch_size=10))
    assert x.dtype == torch.float32
    assert torch.allclose(x[:, 0, 0, 0] * 255, index.float())


def test_the_order_depends_on_the_seed_alone():
    torch.manual_seed(1)
    one = [next(Batches(torch.arange(50), batch_size=50, seed=3))[0] for _ in range(2)]
    torch.manual_seed(2)
    other = next(Batches(torch.arange(50), batch_size=50, seed=4))[0]
    assert torch.equal(*one)
    assert not torch.equal(one[0], other)


@pytest.mark.parametrize(("size", "message"), [(0, "batch_size=0"), (24, "choose 1 to 23")])
def test_impossible_batch_sizes_are_refused(size, message):
    with pytest.raises(ValueError, match=message):
        Batches(torch.arange(23), batch_size=size)


def test_tensors_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"\[3, 4\]"):
        Batches(torch.arange(3), torch.arange(4), batch_size=1)


# --- steps -----------------------------------------------------------------------------------------


def test_a_gradient_step_is_the_optimisers_own():
    model = nn.Linear(3, 1, bias=False)
    x, before = torch.randn(5, 3), model.weight.detach().clone()
    step = GradientStep(model, lambda x: {"loss": model(x).sum()}, torch.optim.SGD(model.parameters(), lr=0.1))
    for _ in range(2):  # gradients of the first call must not be in the second
        step((x,))
    assert torch.allclose(model.weight, before - 0.2 * x.sum(0), atol=1e-6)


def test_clip_bounds_the_gradient():
    model = nn.Linear(3, 1, bias=False)
    before = model.weight.detach().clone()
    step = GradientStep(model, lambda x: {"loss": 100 * model(x).sum()}, torch.optim.SGD(model.parameters(), 1), clip=2)
    step((torch.ones(1, 3),))
    assert (model.weight - before).norm().item() == pytest.approx(2, rel=1e-4)


def test_a_step_trains_in_training_mode_even_after_a_careless_evaluation():
    step = make_step()
    step.model.eval()
    step(next(make_batches()))
    assert step.model.training
    assert step.model[1].num_batches_tracked == 1


def test_a_step_runs_its_loss_in_the_precision_asked_for():
    seen = []
    for amp in (None, torch.bfloat16):
        model = nn.Linear(3, 1)

        def loss_fn(x, model=model):
            y = model(x)
            seen.append(y.dtype)
            return {"loss": y.float().mean()}

        GradientStep(model, loss_fn, torch.optim.SGD(model.parameters(), 0.1), amp=amp)((torch.ones(2, 3),))
    assert seen == [torch.float32, torch.bfloat16]


def test_evaluating_restores_each_modules_own_mode():
    model = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2))
    model.train()
    model[1].eval()  # frozen on purpose
    with train.evaluating(model):
        assert not model[0].training
        assert not torch.is_grad_enabled()
    assert model.training and model[0].training and not model[1].training
    assert torch.is_grad_enabled()


def test_a_frozen_module_passes_gradients_on_and_keeps_its_mode_and_flags():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[0].bias.requires_grad_(False)  # on purpose
    x = torch.randn(3, 2, requires_grad=True)
    with pytest.raises(RuntimeError, match="inside"), train.frozen(model):
        assert not any(weight.requires_grad for weight in model.parameters())
        assert model[1].training
        model(x).square().sum().backward()
        raise RuntimeError("inside")
    assert x.grad.norm() > 0
    assert all(weight.grad is None for weight in model.parameters())
    assert [weight.requires_grad for weight in model.parameters()] == [True, False, True, True]


# --- fit -------------------------------------------------------------------------------------------


class Counting:
    """A step whose losses are known numbers."""

    def __init__(self, values):
        self.values, self.parts = list(values), {}

    def __call__(self, batch):
        value = self.values.pop(0)
        return {"loss": torch.tensor(value), "twice": torch.tensor(2 * value)}


def test_fit_records_every_loss_and_reads_back_once_a_window(monkeypatch):
    reads = []
    real = train._read_back
    monkeypatch.setattr(
        train, "_read_back", lambda recent, history: (reads.append(len(recent)), real(recent, history))[1]
    )
    history = fit(Counting(map(float, range(25))), make_batches(), 25, log_every=10)
    assert history["loss"].tolist() == list(range(25))
    assert history["twice"].tolist() == list(range(0, 50, 2))
    assert reads == [10, 10, 5]


def test_smooth_takes_means_of_windows():
    history = fit(Counting([1.0, 3.0, 5.0, 7.0, 100.0]), make_batches(), 5)
    steps, values = history.smooth("loss", 2)
    assert steps.tolist() == [2, 4]
    assert values.tolist() == [2, 6]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(bad):
    values = [1.0] * 6 + [bad] + [2.0] * 20
    with pytest.raises(NonFiniteLoss, match=r"Step 7: loss = (nan|inf), twice = (nan|inf).*learning rate"):
        fit(Counting(values), make_batches(), 27, log_every=10)


def test_changing_loss_names_and_too_few_steps_are_refused():
    class Fickle(Counting):
        def __call__(self, batch):
            losses = super().__call__(batch)
            return losses if len(self.values) > 2 else {"loss": losses["loss"]}

    with pytest.raises((ValueError, KeyError)):
        fit(Fickle([1.0] * 8), make_batches(), 8, log_every=2)
    with pytest.raises(ValueError, match="steps=0"):
        fit(Counting([]), make_batches(), 0)


def test_probes_are_recorded_and_do_not_change_the_training():
    def run(probe):
        train.seed(0)
        step = make_step()
        history = fit(step, make_batches(), 20, probe=probe, probe_every=8)
        return weights(step), history

    alone, _ = run(None)
    probed, history = run(lambda: {"noise": torch.randn(100).mean().item()})
    assert torch.equal(alone, probed)
    assert [entry["step"] for entry in history.probes] == [8, 16, 20]


def test_progress_is_silent_unless_watched_and_can_go_to_a_file(tmp_path, monkeypatch, capfd):
    fit(Counting([1.0] * 4), make_batches(), 4, label="quiet")
    assert capfd.readouterr() == ("", "")
    monkeypatch.setenv("LWL_PROGRESS", str(tmp_path / "progress"))
    fit(Counting([1.0] * 4), make_batches(), 4, label="told")
    assert "told" in (tmp_path / "progress").read_text()
    assert capfd.readouterr() == ("", "")


# --- repeatable ----------------------------------------------------------------------


def test_a_seed_repeats_a_run_bit_for_bit():
    def run(value):
        train.seed(value)
        step = make_step()
        fit(step, make_batches(), 30)
        return weights(step), random.random(), np.random.rand()

    one, again, other = run(1), run(1), run(2)
    assert torch.equal(one[0], again[0]) and one[1:] == again[1:]
    assert not torch.equal(one[0], other[0])


# --- details -------------------------------------------------------------------------


def test_evaluation_ends_with_an_error_too():
    model = nn.Dropout()
    with pytest.raises(RuntimeError, match="inside"), train.evaluating(model):
        raise RuntimeError("inside")
    assert model.training and torch.is_grad_enabled()


def test_several_modules_are_evaluated_at_once_and_what_they_give_has_no_graph():
    one, two = nn.Linear(2, 2), nn.Dropout()
    two.eval()
    with train.evaluating(one, two):
        assert not one.training and not two.training
        assert not one(torch.ones(1, 2)).requires_grad
    assert one.training and not two.training


def test_losses_of_a_step_keep_no_graph_and_its_schedule_moves_on():
    step = make_step()
    before = step.scheduler.last_epoch
    losses = step(next(make_batches()))
    assert list(losses) == ["loss", "norm"] and not any(value.requires_grad for value in losses.values())
    assert step.scheduler.last_epoch == before + 1
    assert list(step.parts) == ["model", "optimizer", "scheduler"]
    plain = GradientStep(step.model, step.loss_fn, step.optimizer)
    assert list(plain.parts) == ["model", "optimizer"] and plain.clip is None


def test_a_gradient_within_its_bound_is_left_alone():
    model = nn.Linear(2, 1, bias=False)
    before = model.weight.detach().clone()
    step = GradientStep(model, lambda x: {"loss": model(x).sum()}, torch.optim.SGD(model.parameters(), 1), clip=5.0)
    step((torch.tensor([[3.0, 0.0]]),))
    torch.testing.assert_close(before - model.weight, torch.tensor([[3.0, 0.0]]))


def test_a_probe_is_taken_once_at_the_end_unless_asked_more_often():
    taken = []
    history = fit(Counting([1.0] * 7), make_batches(), 7, probe=lambda: taken.append(1) or {"n": len(taken)})
    assert history.probes == [{"step": 7, "n": 1}]
    history = fit(Counting([1.0] * 6), make_batches(), 6, probe=lambda: {}, probe_every=3)
    assert history.probes == [{"step": 3}, {"step": 6}]


def test_a_probe_sees_the_losses_up_to_its_step(monkeypatch):
    reads = []
    real = train._read_back
    monkeypatch.setattr(train, "_read_back", lambda recent, past: reads.append(len(recent)) or real(recent, past))
    fit(Counting([1.0] * 9), make_batches(), 9, log_every=4, probe=dict, probe_every=3)
    assert reads == [3, 1, 2, 2, 1]
    reads.clear()
    fit(Counting([1.0] * 110), make_batches(), 110)
    assert reads == [50, 50, 10], "by default every fiftieth step"


def test_smoothed_curves_leave_out_what_fills_no_window():
    history = fit(Counting([1.0, 2.0, 3.0]), make_batches(), 3)
    assert [part.tolist() for part in history.smooth("loss", 99)] == [[3], [2]]
    assert [part.tolist() for part in history.smooth("loss", 0)] == [[1, 2, 3], [1, 2, 3]]
    assert len(history) == 3 and len(train.History()) == 0


def test_time_is_counted_and_none_of_it_taken_over(monkeypatch):
    clock = iter(range(100, 1000, 10))
    monkeypatch.setattr(train.time, "perf_counter", lambda: next(clock))
    history = fit(Counting([1.0] * 3), make_batches(), 3)
    assert history.seconds == 30 and history.resumed_seconds == 0


def test_losses_of_other_names_are_refused_with_both():
    history = train.History({"loss": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"\['kl'\], earlier ones \['loss'\]"):
        history.append({"kl": torch.zeros(1)})


def test_losses_are_recorded_in_single_precision():
    class Half(Counting):
        def __call__(self, batch):
            return {name: value.bfloat16() for name, value in super().__call__(batch).items()}

    assert fit(Half([1.0]), make_batches(), 1)["loss"].dtype == np.float32


class Bar:
    """What tqdm would be."""

    def __init__(self, **options):
        self.options, self.moved = options, 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.closed = True

    def update(self, count):
        self.moved += count

    def set_postfix(self, values, refresh):
        self.shown = values


@pytest.mark.parametrize(
    ("kernel", "watched", "terminal", "silent"),
    [
        (False, False, True, False),
        (False, False, False, True),
        (True, True, False, False),
        (True, False, True, True),
        (False, True, False, True),
    ],
)
def test_a_bar_is_shown_where_someone_watches(monkeypatch, kernel, watched, terminal, silent):
    for name in ("JPY_SESSION_NAME", "VSCODE_PID", "COLAB_RELEASE_TAG"):
        monkeypatch.delenv(name, raising=False)
    if watched:
        monkeypatch.setenv("VSCODE_PID", "1")
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    if kernel:
        monkeypatch.setitem(sys.modules, "ipykernel", object())
    monkeypatch.setattr(sys, "stderr", types.SimpleNamespace(isatty=lambda: terminal, write=len, flush=int))
    bars = []

    def opened(**options):
        bars.append(Bar(**options))
        return bars[-1]

    for module in (tqdm, tqdm.auto):
        monkeypatch.setattr(module, "tqdm", opened)
    fit(Counting([1.0, 2.5]), make_batches(), 2, label="a name")
    (bar,) = bars
    assert bool(bar.options["disable"]) == silent
    assert (bar.options["total"], bar.options["initial"], bar.options["desc"]) == (2, 0, "a name")
    assert bar.moved == 2 and bar.shown == {"loss": "2.5", "twice": "5"} and bar.closed


def test_batches_say_how_many_they_are_and_go_on_in_the_middle():
    assert len(Batches(torch.arange(10), batch_size=5)) == 2 == len(Batches(torch.arange(9), batch_size=5))
    assert len(Batches(torch.arange(9), batch_size=5, drop_last=True)) == 1
    one, other = (Batches(torch.arange(9), batch_size=4, seed=seed) for seed in (1, 2))
    for _ in range(4):
        next(one)
    other.load_state_dict(one.state_dict())
    for _ in range(5):
        assert torch.equal(next(one)[0], next(other)[0])


def test_batches_draw_from_nobody_elses_generator():
    before = torch.get_rng_state()
    batches = Batches(torch.arange(9), batch_size=4)
    [next(batches) for _ in range(7)]
    assert torch.equal(torch.get_rng_state(), before)


def test_all_of_a_set_and_a_single_example_are_batches():
    assert len(next(Batches(torch.arange(3), batch_size=3))[0]) == 3
    assert len(next(Batches(torch.arange(3), batch_size=1))[0]) == 1

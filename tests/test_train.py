import copy
import hashlib
import math
import multiprocessing
import os
import random
import signal
import time

import numpy as np
import pytest
import torch
from torch import nn

from lib import train
from lib.train import Batches, CheckpointError, GradientStep, NonFiniteLoss, fit

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


def make_step(width=8, rate=1e-2, steps=60, scheduled=True):
    """A small model with everything a checkpoint must not forget: dropout, batch norm, momenta, a schedule."""
    model = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Dropout(0.5), nn.Linear(width, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps + 1) if scheduled else None
    return GradientStep(model, lambda x: {"loss": (model(x) ** 2).mean(), "norm": x.norm()}, optimizer, scheduler)


def make_batches(seed=0, batch_size=8):
    return Batches(torch.randn(37, 4, generator=torch.Generator().manual_seed(seed)), batch_size=batch_size)


def weights(step):
    return torch.cat([tensor.flatten() for tensor in step.model.state_dict().values()])


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


def test_evaluating_restores_each_modules_own_mode():
    model = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2))
    model.train()
    model[1].eval()  # frozen on purpose
    with train.evaluating(model):
        assert not model[0].training
        assert not torch.is_grad_enabled()
    assert model.training and model[0].training and not model[1].training
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("make", [train.adam_one_cycle, train.muon_one_cycle])
def test_one_cycle_rises_to_its_rate_and_ends_near_zero_after_the_last_step(make):
    model = nn.Linear(2, 1)
    step = make(model, lambda x: {"loss": model(x).sum()}, 40, 0.1)
    rates, momenta = [], []
    for _ in range(40):
        group = step.optimizer.param_groups[0]
        rates.append(group["lr"])
        momenta.append(group["betas"][0] if "betas" in group else group["momentum"])
        step((torch.ones(1, 2),))
    assert momenta[0] == pytest.approx(0.95) and min(momenta) == pytest.approx(0.85, abs=0.005)
    assert momenta.index(min(momenta)) == rates.index(max(rates))
    assert max(rates) == pytest.approx(0.1, rel=0.02)
    assert step.optimizer.param_groups[0]["lr"] < 1e-4 * 0.1


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


def test_a_run_that_broke_leaves_no_checkpoint_of_broken_weights(tmp_path):
    step = make_step()
    real, calls = step.loss_fn, iter(range(100))
    step.loss_fn = lambda x: {"loss": real(x)["loss"] * (math.nan if next(calls) == 12 else 1)}
    with pytest.raises(NonFiniteLoss, match="Step 13"):
        fit(step, make_batches(), 60, checkpoint=tmp_path / "run", checkpoint_every=5)
    (path,) = tmp_path.iterdir()
    assert len(torch.load(path, weights_only=True)["history"]["losses"]["loss"]) == 10


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


# --- repeatable and resumable ----------------------------------------------------------------------


def test_a_seed_repeats_a_run_bit_for_bit():
    def run(value):
        train.seed(value)
        step = make_step()
        fit(step, make_batches(), 30)
        return weights(step), random.random(), np.random.rand()

    one, again, other = run(1), run(1), run(2)
    assert torch.equal(one[0], again[0]) and one[1:] == again[1:]
    assert not torch.equal(one[0], other[0])


def interrupted(stem, after, **options):
    """Train, and stop by an exception at the step ``after``, as a kill would; return the step and history, or None."""
    train.seed(0)
    step = make_step(**options)
    real, calls = step.loss_fn, iter([*range(1, after)] if after else range(1000))

    def loss_fn(x):
        if (
            next(calls, None) is None
        ):  # (not `after` itself: a loss that refers to another number is another experiment)
            raise KeyboardInterrupt
        return real(x)

    step.loss_fn = loss_fn
    try:
        return step, fit(step, make_batches(), 60, checkpoint=stem, checkpoint_every=7)
    except KeyboardInterrupt:
        return None


def test_a_stopped_run_goes_on_to_the_same_weights_history_and_random_state(tmp_path):
    whole, history = interrupted(tmp_path / "whole", after=None)
    expected_noise = torch.randn(3)
    for after in (3, 20, 30):
        assert interrupted(tmp_path / "parts", after) is None
    spared = train.resumed_seconds
    resumed, resumed_history = interrupted(tmp_path / "parts", after=None)
    assert torch.equal(weights(whole), weights(resumed))
    assert np.array_equal(history["loss"], resumed_history["loss"])
    assert 0 < train.resumed_seconds - spared < resumed_history.seconds
    assert torch.equal(expected_noise, torch.randn(3)), "what is drawn after a resumed run differs"
    again, _ = interrupted(tmp_path / "parts", after=1)  # a finished run trains no more
    assert torch.equal(weights(whole), weights(again))


def test_objects_that_a_step_holds_do_not_make_it_another_experiment(tmp_path):
    class Scheduled(GradientStep):
        """A step with a list of objects without a representation of their own, as schedulers are."""

        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.schedulers = [object()]

    kept = []
    for _ in range(2):
        train.seed(0)
        model = nn.Linear(3, 1)
        step = Scheduled(model, lambda x: {"loss": model(x).square().mean()}, torch.optim.SGD(model.parameters(), 0.1))  # noqa: B023
        fit(step, Batches(torch.rand(8, 3), batch_size=4), 2, checkpoint=tmp_path / "run")
        kept.append(step)  # so that the second one's objects lie elsewhere
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("change", ["weights", "rate", "data", "batch", "steps", "loss", "closure", "clip", "layer"])
def test_another_experiment_never_resumes_this_ones_checkpoint(tmp_path, change):
    def run(change):
        train.seed(1 if change == "weights" else 0)
        step = make_step(rate=2e-2 if change == "rate" else 1e-2)
        if change == "loss":
            model = step.model
            step.loss_fn = lambda x: {"loss": model(x).abs().mean(), "norm": x.norm()}
        if change == "clip":
            step.clip = 1.0
        if change == "layer":
            step.model[2] = nn.Identity()
        weight, unweighted = (2.0 if change == "closure" else 1.0), step.loss_fn
        if change not in ("loss", "layer"):
            step.loss_fn = lambda x: {name: weight * loss for name, loss in unweighted(x).items()}
        batches = make_batches(seed=1 if change == "data" else 0, batch_size=10 if change == "batch" else 8)
        fit(step, batches, 20 if change == "steps" else 10, checkpoint=tmp_path / "run")

    run(None)
    run(None)
    assert len(list(tmp_path.iterdir())) == 1
    run(change)
    assert len(list(tmp_path.iterdir())) == 2


def test_an_unreadable_checkpoint_is_named(tmp_path):
    interrupted(tmp_path / "run", after=20)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(CheckpointError, match=f"{path.name}.*delete it"):
        interrupted(tmp_path / "run", after=None)


def test_a_step_that_names_no_parts_cannot_be_checkpointed(tmp_path):
    with pytest.raises(CheckpointError, match="Counting has no `parts`"):
        fit(Counting([1.0]), make_batches(), 1, checkpoint=tmp_path / "run")


def train_in_a_process(stem, done):
    """What the killed process runs: slow enough to be hit anywhere, saving while it is hit."""
    torch.set_num_threads(1)
    train.seed(0)
    step = make_step(width=64, steps=150)
    fit(step, make_batches(), 150, checkpoint=stem, checkpoint_every=3)
    done.write_text(hashlib.sha256(weights(step).numpy().tobytes()).hexdigest())


def test_twenty_kills_at_random_moments_end_in_the_same_weights(tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "lib.train"])

    def start(stem, done):
        process = context.Process(target=train_in_a_process, args=(tmp_path / stem, tmp_path / done))
        process.start()
        return process

    start("warm-up", "warm-up.txt").join()  # the server imports torch once, for all that follow
    begin = time.perf_counter()
    start("whole", "whole.txt").join()
    duration = time.perf_counter() - begin
    expected = (tmp_path / "whole.txt").read_text()

    rng = random.Random(0)
    kills, finished = 0, 0
    while kills < 20:
        process = start(f"killed-{finished}", f"killed-{finished}.txt")
        time.sleep(rng.uniform(0, duration))
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.join()
        if (tmp_path / f"killed-{finished}.txt").exists():
            finished += 1  # it got through between two kills: begin another run
    start(f"killed-{finished}", f"killed-{finished}.txt").join()
    results = {(tmp_path / f"killed-{number}.txt").read_text() for number in range(finished + 1)}
    assert results == {expected}


def test_comments_and_docstrings_do_not_make_other_code():
    one = 'def f(x):\n    """Doc."""\n    return x + 1  # why\n'
    assert train.strip_docs(one) == train.strip_docs("def f(x):\n\n    return (x + 1)\n")
    assert train.strip_docs(one) != train.strip_docs("def f(x):\n    return x + 2\n")


# --- Muon ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 6), (4, 30), (30, 4), (1, 9)])
def test_orthogonalised_matrices_keep_their_vectors_and_lose_their_values(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = train.orthogonal(matrix)
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    inside = u.T @ found @ vh.T
    values = inside.diagonal()
    assert values.min() > 0.6 and values.max() < 1.25
    torch.testing.assert_close(inside, torch.diag(values), atol=1e-9, rtol=0)


@pytest.mark.parametrize("shape", [(64, 576), (576, 64), (48, 27), (32, 32), (1, 40), (40, 1)])
def test_orthogonalisation_is_the_published_iteration(shape):
    """What is done on the small square matrix equals the iteration on the whole one, in float32, too."""
    generator = torch.Generator().manual_seed(0)
    # Singular values over four decades, as gradients have them.
    matrix = torch.randn(shape, generator=generator) * torch.logspace(0, -4, shape[1])
    x = matrix.double() / matrix.double().norm()
    for _ in range(5):
        x = 3.4445 * x - 4.7750 * x @ x.T @ x + 2.0315 * x @ x.T @ x @ x.T @ x
    torch.testing.assert_close(train.orthogonal(matrix).double(), x, atol=1e-3, rtol=0)


def test_muon_steps_down_and_as_far_as_the_rate_says():
    weight = nn.Parameter(torch.randn(5, 8, generator=torch.Generator().manual_seed(0)))
    gradient = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
    before = weight.detach().clone()
    weight.grad = gradient
    train.Muon([weight], lr=0.1).step()
    moved = weight.detach() - before
    assert (moved * gradient).sum() < 0
    values = torch.linalg.svdvals(moved)
    assert values.min() > 0.06 and values.max() < 0.125
    weight.grad = 1000 * gradient
    again = weight.detach().clone()
    train.Muon([weight], lr=0.1).step()
    torch.testing.assert_close(weight.detach() - again, moved, msg="the gradient's size does not count")


@pytest.mark.parametrize("shape", [(8, 2), (2, 8)])
@pytest.mark.parametrize("beta", [0.0, 0.95])
def test_muons_second_step_looks_ahead_of_its_momentum(shape, beta):
    """Nesterov: the direction is the gradient moved towards the mean of gradients, by as much as the mean remembers."""
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(2, *shape, generator=generator) * torch.tensor([1.0, 0.2]).view(2, 1, 1)
    weight = nn.Parameter(torch.zeros(shape))
    optimizer = train.Muon([weight], lr=0.1, momentum=beta)
    for gradient in gradients:
        before, weight.grad = weight.detach().clone(), gradient
        optimizer.step()
    mean = beta * (1 - beta) * gradients[0] + (1 - beta) * gradients[1]
    ahead = (1 - beta) * gradients[1] + beta * mean
    longest = 2.0 if shape == (8, 2) else 1.0  # √(8/2): a step of norm 1 in the larger space
    torch.testing.assert_close(weight.detach() - before, -0.1 * longest * train.orthogonal(ahead))


def test_muon_leaves_the_precision_of_products_as_it_was(monkeypatch):
    seen = []
    monkeypatch.setattr(train, "orthogonal", lambda x: seen.append(torch.get_float32_matmul_precision()) or x)
    weight = nn.Parameter(torch.ones(2, 2))
    weight.grad = torch.ones(2, 2)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        train.Muon([weight], lr=0.1).step()
        assert (*seen, torch.get_float32_matmul_precision()) == ("highest", "high")
    finally:
        torch.set_float32_matmul_precision(before)


def test_muon_trains_convolutions_and_biases_and_leaves_what_has_no_gradient():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 1, 3))
    idle = nn.Parameter(torch.ones(2, 2))
    x, y = torch.randn(8, 1, 8, 8), torch.randn(8, 1, 4, 4)
    optimizer = train.Muon([*network.parameters(), idle], lr=0.02)
    start = [parameter.detach().clone() for parameter in network.parameters()]
    losses = []
    for _ in range(40):
        loss = ((network(x) - y) ** 2).mean()
        network.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert all((now != then).any() for now, then in zip(network.parameters(), start, strict=True))
    assert (idle == 1).all()


def test_muons_decay_shrinks_matrices_and_leaves_vectors():
    matrix, vector = nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(4))
    before = matrix.detach().clone(), vector.detach().clone()
    matrix.grad, vector.grad = torch.zeros(4, 3), torch.zeros(4)
    train.Muon([matrix, vector], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(matrix.detach(), 0.95 * before[0])
    assert torch.equal(vector.detach(), before[1])


def test_a_muon_step_goes_on_from_its_parts():
    x, y = torch.randn(2, 40, 6, generator=torch.Generator().manual_seed(0)).unbind()

    def made():
        torch.manual_seed(0)
        model = nn.Linear(6, 6)
        return model, train.muon_one_cycle(model, lambda x, y: {"loss": ((model(x) - y) ** 2).mean()}, 10, 0.05)

    (model, step), (other, later) = made(), made()
    for _ in range(5):
        step((x, y))
    states = {name: copy.deepcopy(part.state_dict()) for name, part in step.parts.items()}
    for name, part in later.parts.items():
        part.load_state_dict(states[name])
    for _ in range(5):
        step((x, y))
        later((x, y))
    assert torch.equal(model.weight, other.weight)

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
from tiny import make_batches, make_step, weights
from torch import nn

from lib import train
from lib.checkpoint import Checkpoint, CheckpointError, fingerprint
from lib.train import Batches, GradientStep, NonFiniteLoss, fit


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
    checkpoint = Checkpoint(tmp_path / "parts")
    resumed, resumed_history = interrupted(checkpoint, after=None)
    assert torch.equal(weights(whole), weights(resumed))
    assert np.array_equal(history["loss"], resumed_history["loss"])
    assert history.resumed_seconds == 0 < resumed_history.resumed_seconds < resumed_history.seconds
    assert checkpoint.resumed_seconds == resumed_history.resumed_seconds
    assert torch.equal(expected_noise, torch.randn(3)), "what is drawn after a resumed run differs"
    again, _ = interrupted(tmp_path / "parts", after=1)  # a finished run trains no more
    assert torch.equal(weights(whole), weights(again))


class Drawing:
    """A step that draws from Python's, NumPy's and torch's generators."""

    def __init__(self, die_at=None):
        self.parts, self.done = {"nothing": nn.Identity()}, iter(range(die_at or 10**6))

    def __call__(self, batch):
        if next(self.done, None) is None:
            raise KeyboardInterrupt
        draws = random.random(), np.random.rand(), torch.rand(()).item()
        return {name: torch.tensor(draw) for name, draw in zip("abc", draws, strict=True)}


def test_all_three_generators_go_on_where_the_killed_run_saved(tmp_path):
    def run(stem, die_at=None):
        train.seed(0)
        return fit(Drawing(die_at), make_batches(), 20, checkpoint=tmp_path / stem, checkpoint_every=5)

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("killed", die_at=13)
    resumed = run("killed")
    assert resumed.resumed_seconds > 0, "it did go on"
    for name in "abc":
        assert np.array_equal(whole[name], resumed[name])


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


@pytest.mark.parametrize(
    "change", ["weights", "rate", "data", "batch", "steps", "loss", "closure", "clip", "layer", "drop_last", "random"]
)
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
        batches = make_batches(
            seed=1 if change == "data" else 0,
            batch_size=10 if change == "batch" else 8,
            drop_last=change == "drop_last",
        )
        if change == "random":
            torch.rand(1)  # dropout goes on from another state
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
    class Bare:
        def __call__(self, batch):
            return {"loss": batch[0].sum()}

    with pytest.raises(CheckpointError, match="Bare has no `parts`"):
        fit(Bare(), make_batches(), 1, checkpoint=tmp_path / "run")


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


def test_a_run_that_broke_leaves_no_checkpoint_of_broken_weights(tmp_path):
    step = make_step()
    real, calls = step.loss_fn, iter(range(100))
    step.loss_fn = lambda x: {"loss": real(x)["loss"] * (math.nan if next(calls) == 12 else 1)}
    with pytest.raises(NonFiniteLoss, match="Step 13"):
        fit(step, make_batches(), 60, checkpoint=tmp_path / "run", checkpoint_every=5)
    (path,) = tmp_path.iterdir()
    assert len(torch.load(path, weights_only=True)["history"]["losses"]["loss"]) == 10


def test_a_tensor_of_one_number_has_a_fingerprint_whatever_its_stride():
    odd = torch.zeros(2, 3)[:1, :1].T
    assert odd.is_contiguous() and fingerprint(odd) == fingerprint(torch.zeros(1, 1))
    weight = torch.nn.Conv2d(1, 4, 3).to(memory_format=torch.channels_last).weight
    assert fingerprint([weight]) == fingerprint([weight.contiguous()])

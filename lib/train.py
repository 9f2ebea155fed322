"""The one training loop: batches, steps, ``fit`` and seeds.

``fit`` knows nothing of models, losses or data sets. It draws batches, calls a step and
records what the step returns. A step owns its optimisers, so that one with two of them
(a GAN) needs nothing special.
"""

import math
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np
import torch
from torch import Tensor, nn

from lib.checkpoint import Checkpoint, Stateful
from lib.data import to_unit

Losses = dict[str, Tensor]
"""Losses by name: 0-d tensors, still on the device."""


class Step(Protocol):
    """One update from one batch. ``parts`` names everything the update changes."""

    parts: Mapping[str, Stateful]

    def __call__(self, batch: tuple[Tensor, ...]) -> Losses: ...


class NonFiniteLoss(RuntimeError):
    """A loss became nan or infinite; the message names the step and its losses."""


# --- batches --------------------------------------------------------------------------


class Batches:
    """Endless shuffled batches of tensors that share their first axis, by indexing.

    Every epoch is a fresh permutation: each example comes exactly once. The last batch
    of an epoch is smaller where ``batch_size`` does not divide the set, or left out
    with ``drop_last``. uint8 tensors are taken for pixels and come as float32 in
    [0, 1]; all others come as they are.

    The tensors may live on any device and batches come on that device. The order is
    drawn on the CPU from a generator of its own, so it is the same everywhere and
    nothing else that draws disturbs it.

    Raises ValueError for tensors of different lengths and impossible batch sizes.
    """

    def __init__(
        self, *tensors: Tensor, batch_size: int, seed: int = 0, drop_last: bool = False
    ) -> None:
        sizes = {len(tensor) for tensor in tensors}
        if len(sizes) != 1:
            raise ValueError(
                f"Batches needs tensors of one length, got lengths {sorted(sizes)}."
            )
        self.size = sizes.pop()
        if not 1 <= batch_size <= self.size:
            raise ValueError(
                f"batch_size={batch_size}: choose 1 to {self.size}, the number of "
                "examples."
            )
        self.tensors = tensors
        self.batch_size = batch_size
        self.drop_last = drop_last
        self._generator = torch.Generator().manual_seed(seed)
        self._start_epoch()

    def __len__(self) -> int:
        """Batches in one epoch."""
        return (
            self.size // self.batch_size
            if self.drop_last
            else math.ceil(self.size / self.batch_size)
        )

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        return self

    def __next__(self) -> tuple[Tensor, ...]:
        if self._taken == len(self):
            self._start_epoch()
        start = self._taken * self.batch_size
        index = self._order[start : start + self.batch_size]
        self._taken += 1
        chosen = (tensor[index] for tensor in self.tensors)
        return tuple(
            to_unit(part) if part.dtype == torch.uint8 else part for part in chosen
        )

    def _start_epoch(self) -> None:
        self._epoch_state = self._generator.get_state()
        self._order = torch.randperm(self.size, generator=self._generator).to(
            self.tensors[0].device
        )
        self._taken = 0

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self._epoch_state, "taken": self._taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._generator.set_state(state["generator"])
        self._start_epoch()
        self._taken = state["taken"]


# --- steps ----------------------------------------------------------------------------


class GradientStep:
    """The step of a model with one optimiser: forward, backward, update.

    ``loss_fn(*batch)`` returns losses by name; the one called ``loss`` is minimised,
    the others are recorded. Each step puts ``model`` in training mode, so that a
    careless evaluation in between cannot leave batch norm or dropout switched off.

    ``clip`` bounds the gradient's norm; ``amp`` runs ``loss_fn`` under autocast in that
    dtype.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: Callable[..., Losses],
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
        clip: float | None = None,
        amp: torch.dtype | None = None,
    ) -> None:
        self.model, self.loss_fn, self.optimizer, self.scheduler = (
            model,
            loss_fn,
            optimizer,
            scheduler,
        )
        self.clip, self.amp = clip, amp
        self.parts: dict[str, Stateful] = {"model": model, "optimizer": optimizer}
        if scheduler is not None:
            self.parts["scheduler"] = scheduler

    def __call__(self, batch: tuple[Tensor, ...]) -> Losses:
        self.model.train()
        with torch.autocast(
            batch[0].device.type, self.amp, enabled=self.amp is not None
        ):
            losses = self.loss_fn(*batch)
        self.optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()
        return {name: value.detach() for name, value in losses.items()}


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside; afterwards each module's own mode."""
    modes = [
        (module, module.training) for parent in modules for module in parent.modules()
    ]
    try:
        for parent in modules:
            parent.eval()
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """No gradients for the module's weights inside; afterwards as it was.

    Gradients still pass through the module to its input. Its mode stays what it is.
    """
    wanted = [(weight, weight.requires_grad) for weight in module.parameters()]
    try:
        module.requires_grad_(False)
        yield
    finally:
        for weight, flag in wanted:
            weight.requires_grad_(flag)


# --- the loop -------------------------------------------------------------------------


@dataclass
class History:
    """What a run recorded: each loss at each step, probes, and the seconds it took."""

    losses: dict[str, Tensor] = field(default_factory=dict)
    """Name -> float32 (steps,), on the CPU."""
    probes: list[dict[str, Any]] = field(default_factory=list)
    """What ``probe`` returned, with the ``step`` it was taken after."""
    seconds: float = 0.0
    """Training time, resumed runs included, time lost to a kill not."""
    resumed_seconds: float = 0.0
    """The part of ``seconds`` that was taken over from a checkpoint."""

    def __len__(self) -> int:
        return len(next(iter(self.losses.values()), ()))

    def __getitem__(self, name: str) -> np.ndarray:
        return self.losses[name].numpy()

    def smooth(self, name: str, window: int) -> tuple[np.ndarray, np.ndarray]:
        """Steps and means of consecutive windows, for a readable curve."""
        window = max(1, min(window, len(self)))
        values = self[name][: len(self) // window * window].reshape(-1, window).mean(1)
        return np.arange(1, len(values) + 1) * window, values

    def append(self, losses: dict[str, Tensor]) -> None:
        if self.losses and self.losses.keys() != losses.keys():
            raise ValueError(
                f"A step returned losses {sorted(losses)}, earlier ones "
                f"{sorted(self.losses)}."
            )
        self.losses = {
            name: torch.cat([self.losses[name], values]) if self.losses else values
            for name, values in losses.items()
        }


def fit(
    step: Step,
    batches: Batches,
    steps: int,
    *,
    log_every: int = 50,
    probe: Callable[[], dict[str, Any]] | None = None,
    probe_every: int | None = None,
    checkpoint: Checkpoint | Path | None = None,
    checkpoint_every: int = 500,
    label: str = "training",
) -> History:
    """Call ``step`` on ``steps`` batches and record the losses it returns.

    Losses stay on the device and are read back once per ``log_every`` steps, so that a
    GPU is never waited for in between. ``probe()`` is called after every
    ``probe_every`` steps and after the last; what it returns (numbers and tensors by
    name) is kept in the history, and random numbers that it draws do not change the
    training.

    With ``checkpoint``, a :class:`~lib.checkpoint.Checkpoint` or the stem of its file,
    everything that the next step depends on is saved every ``checkpoint_every`` steps,
    and a run that was killed goes on from there to the same result. Another experiment
    never resumes this one's file.

    Raises :class:`NonFiniteLoss` naming the step, and
    :class:`~lib.checkpoint.CheckpointError` for an unreadable file.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: train for at least one step.")
    history = History()
    if isinstance(checkpoint, Path):
        checkpoint = Checkpoint(checkpoint)
    if checkpoint is not None:
        about = [batches.tensors, batches.batch_size, batches.drop_last, steps]
        vars(history).update(checkpoint.open(step, batches, about) or {})
        history.resumed_seconds = history.seconds
    start = time.perf_counter()
    recent: list[Losses] = []
    with _progress(label, steps, len(history)) as bar:
        for done in range(len(history) + 1, steps + 1):
            recent.append(step(next(batches)))
            last = done == steps
            probing = probe is not None and (
                last or (probe_every is not None and done % probe_every == 0)
            )
            saving = checkpoint is not None and (last or done % checkpoint_every == 0)
            if last or probing or saving or done % log_every == 0:
                history.append(_read_back(recent, history))
                bar.update(len(recent))
                latest = {k: f"{v[-1]:.4g}" for k, v in history.losses.items()}
                bar.set_postfix(latest, refresh=False)
                recent = []
            if probing:
                with torch.random.fork_rng():
                    history.probes.append({"step": done, **probe()})
            spent = time.perf_counter() - start
            history.seconds = history.resumed_seconds + spent
            if saving:
                checkpoint.save(vars(history))
    return history


def _read_back(recent: list[Losses], history: History) -> dict[str, Tensor]:
    """The recent losses, name -> float32 (window,), in one transfer.

    Raises :class:`NonFiniteLoss` for what is not finite.
    """
    names = list(recent[0])
    rows = [torch.stack([losses[name].float() for name in names]) for losses in recent]
    table = torch.stack(rows).cpu()
    wrong = (~table.isfinite()).any(1).nonzero()
    if len(wrong):
        row = int(wrong[0])
        values = zip(names, table[row].tolist(), strict=True)
        told = ", ".join(f"{name} = {value:.6g}" for name, value in values)
        raise NonFiniteLoss(
            f"Step {len(history) + row + 1}: {told}. The weights are lost from here "
            "on. Try a smaller learning rate, a bound on the gradient (clip), or "
            "float32 where bfloat16 was used."
        )
    return dict(zip(names, table.T.contiguous(), strict=True))


@contextmanager
def _progress(label: str, steps: int, done: int) -> Iterator[Any]:
    """A live bar where someone is watching, none elsewhere.

    Someone is in JupyterLab, VS Code, Colab and at a terminal.

    A notebook that papermill executes must stay clean. There $LWL_PROGRESS may name a
    file to follow.
    """
    kernel = "ipykernel" in sys.modules
    watched = {
        "JPY_SESSION_NAME",
        "VSCODE_PID",
        "COLAB_RELEASE_TAG",
    } & os.environ.keys()
    target: TextIO | None = None
    if path := os.environ.get("LWL_PROGRESS"):
        target = open(path, "a")  # noqa: SIM115 — closed below
    if kernel and watched and target is None:
        from tqdm.auto import tqdm
    else:
        from tqdm import tqdm
    silent = target is None and not (watched if kernel else sys.stderr.isatty())
    try:
        with tqdm(
            total=steps,
            initial=done,
            desc=label,
            leave=False,
            file=target,
            disable=silent,
        ) as bar:
            yield bar
    finally:
        if target is not None:
            target.close()


# --- repeatable runs ------------------------------------------------------------------


def seed(value: int) -> None:
    """Seed Python, NumPy and torch.

    One CPU machine with one thread count then repeats a run bit for bit.
    """
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)

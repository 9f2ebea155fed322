"""The one training loop: batches, steps, ``fit``, seeds and checkpoints.

``fit`` knows nothing of models, losses or data sets. It draws batches, calls a step and records what
the step returns. A step owns its optimisers, so that one with two of them (a GAN) needs nothing special.
"""

import hashlib
import inspect
import math
import os
import random
import re
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np
import torch
from torch import Tensor, nn

from lib.data import to_unit
from lib.files import atomic_write, strip_docs

Losses = dict[str, Tensor]
"""Losses by name: 0-d tensors, still on the device."""


class Stateful(Protocol):
    """What a checkpoint can hold: modules, optimisers, schedulers, :class:`Batches`."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


class Step(Protocol):
    """One update from one batch. ``parts`` names everything the update changes."""

    parts: Mapping[str, Stateful]

    def __call__(self, batch: tuple[Tensor, ...]) -> Losses: ...


class NonFiniteLoss(RuntimeError):
    """A loss became nan or infinite; the message holds the step, all losses of it and a hint."""


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written or read; the message names the file and the remedy."""


# --- batches ---------------------------------------------------------------------------------------


class Batches:
    """Endless shuffled batches of tensors that share their first axis, by indexing.

    Every epoch is a fresh permutation: each example comes exactly once. The last batch of an epoch is
    smaller where ``batch_size`` does not divide the set, or left out with ``drop_last``. uint8 tensors
    are taken for pixels and come as float32 in [0, 1]; all others come as they are.

    The tensors may live on any device and batches come on that device. The order is drawn on the CPU
    from a generator of its own, so it is the same everywhere and nothing else that draws disturbs it.
    """

    def __init__(self, *tensors: Tensor, batch_size: int, seed: int = 0, drop_last: bool = False) -> None:
        sizes = {len(tensor) for tensor in tensors}
        if len(sizes) != 1:
            raise ValueError(f"Batches needs tensors of one length, got lengths {sorted(sizes)}.")
        self.size = sizes.pop()
        if not 1 <= batch_size <= self.size:
            raise ValueError(f"batch_size={batch_size}: choose 1 to {self.size}, the number of examples.")
        self.tensors = tensors
        self.batch_size = batch_size
        self.drop_last = drop_last
        self._generator = torch.Generator().manual_seed(seed)
        self._start_epoch()

    def __len__(self) -> int:
        """Batches in one epoch."""
        return self.size // self.batch_size if self.drop_last else math.ceil(self.size / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        return self

    def __next__(self) -> tuple[Tensor, ...]:
        if self._taken == len(self):
            self._start_epoch()
        start = self._taken * self.batch_size
        index = self._order[start : start + self.batch_size]
        self._taken += 1
        chosen = (tensor[index] for tensor in self.tensors)
        return tuple(to_unit(part) if part.dtype == torch.uint8 else part for part in chosen)

    def _start_epoch(self) -> None:
        self._epoch_state = self._generator.get_state()
        self._order = torch.randperm(self.size, generator=self._generator).to(self.tensors[0].device)
        self._taken = 0

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self._epoch_state, "taken": self._taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._generator.set_state(state["generator"])
        self._start_epoch()
        self._taken = state["taken"]


# --- steps -----------------------------------------------------------------------------------------


class GradientStep:
    """The step of a model with one optimiser: forward, backward, update.

    ``loss_fn(*batch)`` returns losses by name; the one called ``loss`` is minimised, the others are
    recorded. ``model`` is put in training mode at each step, so that an evaluation in between that
    forgot to do so cannot leave batch norm or dropout switched off.

    ``clip`` bounds the gradient's norm; ``amp`` runs ``loss_fn`` under autocast in that dtype.
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
        self.model, self.loss_fn, self.optimizer, self.scheduler = model, loss_fn, optimizer, scheduler
        self.clip, self.amp = clip, amp
        self.parts: dict[str, Stateful] = {"model": model, "optimizer": optimizer}
        if scheduler is not None:
            self.parts["scheduler"] = scheduler

    def __call__(self, batch: tuple[Tensor, ...]) -> Losses:
        self.model.train()
        with torch.autocast(batch[0].device.type, self.amp, enabled=self.amp is not None):
            losses = self.loss_fn(*batch)
        self.optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()
        return {name: value.detach() for name, value in losses.items()}


def adam_one_cycle(
    model: nn.Module, loss_fn: Callable[..., Losses], steps: int, learning_rate: float, **options: Any
) -> GradientStep:
    """The book's usual step: Adam, its rate rising to ``learning_rate`` and falling to nearly 0 within ``steps``.

    The one-cycle schedule of Smith and Topin (2019): while the rate rises, the momentum (β₁) falls from 0.95 to
    0.85, and then goes back, as torch has it. ``options`` go to :class:`GradientStep`.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trainable, lr=learning_rate, fused=True)
    # One more than is taken: the scheduler moves on after the last step, too.
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps + 1)
    return GradientStep(model, loss_fn, optimizer, scheduler, **options)


class Muon(torch.optim.Optimizer):
    """Momentum whose step for each weight matrix is made orthogonal first: all its singular values near 1.

    Jordan et al. (2024). Nesterov's momentum (M, N), divided by its norm, goes through five iterations of a polynomial
    that moves singular values between 0 and 1 to about 1, so directions with small gradients move as far as those
    with large ones. Convolutions count as matrices (out, in · height · width), biases as one row. torch.optim.Muon
    does the same, but takes matrices only, and in bfloat16, which is slow on most CPUs. ``weight_decay`` is
    decoupled: each step takes lr · weight_decay of a matrix away, and nothing of a vector.
    """

    def __init__(
        self, parameters: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        # The square matrices lose too much where a GPU rounds factors to TF32.
        precision = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            self._step()
        finally:
            torch.set_float32_matmul_precision(precision)

    def _step(self) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                mean = state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
                ahead = weight.grad.lerp(mean, group["momentum"])
                matrix = ahead.reshape(len(weight) if weight.ndim > 1 else 1, -1)
                if weight.ndim > 1:
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                # As wide as a step of norm 1 in the larger of the two spaces.
                scale = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
                weight.add_(orthogonal(matrix).view(weight.shape), alpha=-group["lr"] * scale)


def orthogonal(matrix: Tensor, iterations: int = 5) -> Tensor:
    """The nearest (semi-)orthogonal matrix, roughly: (M, N) with its vectors and singular values between 0.7 and 1.2.

    (Values below about 1/700 of the matrix's norm end lower; zeros stay.) Jordan et al. (2024): after division by
    the norm, x ← (a + b xxᵀ + c (xxᵀ)²) x moves all singular values at once. Every iteration multiplies by a
    polynomial in the first xxᵀ, so all of them are done on that square matrix, the smaller side wide, and x is
    multiplied by their product once. For 3×3 convolutions, nine times as wide as high, that is a third of the work.
    """
    x = matrix / (matrix.norm() + 1e-7)
    a, b, c = 3.4445, -4.7750, 2.0315
    if 1 in x.shape:  # its one singular value is 1 now
        value = 1.0
        for _ in range(iterations):
            value *= a + b * value**2 + c * value**4
        return value * x
    wide = x.shape[0] <= x.shape[1]
    x = x if wide else x.T

    def polynomial_of(square: Tensor) -> Tensor:
        polynomial = torch.addmm(square, square, square, beta=b, alpha=c)
        polynomial.diagonal().add_(a)
        return polynomial

    square = x @ x.T
    product = polynomial = polynomial_of(square)
    for _ in range(iterations - 1):
        square = polynomial @ square @ polynomial
        polynomial = polynomial_of(square)
        product = polynomial @ product
    x = product @ x
    return x if wide else x.T


def muon_one_cycle(
    model: nn.Module, loss_fn: Callable[..., Losses], steps: int, learning_rate: float, **options: Any
) -> GradientStep:
    """:func:`adam_one_cycle` with :class:`Muon` in Adam's place, whose rates are ten times as high and more.

    Its momentum, too, goes from 0.95 to 0.85 and back.
    """
    optimizer = Muon([parameter for parameter in model.parameters() if parameter.requires_grad], learning_rate)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps + 1)
    return GradientStep(model, loss_fn, optimizer, scheduler, **options)


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside; every module's own mode again afterwards."""
    modes = [(module, module.training) for parent in modules for module in parent.modules()]
    try:
        for parent in modules:
            parent.eval()
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


# --- the loop --------------------------------------------------------------------------------------


@dataclass
class History:
    """What a run recorded: every loss at every step, probes, and the seconds it took."""

    losses: dict[str, Tensor] = field(default_factory=dict)
    """Name -> float32 (steps,), on the CPU."""
    probes: list[dict[str, Any]] = field(default_factory=list)
    """What ``probe`` returned, with the ``step`` it was taken after."""
    seconds: float = 0.0
    """Training time, resumed runs included, time lost to a kill not."""

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
            raise ValueError(f"A step returned losses {sorted(losses)}, earlier ones {sorted(self.losses)}.")
        self.losses = {
            name: torch.cat([self.losses[name], values]) if self.losses else values for name, values in losses.items()
        }


resumed_seconds = 0.0
"""What this process was spared: seconds of training that its calls of :func:`fit` took over from checkpoints."""


def fit(
    step: Step,
    batches: Batches,
    steps: int,
    *,
    log_every: int = 50,
    probe: Callable[[], dict[str, Any]] | None = None,
    probe_every: int | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: int = 500,
    label: str = "training",
) -> History:
    """Call ``step`` on ``steps`` batches and record the losses it returns.

    Losses stay on the device and are read back once per ``log_every`` steps, so a GPU is never waited
    for in between. ``probe()`` is called after every ``probe_every`` steps and after the last; what it
    returns (numbers and tensors by name) is kept in the history, and random numbers that it draws do not
    change the training.

    With ``checkpoint``, everything that the next step depends on is saved every ``checkpoint_every``
    steps, and a run that was killed goes on from there to the same result. The file is
    ``<checkpoint>-<fingerprint>.pt``, the fingerprint taken of the initial weights, hyper-parameters,
    data, random state, loss code, what that refers to, and ``steps``: another experiment never resumes this one's file.

    Raises :class:`NonFiniteLoss` naming the step, and :class:`CheckpointError` for an unreadable file.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: train for at least one step.")
    history = History()
    store = None
    if checkpoint is not None:
        store = _Checkpoint(checkpoint, step, batches, steps)
        store.restore(history)
    global resumed_seconds
    start, before = time.perf_counter(), history.seconds
    resumed_seconds += before
    recent: list[Losses] = []
    with _progress(label, steps, len(history)) as bar:
        for done in range(len(history) + 1, steps + 1):
            recent.append(step(next(batches)))
            last = done == steps
            probing = probe is not None and (last or (probe_every is not None and done % probe_every == 0))
            saving = store is not None and (last or done % checkpoint_every == 0)
            if last or probing or saving or done % log_every == 0:
                history.append(_read_back(recent, history))
                bar.update(len(recent))
                bar.set_postfix({name: f"{values[-1]:.4g}" for name, values in history.losses.items()}, refresh=False)
                recent = []
            if probing:
                with torch.random.fork_rng():
                    history.probes.append({"step": done, **probe()})
            history.seconds = before + time.perf_counter() - start
            if saving:
                store.save(history)
    return history


def _read_back(recent: list[Losses], history: History) -> dict[str, Tensor]:
    """The recent losses, name -> float32 (window,), in one transfer; refuses what is not finite."""
    names = list(recent[0])
    table = torch.stack([torch.stack([losses[name].float() for name in names]) for losses in recent]).cpu()
    wrong = (~table.isfinite()).any(1).nonzero()
    if len(wrong):
        row = int(wrong[0])
        values = ", ".join(f"{name} = {value:.6g}" for name, value in zip(names, table[row].tolist(), strict=True))
        raise NonFiniteLoss(
            f"Step {len(history) + row + 1}: {values}. The weights are lost from here on. Try a smaller learning "
            "rate, a bound on the gradient (clip), or float32 where bfloat16 was used."
        )
    return dict(zip(names, table.T.contiguous(), strict=True))


@contextmanager
def _progress(label: str, steps: int, done: int) -> Iterator[Any]:
    """A live bar where someone is watching: in JupyterLab, VS Code, Colab or a terminal; none elsewhere.

    A notebook that papermill executes must stay clean. There $LWL_PROGRESS may name a file to follow.
    """
    kernel = "ipykernel" in sys.modules
    watched = {"JPY_SESSION_NAME", "VSCODE_PID", "COLAB_RELEASE_TAG"} & os.environ.keys()
    target: TextIO | None = None
    if path := os.environ.get("LWL_PROGRESS"):
        target = open(path, "a")  # noqa: SIM115 — closed below
    if kernel and watched and target is None:
        from tqdm.auto import tqdm
    else:
        from tqdm import tqdm
    silent = target is None and not (watched if kernel else sys.stderr.isatty())
    try:
        with tqdm(total=steps, initial=done, desc=label, leave=False, file=target, disable=silent) as bar:
            yield bar
    finally:
        if target is not None:
            target.close()


# --- repeatable runs -------------------------------------------------------------------------------


def seed(value: int) -> None:
    """Seed Python, NumPy and torch. One CPU machine with one thread count then repeats a run bit for bit."""
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)


def _random_state() -> dict[str, Any]:
    kind, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _set_random_state(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


class _Checkpoint:
    """One run's file: tensors and plain numbers only, so that reading it never runs code."""

    def __init__(self, stem: Path, step: Step, batches: Batches, steps: int) -> None:
        parts = getattr(step, "parts", None)
        if not parts:
            raise CheckpointError(f"{type(step).__name__} has no `parts`: name there what the checkpoint must hold.")
        self.parts: dict[str, Stateful] = {**parts, "batches": batches}
        start = [self._states(), batches.tensors, batches.batch_size, steps, _random_state(), _settings(step)]
        self.path = stem.with_name(f"{stem.name}-{_fingerprint(start)[:12]}.pt")

    def _states(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.parts.items()}

    def save(self, history: History) -> None:
        with atomic_write(self.path) as temporary:
            torch.save(
                {"parts": self._states(), "random": _random_state(), "history": vars(history)},
                temporary,
            )

    def restore(self, history: History) -> None:
        if not self.path.exists():
            return
        try:
            saved = torch.load(self.path, weights_only=True, map_location="cpu")
        except Exception as error:
            raise CheckpointError(f"{self.path} cannot be read ({error}): delete it to train anew.") from error
        for name, part in self.parts.items():
            part.load_state_dict(saved["parts"][name])
        _set_random_state(saved["random"])
        vars(history).update(saved["history"])


def _fingerprint(value: Any) -> str:
    """SHA-256 of nested dicts, sequences, tensors and plain values."""
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, Tensor):
            digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        elif isinstance(value, Mapping):
            for key, item in value.items():
                digest.update(repr(key).encode())
                add(item)
        elif isinstance(value, (list, tuple)):
            digest.update(f"[{len(value)}".encode())
            for item in value:
                add(item)
        else:
            digest.update(repr(value).encode())

    add(value)
    return digest.hexdigest()


def _settings(step: Step) -> list[str]:
    """What else decides a step's updates: its attributes, its modules' layers, its loss and what that refers to."""
    held = {name: value for name, value in vars(step).items() if name != "parts"}
    loss_fn = held.pop("loss_fn", None)
    if inspect.isfunction(loss_fn):
        used = inspect.getclosurevars(loss_fn)
        held |= {**used.nonlocals, **used.globals}
    plain = (bool, int, float, str, list, tuple, dict, type(None), torch.dtype)
    return [
        # Without addresses: a list may hold objects, whose place in memory is another in every process.
        *(
            f"{name}={re.sub(' at 0x[0-9a-f]+', '', repr(value))}"
            for name, value in sorted(held.items())
            if isinstance(value, plain)
        ),
        *(_source(value) for _, value in sorted(held.items()) if inspect.isfunction(value)),
        *(repr(part) for part in step.parts.values() if isinstance(part, nn.Module)),
        _source(loss_fn if inspect.isfunction(loss_fn) else type(step)),
    ]


def _source(code: Any) -> str:
    """The source of a function or class without its comments; its name where Python has none."""
    try:
        return strip_docs(textwrap.dedent(inspect.getsource(code)))
    except (OSError, TypeError, SyntaxError):  # typed at a prompt, or a lambda within a line
        return code.__qualname__

"""Checkpoints: a training that was killed goes on to the same result.

A checkpoint holds everything that the next step depends on, and nothing but tensors
and plain numbers, so that reading it never runs code. Nothing here knows how training
works: what a file must hold and what makes two trainings the same come as arguments.
"""

import hashlib
import inspect
import io
import random
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from lib.files import atomic_write, strip_docs


class Stateful(Protocol):
    """What a checkpoint can hold: modules, optimisers, schedulers, batches."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written or read; the message names the file."""


@dataclass
class Checkpoint:
    """Where one training keeps its state: ``<stem>-<fingerprint>.pt``.

    The fingerprint covers the initial weights, the hyper-parameters, the data, the
    random state, the loss code and what that refers to, so that another experiment
    never resumes this one's file.
    """

    stem: Path
    resumed_seconds: float = field(default=0.0, compare=False)
    """Seconds of training that were taken over from files instead of spent."""
    path: Path | None = field(default=None, init=False, compare=False)
    """The file, once :meth:`open` knows the fingerprint."""
    parts: dict[str, Stateful] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )
    """Everything the file holds, by name."""

    def open(
        self, step: Any, batches: Stateful, about: Sequence[Any]
    ) -> dict[str, Any] | None:
        """Name the file; where it exists, restore every part and the random state.

        ``step.parts`` names what an update changes. ``about`` is what else makes this
        experiment the one it is: data, batch size, number of steps. Returns the history
        that :meth:`save` was given, or None for a fresh start.

        Raises :class:`CheckpointError` for a step without parts and for a broken file.
        """
        parts = getattr(step, "parts", None)
        if not parts:
            raise CheckpointError(
                f"{type(step).__name__} has no `parts`: name there what the "
                "checkpoint must hold."
            )
        self.parts = {**parts, "batches": batches}
        start = [self._states(), *about, random_state(), settings(step)]
        name = f"{self.stem.name}-{fingerprint(start)[:12]}.pt"
        self.path = self.stem.with_name(name)
        return self._restore() if self.path.exists() else None

    def save(self, history: dict[str, Any]) -> None:
        """Write parts, random state, ``history`` and their digest over the old file.

        Raises :class:`~lib.files.WriteError` where the disk is full, for example.
        """
        saved = {"parts": self._states(), "random": random_state(), "history": history}
        buffer = io.BytesIO()  # torch says nothing of a full disk, Python does
        torch.save({**saved, "digest": fingerprint(saved)}, buffer)
        with atomic_write(self.path) as temporary:
            temporary.write_bytes(buffer.getbuffer())

    def _states(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.parts.items()}

    def _restore(self) -> dict[str, Any]:
        try:
            saved = torch.load(self.path, weights_only=True, map_location="cpu")
            digest = saved.pop("digest", "")
            if digest != fingerprint(saved):
                raise ValueError("its content is not what was saved: the disk erred")
            _refuse_unlike(self._states(), saved["parts"])
            for name, part in self.parts.items():
                part.load_state_dict(saved["parts"][name])
            set_random_state(saved["random"])
            self.resumed_seconds += saved["history"]["seconds"]
        except Exception as error:
            raise CheckpointError(
                f"{self.path} cannot be gone on from ({error}): delete it to train "
                "anew."
            ) from error
        return saved["history"]


def _refuse_unlike(fresh: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """ValueError for tensors that these parts do not have, or that are not finite.

    Optimisers start without tensors of their own, so that any will do for them.
    """
    if fresh.keys() != saved.keys():
        raise ValueError(f"it holds {sorted(saved)}, not {sorted(fresh)}")
    for name, part in fresh.items():
        for key, tensor in part.items():
            found = saved[name].get(key)
            if isinstance(tensor, Tensor) and (
                not isinstance(found, Tensor)
                or (found.shape, found.dtype) != (tensor.shape, tensor.dtype)
            ):
                raise ValueError(f"{name}.{key} has another shape")
    for where, tensor in _tensors(saved):
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"{where} is not finite")


def _tensors(value: Any, where: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors in nested dicts and sequences, with their places."""
    if isinstance(value, Tensor):
        yield where, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _tensors(item, f"{where}.{key}" if where else str(key))
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from _tensors(item, f"{where}[{number}]")


# --- the random state --------------------------------------------------------------


def random_state() -> dict[str, Any]:
    """The state of Python's, NumPy's and torch's generators, on all devices."""
    kind, keys, position, has_gauss, cached = np.random.get_state()
    keys = torch.from_numpy(keys.astype(np.int64))
    return {
        "python": random.getstate(),
        "numpy": (kind, keys, position, has_gauss, cached),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put all generators back to where :func:`random_state` found them."""
    random.setstate(state["python"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


# --- what makes two trainings the same ---------------------------------------------


def fingerprint(value: Any) -> str:
    """SHA-256 of nested dicts, sequences, tensors and plain values."""
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, Tensor):
            digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
            # A tensor of one number may be contiguous and have any stride.
            flat = value.detach().cpu().flatten()
            flat = flat.clone(memory_format=torch.contiguous_format)
            digest.update(flat.view(torch.uint8).numpy().data)
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


PLAIN = (bool, int, float, str, list, tuple, dict, type(None), torch.dtype)
"""Types whose ``repr`` says all that there is to them."""


def settings(step: Any) -> list[str]:
    """What else decides a step's updates, as text.

    These are its attributes, its modules' layers, and its loss with all that the loss
    refers to.
    """
    held = {name: value for name, value in vars(step).items() if name != "parts"}
    loss_fn = held.pop("loss_fn", None)
    if inspect.isfunction(loss_fn):
        used = inspect.getclosurevars(loss_fn)
        held |= {**used.nonlocals, **used.globals}
    named = sorted(held.items())
    modules = [part for part in step.parts.values() if isinstance(part, nn.Module)]
    return [
        *(
            f"{name}={_text(value)}"
            for name, value in named
            if isinstance(value, PLAIN)
        ),
        *(_source(value) for _, value in named if inspect.isfunction(value)),
        *map(repr, modules),
        _source(loss_fn if inspect.isfunction(loss_fn) else type(step)),
    ]


def _text(value: Any) -> str:
    """``repr`` without addresses, which differ from process to process."""
    return re.sub(" at 0x[0-9a-f]+", "", repr(value))


def _source(code: Any) -> str:
    """The source of a function or class without comments, or its name without one."""
    try:
        return strip_docs(textwrap.dedent(inspect.getsource(code)))
    except (OSError, TypeError, SyntaxError):  # typed at a prompt, or inside a line
        return code.__qualname__

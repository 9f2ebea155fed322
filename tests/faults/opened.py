"""Chapters opened with parameters of one's choice, up to where something would train.

Refusals must come before that: nothing here ever trains.
"""

import contextlib
import importlib
import io

from chapter_cells import code_cells, read, tiny

from lib.report import parameters as typed
from lib.site import contents

CONVERTED = [name for name in contents.chapters() if contents.converted(name)]
UNCONVERTED = [name for name in contents.chapters() if name not in CONVERTED]


class Trains(Exception):
    """A chapter came as far as its first training."""


def trains(*_, **__):
    raise Trains


def defaults(name):
    """The namespace after a chapter's parameters cell, with the settings for tests, as a kernel has it."""
    source = code_cells(read(name))[0].source
    namespace = {"In": ["", source]}
    exec(compile(source, "parameters", "exec"), namespace)
    return namespace | tiny(name) | {"device": "cpu"}


def given(namespace, **values):
    """What papermill leaves of parameters that it was given."""
    lines = [f"{name} = ..." for name in values]
    return namespace | values | {"In": [*namespace["In"], "\n".join(["# Parameters", *lines])]}


def open_chapter(name, monkeypatch, **values):
    """Execute a chapter's cells until one would train; raises what a chapter raises, else :class:`Trains`."""
    for module, function in (("lib.train", "fit"), ("lib.evaluate", "fit_classifier")):
        with contextlib.suppress(AttributeError):
            monkeypatch.setattr(importlib.import_module(module), function, trains)
    namespace = given(defaults(name), **values)
    cells = code_cells(read(name))[1:]
    if name in CONVERTED:
        cells = [c for i, c in enumerate(cells) if i == 0 or "measure" in c.metadata.get("tags", [])]
    for cell in cells:
        if cell.id.startswith(("show-", "fig-")):
            continue
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(cell.source, cell.id, "exec"), namespace)
    raise AssertionError(f"{name} trains nothing")


__all__ = ["CONVERTED", "UNCONVERTED", "Trains", "defaults", "given", "open_chapter", "typed"]

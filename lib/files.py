"""Writing files so that a half-written one is never taken for whole, and telling
whether code has changed.
"""

import ast
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The project's folder: the parent of ``lib``, which is installed editable."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its place only if the block
    succeeds.

    A reader sees the old file or the new one, whole, whenever the process is killed.
    The bytes are flushed to the disk before the rename, so that a crash of the machine
    cannot leave an empty file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def strip_docs(source: str) -> str:
    """Python code without comments, docstrings and layout: equal for sources that
    compute the same.
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            match body[0].value:
                case ast.Constant(value=str()):
                    body.pop(0)
    return ast.dump(tree)

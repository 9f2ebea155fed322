"""Writing files so that a half-written one is never taken for whole, and telling
whether code has changed.
"""

import ast
import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The project's folder: the parent of ``lib``, which is installed editable."""


class WriteError(OSError):
    """A file cannot be written; the message names it, the cause and the remedy."""


ELSEWHERE = "let $LWL_CACHE, $LWL_CHECKPOINTS or $LWL_RESULTS name a place that can"
REMEDIES = {
    errno.ENOSPC: "the disk is full: free some room and run it again",
    errno.EDQUOT: "your quota is used up: free some room and run it again",
    errno.EFBIG: "files may not grow so large here: raise `ulimit -f`, run it again",
    errno.EROFS: f"its file system is read-only: {ELSEWHERE}",
    errno.EACCES: f"you may not write there: {ELSEWHERE}",
}
"""What a user can do about an error of the system's."""


@cache
def work(root: Path = ROOT) -> Path:
    """The folder for what is made: ``_build`` in the project.

    Where that cannot be written, because someone else installed the project, a folder
    in the user's cache, or else a temporary one.
    """
    build = root / "_build"
    if os.access(build if build.exists() else root, os.W_OK):
        return build
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        own = home / "learning-without-labels"
        own.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # no home, or one that cannot be written
        own = Path(tempfile.mkdtemp(prefix="learning-without-labels-"))
    return own


def refuse_unwritable(path: Path) -> None:
    """Raise :class:`WriteError` if ``path`` could not be written, without trying."""
    folder = next(p for p in path.absolute().parents if p.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise WriteError(
            errno.EACCES, f"{path} could not be written: {REMEDIES[errno.EACCES]}"
        )


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its place only if the block
    succeeds.

    A reader sees the old file or the new one, whole, whenever the process is killed.
    The bytes are flushed to the disk before the rename, so that a crash of the machine
    cannot leave an empty file. The file is as readable as the user's umask lets files
    be. Raises :class:`WriteError` where the system refuses.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # In a name of 255 bytes there is no room for more.
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name[:40]}.", suffix=path.suffix
        )
        temporary = Path(name)
        if hasattr(os, "fchmod"):
            os.fchmod(handle, 0o666 & ~_umask())  # mkstemp's own is 0600
        os.close(handle)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if isinstance(error, WriteError) or error.errno not in REMEDIES:
            raise
        raise WriteError(
            error.errno, f"{path} cannot be written: {REMEDIES[error.errno]}"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


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

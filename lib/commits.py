"""Asking git about this project, whatever repository the caller's environment means."""

import os
import subprocess
from pathlib import Path

from lib.code import Read
from lib.files import ROOT


def git(*arguments: str, root: Path = ROOT) -> str | None:
    """What git prints; None where it fails or is not installed.

    A caller's GIT_DIR, as hooks have it, means another repository.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    try:
        return subprocess.run(
            ["git", *arguments],
            cwd=root,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None


def head(root: Path = ROOT) -> str | None:
    """The commit that is checked out, if the repository is the project's own.

    A project that was unpacked inside another repository has no commit.
    """
    found = git("rev-parse", "--show-toplevel", "--short=10", "HEAD", root=root)
    top, _, commit = (found or "").strip().rpartition("\n")
    return commit if commit and Path(top).resolve() == root.resolve() else None


def is_known(commit: str, root: Path = ROOT) -> bool:
    """Whether this repository holds a commit."""
    return git("cat-file", "-e", f"{commit}^{{commit}}", root=root) is not None


def reads(commit: str, root: Path = ROOT) -> Read:
    """Reads the project's files as they were at a commit, for :mod:`lib.code`."""
    return lambda name: git("show", f"{commit}:./{name}", root=root)

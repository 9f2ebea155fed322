"""What makes a killed engine harmless: ``python -m lib.site.guard PID COMMAND …``.

Snakemake that is killed outright leaves two things: its lock, and the processes it
started, which run on and still write. So every run is started by this module, which
ends it with its engine; and the next engine finds that nobody holds the project any
more, and goes on.
"""

import fcntl
import getpass
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import psutil

from lib.files import ROOT

_held: list[TextIO] = []
"""Open as long as this process lives: the system takes the lock back when it ends."""


# --- a run that ends with its engine -------------------------------------------------


def run(engine: int, command: Sequence[str]) -> int:
    """Run a command until it ends, or the process ``engine`` does; its exit status.

    With the engine, everything that the command has started is ended.
    """
    try:
        watched = psutil.Process(engine)
    except psutil.NoSuchProcess:
        return 1
    child = subprocess.Popen(command)
    while True:
        try:
            status = child.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            if _is_alive(watched):
                continue
            end(child.pid)
            child.wait()
            return 1
        return status if status >= 0 else 128 - status  # as shells say it


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def end(pid: int) -> None:
    """End a process and all that it has started, whatever group they are in."""
    try:
        first = psutil.Process(pid)
        found = [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in found:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


# --- one engine at a time ------------------------------------------------------------


def take_over(root: Path = ROOT) -> str:
    """Hold the project for this process; what a killed engine left, put away.

    Its lock is removed if no engine holds the project, and its jobs on a cluster are
    cancelled. Gives a sentence that says so, or "". Where another engine is at work the
    sentence names it, and nothing happens: Snakemake compares what both would write.
    """
    state = root / ".snakemake"
    state.mkdir(exist_ok=True)
    # Not in "locks", which --unlock removes.
    file = (state / "engine.lock").open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read().strip()
        file.close()
        return (
            f"Another make works here, process {holder}. If both would write the same "
            f"files, wait for it, or end it: kill {holder}"
        )
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    _held.append(file)
    left = list((state / "locks").glob("*.lock"))
    if not left:
        return ""
    jobs = _cancel_jobs(root)
    for path in left:
        path.unlink(missing_ok=True)
    cancelled = f" Its {jobs} jobs on the cluster were cancelled." if jobs else ""
    return f"The last run here was killed: going on from what it left.{cancelled}"


def _cancel_jobs(root: Path) -> int:
    """Cancel this user's SLURM jobs that were submitted from the project; how many."""
    if not shutil.which("squeue"):
        return 0
    mine = ["squeue", "--noheader", "--user", getpass.getuser(), "--format", "%A %Z"]
    found = subprocess.run(mine, capture_output=True, encoding="utf-8", check=False)
    lines = [line.partition(" ") for line in found.stdout.splitlines()]
    jobs = sorted({job for job, _, folder in lines if folder == str(root)})
    if jobs:
        subprocess.run(["scancel", *jobs], check=False)
    return len(jobs)


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), sys.argv[2:]))

"""Sets up ``.venv``, or finds in a moment that it is whole and fits the lock.

make runs it first: ``python3 lib/site/environment.py``. It needs Python and nothing
else, on Windows too. An environment that was made here is brought up to date if the
lock has changed, and made anew if it is broken, half installed or moved; one that was
made otherwise is left alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / ".venv"
READY = HOME / ".ready"
"""Written last: the lock's digest, and what was installed. An empty one, made by hand,
says that the environment is as new as it is."""
BIN = HOME / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")

SETTINGS = Path("etc", "ipython", "ipython_config.py")
"""In the environment: what its kernels read first, whoever starts them."""

SUITABLE = [(3, 11), (3, 12), (3, 13)]
CPU_INDEX = os.environ.get("LWL_CPU_INDEX", "")
"""PyTorch's index of builds without CUDA, or a mirror; uv knows it by itself."""
NEEDED = (
    "leaving them out needs uv, or LWL_CPU_INDEX with the address of PyTorch's index "
    "of CPU builds"
)


class SetUpError(Exception):
    """The environment cannot be used, nor made; the message says what to do."""


# --- is there anything to do? --------------------------------------------------------


def trouble() -> str | None:
    """Why the environment cannot be used as it is; None if it can."""
    if not HOME.exists():
        return "there is none yet"
    if not READY.exists():
        return "it was not set up to the end"
    if _moved():
        return "it was made in another folder"
    if _call(PYTHON, "-c", "", quiet=True):
        return "its Python does not start"
    return missing(_facts().get("packages", []))


def outdated() -> str | None:
    """Why a whole environment is not what the lock says; None if it is."""
    if facts := _facts():
        return None if facts["lock"] == lock() else "requirements.txt has changed"
    newer = READY.stat().st_mtime < (ROOT / "requirements.txt").stat().st_mtime
    return "requirements.txt is newer" if newer else None


def _facts() -> dict:
    mark = READY.read_text(encoding="utf-8").strip()
    return json.loads(mark) if mark else {}


def lock() -> str:
    """Stands for what the lock names; comments and layout aside."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = [" ".join(line.partition("#")[0].split()) for line in lines]
    return hashlib.sha256("\n".join(filter(None, pins)).encode()).hexdigest()[:16]


def missing(packages: list[str]) -> str | None:
    """What a killed installation, or a hand, has left out; None if all is there."""
    found = installed()
    for name in packages:
        if name not in found:
            return f"{name} is missing"
    for name, info in found.items():
        record = info / "RECORD"
        if not record.exists():
            return f"{name} is half installed"
        for line in record.read_text(encoding="utf-8").splitlines():
            file = line.rpartition(",")[0].rpartition(",")[0].strip('"')
            if not file.endswith(".pyc") and not os.path.exists(info.parent / file):
                return f"{name} lacks {file}"
    return None


def installed() -> dict[str, Path]:
    """The environment's packages: where each says what it consists of."""
    infos = [*HOME.glob("lib/python*/site-packages/*.dist-info")]
    infos += HOME.glob("Lib/site-packages/*.dist-info") if os.name == "nt" else []
    return {_plain(info.name.partition("-")[0]): info for info in infos}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def ours() -> bool:
    """Whether the environment was made here, by this file: it says so itself."""
    return not HOME.is_symlink() and _made_in() is not None


def _moved() -> bool:
    made_in = _made_in()
    if HOME.is_symlink() or made_in is None:
        return False
    return not (made_in.exists() and made_in.samefile(HOME))


def _made_in() -> Path | None:
    try:
        text = (HOME / "pyvenv.cfg").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r" -m venv --clear (.*[/\\]\.venv)$", text, re.M)
    return Path(found.group(1)) if found else None


# --- what to install -----------------------------------------------------------------


def choose(torch: str) -> tuple[str, str]:
    """Which builds of torch, "cpu" or "lock", and why."""
    known = CPU_INDEX or shutil.which("uv")
    if torch == "cpu" and not known:
        return "lock", f"with CUDA libraries: TORCH=cpu says not to, but {NEEDED}"
    if torch != "auto":
        return torch, f"as TORCH={torch} says"
    if sys.platform != "linux":
        return "lock", "which brings no CUDA libraries here"
    if shutil.which("nvidia-smi") or os.path.exists("/proc/driver/nvidia/version"):
        return "lock", "with CUDA libraries for the NVIDIA GPU that is here"
    if shutil.which("sbatch"):
        return "lock", "with CUDA libraries, as a cluster's other nodes may have GPUs"
    if not known:
        why = f"with CUDA libraries: there is no NVIDIA GPU here, but {NEEDED}"
        return "lock", why
    return "cpu", "as there is no NVIDIA GPU here (TORCH=lock installs them)"


def pins() -> list[str]:
    """The lock's lines for torch and torchvision, which must come from one place."""
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    return re.findall(r"^(?:torch|torchvision)==[^\s;]+", text, re.M)


# --- setting up ----------------------------------------------------------------------


def bring_up_to_date() -> bool:
    """Install what the lock has changed, in place; whether that worked.

    Packages that it no longer names stay.
    """
    builds = _facts().get("torch", "lock")
    READY.unlink()  # if this is killed, the environment is made anew
    if not (_cpu() if builds == "cpu" else _install("-r", "requirements.txt")):
        return False
    _write_mark(builds)
    return True


def set_up(torch: str) -> None:
    """Make the environment anew. Raises :class:`SetUpError` where that fails."""
    builds, why = choose(torch)
    tool = "uv" if shutil.which("uv") else "pip"
    version = ".".join(map(str, sys.version_info[:3]))
    what = "the lock without CUDA libraries" if builds == "cpu" else "the whole lock"
    print(f"Python {version}, {tool}: {what}, {why}.", flush=True)
    _empty()
    if builds == "cpu" and not _cpu():
        print("That did not work: installing the whole lock.", flush=True)
        _empty()
        builds = "lock"
    if builds == "lock" and not _install("-r", "requirements.txt"):
        raise SetUpError("The packages could not be installed; see above.")
    _write_mark(builds)


def _write_mark(builds: str) -> None:
    shield()
    facts = {"lock": lock(), "torch": builds, "packages": sorted(installed())}
    temporary = READY.with_suffix(".new")
    temporary.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, READY)


def shield() -> None:
    """Put ``ipython_config.py`` where the environment's kernels find it.

    pip leaves such files out of an editable installation.
    """
    wanted = Path(__file__).with_name(SETTINGS.name).read_bytes()
    target = HOME / SETTINGS
    if target.exists() and target.read_bytes() == wanted:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(".new")
    temporary.write_bytes(wanted)
    os.replace(temporary, target)


def _empty() -> None:
    if _call(sys.executable, "-m", "venv", "--clear", ".venv"):
        raise SetUpError("Python could not make the folder .venv; see above.")


def _cpu() -> bool:
    """Install without CUDA libraries; whether torch and torchvision then work."""
    if CPU_INDEX:
        done = _install("--index-url", CPU_INDEX, "--no-deps", *pins())
        done = done and _install("-r", "requirements-cpu.txt")
    else:
        done = _uv("--torch-backend", "cpu", "-r", "requirements-cpu.txt")
    return done and not _call(PYTHON, "-c", "import torchvision")


def _install(*arguments: str) -> bool:
    """Install with uv, which is faster, where it is there and works; else with pip."""
    if shutil.which("uv"):
        if _uv(*arguments):
            return True
        print("uv did not succeed: trying pip.", flush=True)
    return not _call(PYTHON, "-m", "pip", "install", "-q", *arguments)


def _uv(*arguments: str) -> bool:
    uv = shutil.which("uv") or "uv"
    return not _call(uv, "pip", "install", "-q", "--python", PYTHON, *arguments)


def _call(*command: str | Path, quiet: bool = False) -> int:
    """Run a command in the project's folder; gives its exit status."""
    silent = subprocess.DEVNULL if quiet else None
    try:
        return subprocess.call(
            list(map(str, command)), cwd=ROOT, stdout=silent, stderr=silent
        )
    except OSError:
        return 1


# --- command -------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", choices=["auto", "cpu", "lock"], default="auto")
    options = parser.parse_args(arguments)
    wrong = trouble()
    old = None if wrong else outdated()
    if wrong is None and old is None:
        if ours():
            shield()
        return 0
    try:
        if sys.version_info[:2] not in SUITABLE:
            return _elsewhere(sys.argv[1:] if arguments is None else arguments)
        print(f"Setting up .venv: {wrong or old}.", flush=True)
        if HOME.is_symlink() or (HOME.exists() and not ours()):
            raise SetUpError(
                "make did not make this environment, so it empties nothing there.\n"
                "Either remove .venv (if it is a link, the link) and say make again, "
                "or mend it yourself:\n  .venv/bin/python -m pip install -r "
                "requirements.txt && touch .venv/.ready"
            )
        if wrong or not bring_up_to_date():
            set_up(options.torch)
    except SetUpError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _elsewhere(arguments: list[str]) -> int:
    """Have a Python that suits do it."""
    for major, minor in reversed(SUITABLE):
        python = shutil.which(f"python{major}.{minor}")
        if python and not _call(python, "-c", "import venv", quiet=True):
            return _call(python, __file__, *arguments)
    raise SetUpError(
        "Python 3.11 to 3.13 is needed, and is not on the path: install one, or say "
        "make PYTHON=/where/it/is"
    )


if __name__ == "__main__":
    sys.exit(main())

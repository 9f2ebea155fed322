"""Setting up .venv: chosen with care, found whole or mended, and nothing emptied that was not made here.

The packages are toys, made here, and pip gets them from this folder or this machine.
"""

import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from functools import partial

import pytest
from toys import BIN

from lib.files import ROOT
from lib.site import environment


def make_wheel(folder, name, version, source="", requires=()):
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    about = "".join(f"Requires-Dist: {other}\n" for other in requires)
    files = {
        f"{name}.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{about}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: toy\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return path


@pytest.fixture
def clone(tmp_path):
    folder = tmp_path / "a space" / "book"
    (folder / "lib" / "site").mkdir(parents=True)
    for name in ("environment.py", "ipython_config.py"):
        shutil.copy(ROOT / "lib" / "site" / name, folder / "lib" / "site")
    shutil.copy(ROOT / "Makefile", folder)
    make_wheel(folder, "toy", "1.0")
    (folder / "requirements.txt").write_text("./toy-1.0-py3-none-any.whl\n")
    return folder


def set_up(clone, *arguments, command=None, **more):
    """What the script says, on a machine without uv."""
    command = command or [sys.executable, str(clone / "lib" / "site" / "environment.py"), *arguments]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "UV_", "LWL_"))}
    tools = {"PATH": "/usr/bin:/bin", "PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    result = subprocess.run(command, cwd=clone, env={**kept, **tools, **more}, capture_output=True, encoding="utf-8")
    return result.returncode, result.stdout + result.stderr


def test_an_environment_is_made_found_whole_and_made_anew_when_it_is_not(clone):
    status, said = set_up(clone, "--torch", "lock")
    assert status == 0 and "there is none yet" in said and "the whole lock, as TORCH=lock says" in said
    python = clone / ".venv" / "bin" / "python"
    assert subprocess.call([python, "-c", "import toy"]) == 0
    (clone / ".venv" / "mine").write_text("")
    assert set_up(clone) == (0, "") and (clone / ".venv" / "mine").exists()
    settings = clone / ".venv" / environment.SETTINGS
    wanted = (ROOT / "lib" / "site" / "ipython_config.py").read_bytes()
    assert settings.read_bytes() == wanted, "kernels find the project's settings"
    settings.unlink()
    assert set_up(clone) == (0, "") and settings.read_bytes() == wanted
    # A comment is no change of the lock, and a date is none.
    (clone / "requirements.txt").write_text("# toys\n./toy-1.0-py3-none-any.whl\n")
    assert set_up(clone) == (0, "")
    (file,) = clone.glob(".venv/lib/python*/site-packages/toy.py")
    file.unlink()
    status, said = set_up(clone, "--torch", "lock")
    assert status == 0 and "toy lacks toy.py" in said and file.exists()
    assert not (clone / ".venv" / "mine").exists()
    moved = clone.with_name("moved")
    clone.rename(moved)
    status, said = set_up(moved, "--torch", "lock")
    assert status == 0 and "made in another folder" in said
    make_wheel(moved, "toy", "2.0")
    (moved / "requirements.txt").write_text("./toy-2.0-py3-none-any.whl\n")
    (moved / ".venv" / "mine").write_text("")
    status, said = set_up(moved, command=["make", f"PYTHON={BIN / 'python'}", "TORCH=lock", ".venv/.ready"])
    assert status == 0 and "requirements.txt has changed" in said
    # Up to date, in place.
    assert (moved / ".venv" / "mine").exists() and [*moved.glob(".venv/lib/python*/site-packages/toy-2.0.dist-info")]
    assert set_up(moved) == (0, "")


def test_an_installation_that_was_killed_is_begun_again(clone):
    (clone / "requirements.txt").write_text("./nothing-1.0-py3-none-any.whl\n")
    status, said = set_up(clone, "--torch", "lock")
    assert status == 1 and "could not be installed" in said and not (clone / ".venv" / ".ready").exists()
    (clone / "requirements.txt").write_text("./toy-1.0-py3-none-any.whl\n")
    status, said = set_up(clone, "--torch", "lock")
    assert status == 0 and "not set up to the end" in said


@pytest.mark.parametrize("kind", ["a link", "a link to an environment of make", "a folder", "another environment"])
def test_what_was_not_made_here_is_not_emptied(clone, kind):
    other = clone.parent / "other"
    place = other if "link" in kind else clone / ".venv"
    place.mkdir()
    (place / "precious").write_text("mine")
    if kind == "a link to an environment of make":
        (place / "pyvenv.cfg").write_text("command = python3 -m venv --clear /other/.venv\n")
    if kind == "another environment":
        (place / "pyvenv.cfg").write_text(f"command = python3 -m venv {clone}/.venv\n")
    if "link" in kind:
        (clone / ".venv").symlink_to(other)
    status, said = set_up(clone)
    assert status == 1 and "make did not make this environment" in said
    assert (place / "precious").read_text() == "mine" and (clone / ".venv").exists()


# --- parts that a killed installation leaves --------------------------------------------


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A project whose environment is only a folder."""
    home = tmp_path / ".venv"
    (home / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
    for name, value in {"ROOT": tmp_path, "HOME": home, "READY": home / ".ready"}.items():
        monkeypatch.setattr(environment, name, value)
    monkeypatch.setattr(environment, "PYTHON", sys.executable)
    (tmp_path / "requirements.txt").write_text("toy==1.0\n")
    return home


def put(home, name, record=True, files=True):
    site = home / "lib" / "python3.11" / "site-packages"
    info = site / f"{name}-1.0.dist-info"
    info.mkdir()
    if record:
        (info / "RECORD").write_text(f"{name}.py,sha256=x,1\n{name}.pyc,,\n")
    if files:
        (site / f"{name}.py").write_text("")


def test_missing_and_half_installed_packages_are_named(here):
    put(here, "Good_One")
    assert environment.missing(["good-one"]) is None
    assert environment.missing(["good-one", "torch"]) == "torch is missing"
    put(here, "cut", record=False)
    assert environment.missing([]) == "cut is half installed"
    shutil.rmtree(here / "lib" / "python3.11" / "site-packages" / "cut-1.0.dist-info")
    put(here, "bad", files=False)
    assert environment.missing([]) == "bad lacks bad.py"


def test_an_empty_mark_made_by_hand_counts_by_its_date(here):
    environment.READY.write_text("")
    assert environment.trouble() is None and environment.outdated() is None
    os.utime(environment.READY, (0, 0))
    assert environment.trouble() is None and environment.outdated() == "requirements.txt is newer"


def test_an_environment_whose_python_is_gone_is_no_good(here, monkeypatch):
    environment.READY.write_text(json.dumps({"lock": environment.lock(), "packages": []}))
    assert environment.trouble() is None
    monkeypatch.setattr(environment, "PYTHON", here / "bin" / "python")
    assert environment.trouble() == "its Python does not start"


# --- which builds of torch -----------------------------------------------------------


@pytest.mark.parametrize(
    ("torch", "system", "programs", "address", "builds", "why"),
    [
        ("auto", "linux", ["uv"], "", "cpu", "no NVIDIA GPU"),
        ("auto", "linux", [], "http://mirror.example", "cpu", "no NVIDIA GPU"),
        ("auto", "linux", [], "", "lock", "no NVIDIA GPU here, but leaving them out needs uv, or LWL_CPU_INDEX"),
        ("auto", "linux", ["uv", "nvidia-smi"], "", "lock", "for the NVIDIA GPU"),
        ("auto", "linux", ["uv", "sbatch"], "", "lock", "cluster"),
        ("auto", "darwin", ["uv"], "", "lock", "no CUDA libraries here"),
        ("auto", "win32", ["uv", "nvidia-smi"], "", "lock", "no CUDA libraries here"),
        ("cpu", "linux", ["uv", "nvidia-smi"], "", "cpu", "TORCH=cpu"),
        (
            "cpu",
            "linux",
            ["nvidia-smi"],
            "",
            "lock",
            "TORCH=cpu says not to, but leaving them out needs uv, or LWL_CPU_INDEX",
        ),
        ("lock", "linux", ["uv"], "", "lock", "TORCH=lock"),
    ],
)
def test_cuda_libraries_are_left_out_only_where_that_is_safe(
    monkeypatch, torch, system, programs, address, builds, why
):
    exists = os.path.exists
    monkeypatch.setattr(environment.sys, "platform", system)
    monkeypatch.setattr(environment.shutil, "which", lambda name: name if name in programs else None)
    monkeypatch.setattr(environment.os.path, "exists", lambda path: "nvidia" not in str(path) and exists(path))
    monkeypatch.setattr(environment, "CPU_INDEX", address)
    chosen, reason = environment.choose(torch)
    assert chosen == builds and why in reason


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def index(tmp_path):
    """The address of an index of packages, and its folder."""
    folder = tmp_path / "index"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    server.server_close()
    thread.join()


UV = """#!{python}
# A uv that has pip do it, and knows an index of builds without CUDA.
import subprocess, sys
_, _, _, quiet, _, python, *rest = sys.argv
if rest[:2] == ["--torch-backend", "cpu"]:
    rest[:2] = ["--find-links", {torch!r}, "--find-links", {vision!r}]
sys.exit(subprocess.call([python, "-m", "pip", "install", quiet, "--no-index", *rest]))
"""


@pytest.mark.parametrize("tool", ["pip", "uv"])
@pytest.mark.parametrize("works", [True, False])
def test_without_cuda_both_come_from_pytorchs_index_or_else_the_whole_lock_is_taken(clone, index, works, tool):
    address, folder = index
    torch, vision = environment.pins()
    broken = "" if works else "raise RuntimeError('operator torchvision::nms does not exist')"
    make_wheel(folder / "torch", "torch", f"{torch.partition('==')[2]}+cpu")
    make_wheel(folder / "torchvision", "torchvision", f"{vision.partition('==')[2]}+cpu", broken)
    make_wheel(clone, "cuda", "1.0")
    cpu = [torch, vision, "./toy-1.0-py3-none-any.whl"]
    (clone / "requirements-cpu.txt").write_text("\n".join(cpu))
    (clone / "requirements.txt").write_text("\n".join([*cpu, "./cuda-1.0-py3-none-any.whl"]))
    elsewhere = f"{folder / 'torch'} {folder / 'torchvision'}"  # where the whole lock finds them
    more = {"LWL_CPU_INDEX": address}
    if tool == "uv":
        uv = clone / "tools" / "uv"
        uv.parent.mkdir()
        uv.write_text(UV.format(python=BIN / "python", torch=str(folder / "torch"), vision=str(folder / "torchvision")))
        uv.chmod(0o755)
        more = {"PATH": f"{uv.parent}:/usr/bin:/bin"}
    status, said = set_up(clone, "--torch", "cpu", PIP_FIND_LINKS=elsewhere, **more)
    assert status == 0, said
    facts = json.loads((clone / ".venv" / ".ready").read_text())
    assert (facts["torch"], "cuda" in facts["packages"]) == (("cpu", False) if works else ("lock", True))
    assert ("That did not work" in said) == (not works)
    assert {"torch", "torchvision", "toy"} <= set(facts["packages"])


def test_the_lock_without_cuda_is_the_lock_without_cuda():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    kept = [line for line in lines if not re.match(r"(nvidia-|cuda-|triton)", line)]
    assert (ROOT / "requirements-cpu.txt").read_text().splitlines() == kept
    assert len(kept) < len(lines) - 10

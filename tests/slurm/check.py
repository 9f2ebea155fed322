"""Eight small runs of chapter 1 through SLURM, with an engine and a node killed meanwhile.

``python tests/slurm/check.py`` copies the project, makes an environment with Snakemake's
SLURM plugin beside the project's own, brings up a cluster on this machine, and runs the
same sweep here and there. Every number and array must be the same, bit for bit.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import psutil
from loopback import Cluster

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "_build" / "slurm"
PROJECT = WORK / "project"
LOG = WORK / "sweep.log"
GRID = {"sigma": "0.1,0.3", "latent_dim": "3,4"}
SEEDS = "0 1"
# Quicker than a real cluster would like to be asked.
HASTE = ["--slurm-init-seconds-before-status-checks", "3", "--seconds-between-status-checks", "3"]
HASTE += ["--latency-wait", "30"]
STARTED = time.monotonic()


def say(text: str) -> None:
    print(f"{time.monotonic() - STARTED:5.0f} s  {text}", flush=True)


def copy_project() -> None:
    """What runs need, in a folder of their own, so that no build of yours is touched."""
    shutil.rmtree(PROJECT, ignore_errors=True)
    PROJECT.mkdir(parents=True)
    for name in ("Snakefile", "requirements.txt", "_toc.yml", "_config.yml"):
        shutil.copy(ROOT / name, PROJECT)
    for name in ("lib", "book", "profiles", "published"):
        shutil.copytree(ROOT / name, PROJECT / name, ignore=shutil.ignore_patterns("__pycache__"))


def make_environment() -> Path:
    """The Python of an environment that has the plugin, and all else from this one."""
    place = WORK / "environment"
    python = place / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        (site,) = place.glob("lib/*/site-packages")
        ours = [path for path in sys.path if path.endswith("site-packages")]
        (site / "book.pth").write_text("\n".join(ours) + "\n", encoding="utf-8")
    with (ROOT / "pyproject.toml").open("rb") as file:
        wanted = tomllib.load(file)["project"]["optional-dependencies"]["slurm"]
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, *wanted], check=True)
    return python


def command(python: Path, name: str, *more: str) -> list[str]:
    tiny = nbformat.read(ROOT / "book" / "01_autoencoders.ipynb", 4).metadata["tiny"]
    values = {key: json.dumps(value).replace(" ", "") for key, value in tiny.items()} | GRID
    grid = " ".join(f"{key}={value}" for key, value in values.items())
    asked = ["--chapter", "01", "--set", grid, "--seeds", SEEDS, *more]
    return [str(python), "-m", "lib.site.sweep", name, *asked]


def environment(base: dict[str, str]) -> dict[str, str]:
    kept = {key: value for key, value in base.items() if not key.startswith(("GIT_", "LWL_"))}
    return {**kept, "PYTHONPATH": str(PROJECT), "PYTHONDONTWRITEBYTECODE": "1"}


def results(name: str) -> dict[str, Path]:
    folder = PROJECT / "_build" / "sweeps" / name
    return {path.relative_to(folder).as_posix(): path for path in folder.glob("*/seed-*.json")}


def wait(process: subprocess.Popen, done: Callable[[], bool], what: str) -> None:
    """Until something is so, while the sweep is at work."""
    while not done():
        if process.poll() is not None:
            raise SystemExit(f"The sweep ended (status {process.returncode}) before {what}.")
        time.sleep(0.5)
    say(what)


def on_second_node(cluster: Cluster) -> bool:
    return any(state == "RUNNING" and node == "n2" for _, state, node in cluster.jobs())


@contextmanager
def sweeping(python: Path, cluster: Cluster) -> Iterator[subprocess.Popen]:
    """The sweep at work on the cluster; ended, if the check fails meanwhile."""
    asked = command(python, "cluster", "--on", "slurm", "--", *HASTE)
    with LOG.open("wb") as log:
        own = {"cwd": PROJECT, "env": environment(cluster.environment), "stderr": log}
        engine = subprocess.Popen(asked, **own)
        try:
            yield engine
        finally:
            engine.kill()
            engine.wait()


def noted() -> int:
    """How many runs Snakemake knows to be done."""
    counts = re.findall(r"^(\d+) of \d+ runs done", LOG.read_text(encoding="utf-8"), re.M)
    return int(counts[-1]) if counts else 0


def through_slurm(python: Path, cluster: Cluster) -> None:
    with sweeping(python, cluster) as engine:
        wait(engine, lambda: noted() >= 2, "two runs done; the engine is killed")
    known = noted()
    before = {name: path.stat().st_mtime_ns for name, path in results("cluster").items()}
    left = {job for job, *_ in cluster.jobs()}
    assert left, "jobs on a cluster outlive the engine that sent them"

    with sweeping(python, cluster) as engine:
        wait(engine, lambda: noted() >= 4, "four runs done")
        now = {job for job, *_ in cluster.jobs()}
        assert not now & left, "jobs of the killed engine are still there"
        wait(engine, lambda: on_second_node(cluster), "a run is on node n2, which is killed")
        assert cluster.kill("n2") > 1, "a node dies with what it runs"
        status = engine.wait()
    assert status == 0, f"the sweep ended with status {status}"
    assert cluster.state()["n2"].startswith("down"), cluster.state()
    after = {name: path.stat().st_mtime_ns for name, path in results("cluster").items()}
    again = [name for name, written in before.items() if after[name] != written]
    # Those that ended after Snakemake's last look at the queue: it cannot know what they were made with.
    assert len(again) <= len(before) - known, f"measured twice: {again}"
    say(f"measured twice: {len(again)} of {len(before)}, of which Snakemake knew {known}")
    assert not cluster.jobs(), "jobs are left"
    say("all runs done, on the node that is left")


def compare() -> None:
    """Numbers as written, arrays by the digest that stands beside them."""
    ours, theirs = results("local"), results("cluster")
    assert ours.keys() == theirs.keys() and len(ours) == 8, (sorted(ours), sorted(theirs))
    count = 0
    for name in ours:
        one, other = (json.loads(found[name].read_text(encoding="utf-8")) for found in (ours, theirs))
        assert one["numbers"] == other["numbers"], f"{name}: numbers differ"
        assert one["arrays"] == other["arrays"], f"{name}: arrays differ"
        count += len(one["numbers"])
    say(f"{count} numbers of {len(ours)} runs, and all arrays, are the same bit for bit")


def main() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    copy_project()
    python = make_environment()
    say("the project is copied, and an environment has the plugin")
    with Cluster(WORK / "cluster") as cluster:
        say(f"the cluster is up: {cluster.state()}")
        through_slurm(python, cluster)
    subprocess.run(command(python, "local"), cwd=PROJECT, env=environment(dict(os.environ)), check=True)
    say("the same runs without a cluster")
    compare()
    alive = [p for p in psutil.process_iter(["cmdline"]) if str(PROJECT) in " ".join(p.info["cmdline"] or [])]
    assert not alive, f"still running: {alive}"
    say("nothing is left running")


if __name__ == "__main__":
    main()

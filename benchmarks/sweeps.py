"""What many runs cost: ``python benchmarks/sweeps.py OUT.csv`` (six minutes on two quiet cores).

Measures, with seconds by the clock and seconds of a core: what a run costs before it measures anything (papermill,
kernel, imports), one demo run of chapter 1, twelve of them, both as a sweep. Their ratio says what Snakemake and
runs beside each other cost; the first figure, what a process shared by runs could save at most. The load before each
measurement stands beside it: seconds by the clock mean little on a busy machine, seconds of a core still do.
"""

import argparse
import csv
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

ROOT = Path(__file__).resolve().parents[1]
NAME = "benchmark"
OPENING = """\
import torch
import matplotlib.pyplot
from sklearn.decomposition import PCA

from lib import data, evaluate, gan, latent, nets, optim, train, vae
from lib.report import chapter, explorer, player, plots"""


def measured(what: str, runs: int, command: list[str]) -> dict[str, object]:
    """Time a command and all it starts."""
    load, started = os.getloadavg()[0], time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    core = sum(getattr(after, kind) - getattr(before, kind) for kind in ("ru_utime", "ru_stime"))
    return {
        "what": what,
        "runs": runs,
        "cores": len(os.sched_getaffinity(0)),
        "seconds": round(time.perf_counter() - started, 1),
        "core_seconds": round(core, 1),
        "load_before": round(load, 1),
    }


def start_up(folder: Path) -> list[str]:
    """A notebook that only imports what chapter 1 does, by papermill."""
    kernel = nbformat.read(ROOT / "book" / "01_autoencoders.ipynb", 4).metadata.kernelspec
    page = new_notebook(cells=[new_code_cell(OPENING)], metadata={"kernelspec": kernel})
    nbformat.write(page, folder / "page.ipynb")
    out = str(folder / "out.ipynb")
    return [sys.executable, "-m", "papermill", "--no-progress-bar", str(folder / "page.ipynb"), out]


def sweep(seeds: int, more: str) -> list[str]:
    shutil.rmtree(ROOT / "_build" / "sweeps" / NAME, ignore_errors=True)
    asked = ["--set", f"sigma=0.3 {more}".strip(), "--seeds", " ".join(map(str, range(seeds)))]
    return [sys.executable, "-m", "lib.site.sweep", NAME, "--chapter", "01", *asked]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--set", default="", help="makes runs smaller")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [measured("start-up", 1, start_up(Path(folder)))]
    rows += [measured("sweep", runs, sweep(runs, options.set)) for runs in (1, 12)]
    with options.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    one, twelve = rows[1], rows[2]
    for kind in ("seconds", "core_seconds"):
        print(f"twelve runs take {twelve[kind] / one[kind]:.2f} times the {kind} of one")


if __name__ == "__main__":
    main()

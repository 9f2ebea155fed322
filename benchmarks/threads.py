"""Beside another process that keeps two torch threads busy: how much longer does the same work take?

With several threads in either process, those that wait spin and take the core from those that work. Runs have one
thread by default for this reason.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOAD = "import torch; torch.set_num_threads(2); a = torch.rand(700, 700)\nwhile True: a = (a @ a).sigmoid()"
STEPS = 60


def work() -> float:
    """Seconds of so many steps of report 004's VAE, after a few that warm up."""
    import torch

    from benchmarks import likelihood
    from lib import train
    from lib.likelihood import binarise, elbo_loss

    torch.manual_seed(0)
    model = likelihood.report_vae()
    step = likelihood.with_adam(model, lambda x: elbo_loss(model, binarise(x)))
    images = torch.randint(256, (6400, 1, 28, 28), dtype=torch.uint8)
    batches = train.Batches(images, batch_size=64)
    train.fit(step, batches, 5)
    start = time.perf_counter()
    train.fit(step, batches, STEPS)
    return time.perf_counter() - start


def timed(threads: int) -> float:
    env = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
    code = "from benchmarks.threads import work; print(work())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def measure() -> list[dict[str, Any]]:
    """Alone and beside the load, with one thread and with two; medians of three."""
    rows = []
    for threads in (1, 2):
        alone = sorted(timed(threads) for _ in range(3))[1]
        load = subprocess.Popen([sys.executable, "-c", LOAD], env=os.environ | {"OMP_NUM_THREADS": "2"})
        try:
            time.sleep(2)
            beside = sorted(timed(threads) for _ in range(3))[1]
        finally:
            load.kill()
            load.wait()
        rows.append({"threads": threads, "alone": round(alone, 2), "beside": round(beside, 2)})
        print(f"{threads} threads: {alone:.1f} s alone, {beside:.1f} s beside another load", flush=True)
    return rows


if __name__ == "__main__":
    print(json.dumps(measure()))

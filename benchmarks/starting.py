"""How long until something is to be seen: imports, telling a chapter, the pages when nothing has changed."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
KERNEL = """
import time; start = time.perf_counter()
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name="python3")
client.execute_interactive("from lib import data, evaluate, nets, optim, train", timeout=120)
client.execute_interactive("from lib.report import chapter, explorer, plots", timeout=120)
print(time.perf_counter() - start)
client.stop_channels(); manager.shutdown_kernel(now=True)
"""
IMPORT = """
import time; start = time.perf_counter()
import lib.report.chapter, lib.report.explorer, lib.report.plots
import sys; assert "torch" not in sys.modules
print(time.perf_counter() - start)
"""


def inside(code: str) -> float:
    """Seconds that the code prints last."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def command(arguments: Sequence[str]) -> float:
    start = time.perf_counter()
    subprocess.run(arguments, cwd=ROOT, capture_output=True, check=True)
    return time.perf_counter() - start


def measure() -> list[dict[str, Any]]:
    (ROOT / "_build" / "bench").mkdir(parents=True, exist_ok=True)
    told = ["-m", "lib.site.tell", "01_autoencoders", "--profile", "demo", "--out", "_build/bench/told.ipynb"]
    found = {
        "a kernel, and a chapter's imports": (min(inside(KERNEL) for _ in range(3)), 4),
        "what telling imports, without torch": (min(inside(IMPORT) for _ in range(3)), 1),
        "telling chapter 1": (min(command([sys.executable, *told]) for _ in range(2)), 15),
    }
    # The book has a page that shows this report, and cannot be made before there is one.
    if (ROOT / "_build" / "html" / "index.html").is_file() and (ROOT / "published" / "speed" / "speed.json").is_file():
        command(["make", "html"])
        found["the pages, nothing changed"] = command(["make", "html"]), 6
    return [{"name": name, "seconds": round(took, 2), "bar": bar} for name, (took, bar) in found.items()]

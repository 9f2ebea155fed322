"""How fast is each chapter's work? ``make bench``

Every chapter's training step, and the evaluations that take longest, against the limit (the same step on one fixed
batch), the tutorial's loop (a DataLoader over torchvision's transforms, ``loss.item()`` at each step, single
precision) and, where there is one, a peer (pythae, lightly). Each chapter runs in a process of its own, with one
thread, as the book's runs do. Writes JSON, which the book's page on speed shows.
"""

import argparse
import datetime
import importlib
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = ["autoencoders", "autodecoders", "likelihood", "wgan", "simsiam", "unmixing"]
WITH_PEERS = {"autoencoders", "simsiam"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("chapters", nargs="*", help=f"of {', '.join(CHAPTERS)}; by default all, and the rest as well")
    parser.add_argument("--turns", type=int, default=7, help="of each way, alternating; the median counts")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cpu-clock", action="store_true", help="processor time, on a machine with other work")
    parser.add_argument("--no-peers", action="store_true", help="do not install other libraries")
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "bench" / "speed.json")
    parser.add_argument("--child", choices=CHAPTERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.turns < 2 or options.threads < 1:
        parser.error(f"--turns {options.turns} --threads {options.threads}: at least 2 turns and 1 thread.")
    if unknown := set(options.chapters) - set(CHAPTERS):
        parser.error(f"{', '.join(sorted(unknown))}: choose of {', '.join(CHAPTERS)}.")
    if options.child:
        print(json.dumps(child(options)))
        return
    report = about(options) | {"chapters": {}}
    if not options.chapters:
        from benchmarks import growth, starting, threads

        # First what is quick: a failure after ten minutes would cost them all.
        report |= {"starting": starting.measure(), "threads_beside": threads.measure(), "growth": growth.measure()}
    for name in options.chapters or CHAPTERS:
        report["chapters"][name] = found = run(name, options)
        for case in found["cases"]:
            tell(case)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(options.out)


def run(name: str, options: argparse.Namespace) -> dict:
    from benchmarks import peers

    path = [str(ROOT)]
    if name in WITH_PEERS and not options.no_peers:
        path.append(peers.install())
    env = os.environ | {"OMP_NUM_THREADS": str(options.threads), "PYTHONPATH": os.pathsep.join(path)}
    arguments = ["--child", name, "--turns", str(options.turns), "--threads", str(options.threads)]
    arguments += ["--cpu-clock"] * options.cpu_clock
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        sys.exit(f"benchmarks/{name}.py ended with {done.returncode}.")
    return json.loads(done.stdout.splitlines()[-1])


def child(options: argparse.Namespace) -> dict:
    import torch

    from benchmarks import harness

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    clock = time.process_time if options.cpu_clock else time.perf_counter
    cases = importlib.import_module(f"benchmarks.{options.child}").cases()
    found = [harness.measure(case, options.turns, clock) for case in cases]
    return {"cases": found, "peak_memory_gb": round(harness.peak_memory(), 2)}


def tell(case: dict) -> None:
    ours = case["milliseconds"]["ours"][0]
    print(f"{case['name']}: {ours:.1f} ms a {case['unit']}, {case['images_per_second']:,.0f} images a second")
    for name, (ratio, low, high) in case["times_as_long"].items():
        bar = case["bars"].get(name)
        verdict = "" if bar is None else f" (at least {bar:g}{'' if ratio >= bar else ': MISSED'})"
        print(f"    {name}: {ratio:.2f} times as long, quartiles {low:.2f} and {high:.2f}{verdict}", flush=True)


def about(options: argparse.Namespace) -> dict:
    import torch

    from lib import commits
    from lib.report import chapter

    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "date": datetime.date.today().isoformat(),
        "commit": commits.head(ROOT),
        "processor": chapter.processor(),
        "cores": os.cpu_count(),
        "load_before": load,
        "threads": options.threads,
        "turns": options.turns,
        "clock": "processor" if options.cpu_clock else "wall",
        "system": f"{platform.system()} {platform.machine()}",
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    main()

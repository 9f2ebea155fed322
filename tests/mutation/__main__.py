"""How many planted bugs do the tests see? ``make mutants FILES="lib/vae.py lib/gan.py" N=50``

Each bug is planted in a copy of the project, and the tests of the module run in a forked process that has torch and
all else imported already, so that a bug costs only the tests' own time. A bug that no test sees is printed.
"""

import argparse
import ast
import importlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EQUIVALENT = Path(__file__).with_name("equivalent.json")
OURS = ("lib", "tests", "test_", "conftest", "tiny", "toys", "operators", "chapter_cells", "__")
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

from operators import Mutant, mutants, of_snakefile  # noqa: E402 — after the threads are set


def main() -> None:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("files", nargs="*", help="files of lib, or the Snakefile; by default all of lib")
    parser.add_argument("--since", help="a commit: only files that have changed since")
    parser.add_argument("--sample", type=int, help="so many bugs, drawn from all files; by default all bugs")
    parser.add_argument("--seed", type=int, default=0, help="draws them")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--wide", action="store_true", help="tests of the modules that import one run after its own")
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "mutants.json")
    options = parser.parse_args()
    files = options.files or sorted(str(path.relative_to(ROOT)) for path in (ROOT / "lib").rglob("*.py"))
    if options.since:
        changed = listed("diff", "--name-only", "--diff-filter=AM", "-z", options.since)
        files = [file for file in [*files, "Snakefile"] if file in changed]
    known = {(entry["file"], entry["was"], entry["planted"]) for entry in json.loads(EQUIVALENT.read_text())}
    pool = [(file, bug) for file in files for bug in bugs_of(file)]
    pool = [(file, bug) for file, bug in pool if (file, bug.was, bug.text) not in known]
    if options.sample and options.sample < len(pool):
        pool = sorted(random.Random(options.seed).sample(pool, options.sample), key=lambda it: (it[0], it[1].start))
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        report = try_all(pool, copy_project(Path(scratch) / "project"), options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{report['killed']} of {report['tried']} seen: {report['score']:.0%}. {options.out}")


def bugs_of(file: str) -> list[Mutant]:
    source = (ROOT / file).read_text(encoding="utf-8")
    return of_snakefile(source) if file == "Snakefile" else mutants(source)


def listed(*arguments: str) -> list[str]:
    """Paths that git lists."""
    text = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True, encoding="utf-8").stdout
    return [name for name in text.split("\0") if name]


def try_all(pool: list[tuple[str, Mutant]], project: Path, options: argparse.Namespace) -> dict:
    start, told = time.monotonic(), {}
    for file in dict.fromkeys(file for file, _ in pool):
        tests = tests_of(file, options.wide)
        if not tests or time.monotonic() - start > 60 * options.minutes:
            continue
        code, seconds = run(project, tests, 900)
        if code:
            sys.exit(f"{' '.join(tests)}: they fail without a planted bug, too. See {project.parent / 'log'}")
        told[file] = {"killed": 0, "survived": []}
        source = (ROOT / file).read_text(encoding="utf-8")
        for bug in (bug for name, bug in pool if name == file):
            if time.monotonic() - start > 60 * options.minutes:
                break
            (project / file).write_text(bug.planted(source), encoding="utf-8")
            if run(project, tests, 10 + 5 * seconds)[0]:
                told[file]["killed"] += 1
                continue
            told[file]["survived"].append({"line": bug.line, "was": bug.was, "planted": bug.text})
            print(f"{file}:{bug.line}: {bug.was}  ->  {bug.text}", flush=True)
        (project / file).write_text(source, encoding="utf-8")
    killed = sum(entry["killed"] for entry in told.values())
    tried = killed + sum(len(entry["survived"]) for entry in told.values())
    return {"seed": options.seed, "tried": tried, "killed": killed, "score": killed / max(tried, 1), "files": told}


def tests_of(file: str, wide: bool) -> list[str]:
    """The module's own tests; where it has none, or ``wide``, those that import it as well."""
    own = ROOT / "tests" / f"test_{Path(file).stem.lower()}.py"
    module = file.removesuffix(".py").replace("/", ".")
    using = [path for path in sorted((ROOT / "tests").glob("test_*.py")) if path != own and module in imports(path)]
    found = [own] * own.exists() + using * (wide or not own.exists())
    return [str(path.relative_to(ROOT)) for path in found]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return found


def copy_project(project: Path) -> Path:
    for name in listed("ls-files", "-z", "--cached", "--others", "--exclude-standard"):
        if (ROOT / name).is_file():
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, project / name)
    return project


def run(project: Path, tests: list[str], limit: float) -> tuple[int, float]:
    """Exit status of the tests in a forked process, 0 where all pass; the processor's seconds they took.

    ``limit`` counts the processor's seconds, and a tenth as many as may pass on the clock where others compute, too.
    """
    log, before = project.parent / "log", resource.getrusage(resource.RUSAGE_CHILDREN)
    child = os.fork()
    if child == 0:
        os._exit(in_child(project, tests, limit, log))
    deadline = time.monotonic() + 10 * limit
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            ended = os.waitpid(child, 0)
            break
        time.sleep(0.02)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    preload(project.parent / "modules")
    return ended[1], after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def in_child(project: Path, tests: list[str], limit: float, log: Path) -> int:
    os.setpgid(0, 0)
    resource.setrlimit(resource.RLIMIT_CPU, (int(limit) + 1, int(limit) + 2))
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(project)
    os.environ |= {"PYTHONPATH": str(project), "PYTHONDONTWRITEBYTECODE": "1"}
    sys.dont_write_bytecode = True
    sys.path[0] = str(project)
    import pytest

    try:
        code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]))
        names = [name for name in sys.modules if not name.startswith(OURS)]
        (project.parent / "modules").write_text("\n".join(names))
        return code
    except BaseException:  # noqa: BLE001 — whatever a planted bug does, it was seen
        return 1


def preload(listing: Path) -> None:
    """Import what the tests imported, but nothing of the project: the next process need not."""
    for name in listing.read_text().split("\n") if listing.exists() else []:
        if name not in sys.modules:
            try:
                importlib.import_module(name)
            except Exception:  # noqa: BLE001 — a module that exists under another's care only
                continue


if __name__ == "__main__":
    main()

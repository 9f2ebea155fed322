"""A copy of the project with toy chapters that measure and tell in no time, without torch."""

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from lib.files import ROOT

# A way to this environment without spaces, whatever the folder of the clone is called: make and #! split words
# at them.
VENV = Path(tempfile.mkdtemp(prefix="lwl-venv-")) / "venv"
VENV.symlink_to(Path(sys.executable).parent.parent)
BIN = VENV / "bin"
atexit.register(shutil.rmtree, VENV.parent, ignore_errors=True)

PARAMETERS = """\
from lib.report.parameters import Count, Rate, Seed

level: Count = 1  # of it
rate: Rate = 0.5  # of change
seed: Seed = 0  # where random numbers start"""

OPENING = """\
from lib.report import chapter
from lib.report.chapter import say

run = chapter.start("{name}", globals())"""

MEASURING = """\
from lib import toy

run.results.record("height", toy.height(level) + 0.25 * seed, unit="m", better="high")
run.results.keep("walk", [[1, 2], [3, 4]])"""

# What Run.finish writes, without torch, which takes seconds to load.
FINISH = """\
import os
from pathlib import Path

facts = {
    "chapter": run.name, "profile": os.environ.get("LWL_PROFILE", "own"),
    "parameters": run.parameters, "date": "2026-01-02",
    "commit": run._commit, "code": run._code, "device": "A processor", "threads": 1,
    "system": "Linux x86_64", "python": "3.11.7", "versions": {"numpy": "2.0"},
    "seconds": 200.0, "peak_memory_gb": 0.5,
}
run.results.save(Path(os.environ["LWL_RESULTS"]), facts)"""

TELLING = """\
height = run.results["height"]
say("It is {height} high.", height=height)"""

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


def write_chapter(project, name, measuring=MEASURING, telling=TELLING, prose="Prose.", parameters=PARAMETERS):
    cells = [
        new_markdown_cell(f"# Chapter {name}", id="title"),
        new_code_cell(parameters, id="parameters", metadata={"tags": ["parameters"]}),
        new_code_cell(OPENING.format(name=name), id="opening"),
        new_markdown_cell(prose, id="prose"),
        new_code_cell(measuring, id="measuring", metadata={"tags": ["measure"]}),
        new_code_cell(FINISH, id="finish", metadata={"tags": ["measure", "remove-cell"]}),
        new_code_cell(telling, id="telling"),
    ]
    nbformat.write(new_notebook(cells=cells, metadata=KERNEL), project / "book" / f"{name}.ipynb")


def write_toc(project, *names):
    lines = ["format: jb-book", "root: book/intro", "chapters:", *(f"- file: book/{name}" for name in names)]
    (project / "_toc.yml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def make_project(folder, *names):
    """A project of toy chapters, with this one's engine and what of lib makes pages."""
    (folder / "book" / "profiles").mkdir(parents=True)
    for name in ("Snakefile", "requirements.txt", "_config.yml"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "profiles", folder / "profiles")
    for name in ("report", "site"):
        shutil.copytree(ROOT / "lib" / name, folder / "lib" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("__init__", "code", "commits", "files"):
        shutil.copy(ROOT / "lib" / f"{name}.py", folder / "lib")
    (folder / "lib" / "toy.py").write_text("def height(level):\n    return 2.0 * level\n", encoding="utf-8")
    (folder / "lib" / "wgan.py").write_text('"""What no toy uses."""\n', encoding="utf-8")
    shutil.copy(ROOT / "book" / "references.bib", folder / "book")
    shutil.copytree(ROOT / "book" / "images", folder / "book" / "images")
    (folder / "book" / "intro.md").write_text("# Intro\n\nSome text.\n", encoding="utf-8")
    write_profile(folder, **dict.fromkeys(names, "{level: 3}"))
    write_toc(folder, *names)
    for name in names:
        write_chapter(folder, name)
    return folder


def write_profile(project, **blocks):
    text = "".join(f"{name}: {block}\n" for name, block in blocks.items())
    (project / "book" / "profiles" / "laptop.yaml").write_text(text, encoding="utf-8")


def environment(project, **more):
    """Nothing of the caller's repository or settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "LWL_"))}
    return {**kept, "PYTHONPATH": str(project), **more}


def snake(project, *arguments, fails=False, **variables):
    """What Snakemake says; what it would do is all that make asks of it."""
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--rerun-triggers", "params", "mtime", "input"]
    command += ["--max-checksum-file-size", "100MB"]
    result = subprocess.run(
        [*command, *arguments],
        cwd=project,
        env=environment(project, **variables),
        capture_output=True,
        encoding="utf-8",
        timeout=1200,  # that of a machine with much else to do
    )
    said = result.stdout + result.stderr  # a dry run's plan goes to the one, all else to the other
    assert (result.returncode != 0) == fails, said
    return said


def site(project, module, *arguments, fails=False):
    """What a command of lib.site prints, run in the project."""
    result = subprocess.run(
        [sys.executable, "-m", f"lib.site.{module}", *arguments],
        cwd=project,
        env=environment(project),
        capture_output=True,
        encoding="utf-8",
    )
    assert (result.returncode != 0) == fails, result.stdout + result.stderr
    return result.stdout + result.stderr


def git(project, *arguments):
    identity = {f"GIT_{who}_{what}": "me@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    identity |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    return subprocess.run(
        ["git", *arguments],
        cwd=project,
        env=environment(project, **identity),
        capture_output=True,
        encoding="utf-8",
        check=True,
    ).stdout.strip()


def commit_all(project):
    """The project's commit, with everything in it."""
    if not (project / ".git").exists():
        git(project, "init", "--quiet")
        (project / ".gitignore").write_text("_build/\n.snakemake/\n__pycache__/\n", encoding="utf-8")
    git(project, "add", ".")
    git(project, "commit", "--quiet", "--allow-empty", "-m", "All")
    return git(project, "rev-parse", "--short=10", "HEAD")


def write_results(path, seed=0, height=2.0, **facts):
    """A run's results, as a toy chapter would leave them."""
    from lib.report.results import Results

    results = Results()
    results.record("height", height, unit="m", better="high")
    results.keep("walk", [[1, 2], [3, 4]])
    results.keep("curve", [0.5, height], each_run=True)
    results.save(path, {**FACTS, "parameters": {"level": 3, "rate": 0.5, "seed": seed}, **facts})
    return path


FACTS = {
    "chapter": "01_a",
    "profile": "laptop",
    "data": {"title": "toy data", "training_images": 5, "test_images": 1, "sha256": "0123456789abcdef"},
    "date": "2026-01-02",
    "commit": "abcdef0123",
    "code": {"cells": "0" * 16},
    "device": "A processor",
    "threads": 1,
    "system": "Linux x86_64",
    "python": "3.11.7",
    "versions": {"numpy": "2.0"},
    "seconds": 200.0,
    "peak_memory_gb": 0.5,
}


def text_of(notebook):
    """All outputs of a notebook as text."""
    return "\n".join(json.dumps(cell.get("outputs", []), ensure_ascii=False) for cell in notebook.cells)

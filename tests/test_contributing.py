"""CONTRIBUTING.md, followed to the letter in a copy of the project: the seventh chapter runs and is told."""

import json
import re
import shlex
import shutil
import subprocess
import sys

import nbformat
import pytest
from toys import BIN, environment

from lib.files import ROOT
from lib.site import contents

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
STEPS = [
    "\n".join(line.strip() for line in block.splitlines())
    for block in re.findall(r"^   ```bash\n(.*?)^   ```$", TEXT, re.M | re.S)
]
NAME = "07_neighbours"


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The project, with what its first step adds."""
    folder = tmp_path_factory.mktemp("seventh") / "a copy"
    ignored = shutil.ignore_patterns("_build", ".venv", ".git", ".snakemake", "data", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, folder, ignore=ignored)
    before = set(contents_of(folder))
    subprocess.run(["bash", "-ec", STEPS[0]], cwd=folder, env=environment(folder), check=True)
    added = {name for name, content in contents_of(folder).items() if content != contents_of(ROOT).get(name)}
    return folder, before, added


def contents_of(folder):
    names = ("book", "lib", "tests", "_toc.yml")
    paths = [path for name in names for path in (folder / name, *(folder / name).glob("**/*")) if path.is_file()]
    found = {path.relative_to(folder).as_posix(): path for path in paths if "__pycache__" not in path.parts}
    return {name: path.read_bytes() for name, path in found.items() if ".ipynb_checkpoints" not in name}


def run(folder, *command, **variables):
    kept = environment(folder, OMP_NUM_THREADS="1", **variables)
    result = subprocess.run(command, cwd=folder, env=kept, capture_output=True, encoding="utf-8")
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_table_lists_what_is_touched_and_nothing_else_is(copy):
    _, before, added = copy
    listed = re.findall(r"^\| `(.*?)` \|", TEXT, re.M)
    profiles = {name for name in before if name.startswith("book/profiles/")}
    assert added == {*profiles, *(name for name in listed if "*" not in name)}
    assert [name for name in listed if "*" in name] == ["book/profiles/*.yaml"]


def test_the_book_then_has_seven_chapters_with_parameters_in_every_profile(copy):
    folder, *_ = copy
    assert contents.chapters(folder) == [*contents.chapters(), NAME]
    for profile in (folder / "book" / "profiles").glob("*.yaml"):
        assert contents.effective(NAME, profile.stem, folder)["dataset"] == "mnist"


def test_the_seventh_chapter_measures_tells_and_passes_its_tests(copy, tmp_path):
    folder, *_ = copy
    run(folder, sys.executable, "-m", "pytest", "-n", "0", "tests/test_neighbours.py")
    notebook = folder / "book" / f"{NAME}.ipynb"
    results = tmp_path / "seed-0.json"
    tiny = json.dumps(contents.notebook(NAME, folder).metadata["tiny"])
    papermill = [sys.executable, "-m", "papermill", "--no-progress-bar", str(notebook), str(tmp_path / "out.ipynb")]
    run(folder, *papermill, "-y", tiny, LWL_RESULTS=str(results))
    out = tmp_path / "told.ipynb"
    run(folder, sys.executable, "-m", "lib.site.tell", "07", "--out", str(out), "--results", str(results))
    told = nbformat.read(out, 4)
    text = "\n".join(cell.source for cell in told.cells)
    assert "What we find" in text and "{eval}" not in text
    ids = [cell.id for cell in told.cells]
    assert ids[:4] == ["title", "fig-predictions", "finding", "explore-smoothed"]
    assert contents.records(told)["claims"][0]["outcome"] in ("holds", "fails", "cannot be told")


def test_the_other_steps_are_commands_that_there_are(copy):
    folder, *_ = copy
    commands = [line for step in STEPS[1:] for line in step.splitlines()]
    assert commands[0] == "make chapter CHAPTER=07" and commands[-1] == "make book"
    for line in commands:
        words = shlex.split(line)
        if words[0] == "make":
            venv = f"BIN={BIN}"
            run(folder, "make", "--dry-run", "--assume-old=.venv/.ready", venv, *words[1:])
        else:
            assert words[:3] == [".venv/bin/python", "-m", "pytest"]
            collected = run(folder, sys.executable, *words[1:], "--collect-only", "-n", "0")
            assert f"[{NAME}]" in collected and "test_neighbours" in collected

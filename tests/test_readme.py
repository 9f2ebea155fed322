"""The plain lines of the README and of the page on re-running are those that make runs; the README is short."""

import re
import subprocess

import numpy as np
import pytest
from PIL import Image
from toys import BIN, environment

from lib.files import ROOT
from lib.site import picture

README = (ROOT / "README.md").read_text(encoding="utf-8")
RERUN = (ROOT / "book" / "rerun.md").read_text(encoding="utf-8")


def make(*arguments, folder=ROOT, **more):
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=folder, env=environment(folder, **more), capture_output=True, encoding="utf-8")


def made(*arguments):
    """What make would run, the environment being ready."""
    result = make("--dry-run", "--assume-old=.venv/.ready", f"BIN={BIN}", *arguments)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.replace(f"{BIN}/", ".venv/bin/").splitlines()
    return [" ".join(line.split()) for line in lines if line.startswith(".venv/bin")]


def shown():
    """All plain lines of both pages, comments and doubled spaces aside."""
    full = re.search(r"stands for `(--cores .* 100MB)`", RERUN).group(1)
    lines = re.findall(r'^(?:LWL_ARGS=".*" )?(\.venv/bin/.*)$', README + RERUN, re.M)
    return {re.sub(r"\s+#.*", "", line).replace("…", full) for line in lines}


@pytest.mark.parametrize(
    "target",
    [
        ["book"],
        ["html"],
        ["pages"],
        ["lab"],
        ["publish", "CHAPTER=01", "PROFILE=laptop", "SEEDS=0 1 2"],
        ["check-published"],
        ["chapter", "CHAPTER=01", "PROFILE=laptop", "SEEDS=0 1 2"],
        ["chapter", "CHAPTER=01", "PROFILE=laptop", "ARGS=-p latent_dim 8"],
        [
            "sweep",
            "NAME=sigmas",
            "CHAPTER=01",
            "SET=sigma=0.1,0.3 latent_dim=4,8",
            "SEEDS=0 1 2",
            "Y=fd_vae_standard",
        ],
    ],
)
def test_every_command_is_shown_as_the_line_it_runs(target):
    lines = made(*target)
    assert lines
    for line in lines:
        assert line in shown(), line


def test_the_tests_are_run_as_shown():
    assert ".venv/bin/python -m pytest -n auto --dist loadfile" in shown() and any(
        "-m pytest" in line for line in made("test")
    )


def test_an_unknown_chapter_is_answered_with_the_known_ones():
    result = make("--dry-run", "--assume-old=.venv/.ready", f"BIN={BIN}", "chapter", "CHAPTER=zz")
    assert result.returncode and "'zz' is no chapter: CHAPTER is one of 01_" in result.stderr


def test_a_published_run_takes_no_arguments_of_its_own():
    result = make("--dry-run", "publish", "CHAPTER=01", "PROFILE=laptop", "ARGS=-p latent_dim 8")
    assert result.returncode and "a published run is its profile's own" in result.stderr


def test_a_demo_run_that_is_to_be_published_is_refused_before_it_runs():
    result = make("--dry-run", "publish", "CHAPTER=01")
    assert result.returncode and "Demo runs are not published" in result.stderr and not result.stdout


def test_links_and_pictures_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_a_first_visit_is_short_and_one_picture_moves():
    assert len(README.splitlines()) <= 90
    with Image.open(ROOT / re.search(r"!\[.{30,}\]\((.*)\)", README).group(1)) as picture:
        assert picture.n_frames > 20
        assert (ROOT / picture.filename).stat().st_size < 600_000


def test_every_folder_and_file_that_the_readme_places_is_there():
    for line in re.findall(r"^\| (`.*?`) \|", README.partition("## Where things are")[2], re.M):
        for name in re.findall(r"`(.*?)`", line.partition(" | ")[0]):
            assert (ROOT / name).exists(), name


def test_numbers_of_the_readme_are_dated():
    assert re.search(r"measured 20\d\d-\d\d-\d\d", README)


def test_the_moving_picture_can_be_made_from_the_published_results(tmp_path):
    picture.save(tmp_path / "walk.webp")
    with Image.open(tmp_path / "walk.webp") as made:
        assert made.n_frames > 20 and np.asarray(made.convert("L")).std() > 20

"""The README's plain lines are those that make runs."""

import re
import subprocess

from lib.files import ROOT

README = (ROOT / "README.md").read_text()


def made(*arguments):
    """What make would run, the environment being ready."""
    command = ["make", "--dry-run", "--assume-old=.venv/.ready", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [" ".join(line.split()) for line in result.stdout.splitlines() if line.startswith(".venv/bin")]


def shown():
    full = re.search(r"snakemake (--cores .* 100MB) ", README).group(1)
    lines = re.findall(r'^(?:# )?(?:LWL_ARGS=".*" )?(\.venv/bin/.*)$', README, re.M)
    lines += re.findall(r"# (\.venv/bin/jupyter.*)$", README, re.M)
    return {line.replace("…", full) for line in lines}


def test_every_command_is_shown_as_the_line_it_runs():
    targets = [
        ["book"],
        ["html"],
        ["lab"],
        ["publish", "CHAPTER=01_autoencoders", "PROFILE=laptop"],
        ["check-published"],
        ["chapter", "CHAPTER=01_autoencoders", "PROFILE=laptop"],
        ["chapter", "CHAPTER=01_autoencoders", "PROFILE=laptop", "ARGS=-p latent_dim 8"],
    ]
    for target in targets:
        for line in made(*target):
            assert line in shown(), line
    assert ".venv/bin/python -m pytest" in shown()
    assert ".venv/bin/python -m pytest" in made("test")


def test_a_published_run_takes_no_arguments_of_its_own():
    command = ["make", "--dry-run", "publish", "CHAPTER=01_autoencoders", "PROFILE=laptop", "ARGS=-p latent_dim 8"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode and "a published run is its profile's own" in result.stderr


def test_links_and_pictures_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target

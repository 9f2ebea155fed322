"""Where else it is set up, run and cited: files for other places agree with the lock, the licence and each other."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib

import pytest
import yaml

from lib.files import ROOT
from lib.site import environment

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WITHOUT_CUDA = "--torch-backend cpu -r requirements-cpu.txt"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def requirements(lines):
    """What pip is told."""
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


# --- versions ------------------------------------------------------------------------


def test_every_place_has_a_python_that_suits():
    ours = [f"{major}.{minor}" for major, minor in environment.SUITABLE]
    assert PROJECT["requires-python"] == f">={ours[0]},<3.{environment.SUITABLE[-1][1] + 1}"
    binder = text(".binder/runtime.txt").strip().removeprefix("python-")
    (conda,) = [d for d in yaml.safe_load(text("environment.yml"))["dependencies"] if str(d).startswith("python=")]
    (container,) = re.findall(r'"image": "python:([\d.]+)-', text(".devcontainer/devcontainer.json"))
    assert {binder, conda.removeprefix("python="), container} <= set(ours)
    jobs = yaml.safe_load(text(".github/workflows/book.yml"))["jobs"]
    tried = re.findall(r'python(?:-version)?: "([\d.]+)"', text(".github/workflows/book.yml"))
    assert set(tried) == set(ours) and {"build", "test", "windows", "deploy"} <= set(jobs)


def test_the_lock_has_what_pyproject_asks_for():
    groups = tomllib.loads(text("pyproject.toml"))["dependency-groups"]
    asked = PROJECT["dependencies"] + groups["book"] + groups["test"]
    names = {re.match(r"[\w-]+", line).group().lower() for line in asked}
    locked = {line.partition("==")[0] for line in text("requirements.txt").splitlines()}
    assert names <= locked, names - locked


def test_lib_imports_nothing_but_what_pyproject_names():
    imported = set()
    for path in [*(ROOT / "lib").glob("*.py"), *(ROOT / "lib" / "report").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").partition(".")[0])
    called = {"PIL": "pillow", "sklearn": "scikit-learn"}
    others = {called.get(name, name.lower().replace("_", "-")) for name in imported - {"lib"} - sys.stdlib_module_names}
    names = {re.match(r"[\w-]+", line).group().lower() for line in PROJECT["dependencies"]}
    assert others == names


def test_colabs_versions_are_within_what_pyproject_allows():
    from packaging.requirements import Requirement

    there = dict(line.lower().split("==") for line in requirements(text(".ci/colab.txt").splitlines()))
    for line in PROJECT["dependencies"]:
        asked = Requirement(line)
        if asked.name in there:
            assert asked.specifier.contains(there[asked.name]), f"Colab has {asked.name} {there[asked.name]}"


# --- other places --------------------------------------------------------------------


def test_binder_conda_and_pip_install_the_lock_without_cuda_by_uv():
    assert requirements(text(".binder/requirements.txt").splitlines()) == ["uv"]
    binder = text(".binder/postBuild")
    assert "python -m uv pip install" in binder and WITHOUT_CUDA in binder
    assert os.access(ROOT / ".binder" / "postBuild", os.X_OK)
    assert "uv" in yaml.safe_load(text("environment.yml"))["dependencies"]
    assert f"# uv pip install {WITHOUT_CUDA}\n" in text("environment.yml")
    assert f"`pip install uv && uv pip install {WITHOUT_CUDA}`" in text("README.md")


def test_no_file_names_the_host_of_a_registry():
    """The tools know their addresses, and a user's settings or mirrors hold then."""
    hosts = ["download.pytorch", "pypi", "files.pythonhosted", "conda.anaconda", "anaconda", "deb.debian"]
    hosts = [f"{host}.org" for host in hosts] + ["registry.npmjs" + ".org", "registry.yarnpkg" + ".com"]
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, encoding="utf-8")
    if listed.returncode:
        pytest.skip("this is no git repository")
    named = re.compile("|".join(rf"(?<![\w-]){re.escape(host)}\b" for host in hosts).encode(), re.I)
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    contents = {path: path.read_bytes() for path in files if path.is_file()}
    assert len(contents) > 100
    # (A NUL byte among the first ones is how git tells a picture from a text.)
    texts = {path: content for path, content in contents.items() if b"\0" not in content[:8000]}
    assert not [f"{path}: {found[0]}" for path, content in texts.items() if (found := named.search(content))]


def test_the_dev_container_is_set_up_by_make():
    lines = [line for line in text(".devcontainer/devcontainer.json").splitlines() if not line.startswith("//")]
    container = json.loads("\n".join(lines))
    assert container["postCreateCommand"] == "make .venv/.ready"


def test_who_cites_it_finds_one_name_one_version_and_one_licence():
    cited, archived = yaml.safe_load(text("CITATION.cff")), json.loads(text(".zenodo.json"))
    configuration = yaml.safe_load(text("_config.yml"))
    assert cited["version"] == PROJECT["version"]
    assert cited["license"] == archived["license"] == PROJECT["license"] == text("LICENSE").partition(" ")[0]
    assert cited["title"] == archived["title"] and cited["title"].startswith(configuration["title"])
    assert cited["authors"] == [{"name": configuration["author"]}] == archived["creators"]
    assert cited["keywords"] == archived["keywords"]


# --- the workflows -------------------------------------------------------------------


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.stem)
def workflow(request):
    return request.param.read_text(encoding="utf-8")


def test_actions_are_pinned_by_commit_and_say_which_version_that_is(workflow):
    used = re.findall(r"uses: (.*)", workflow)
    assert used and all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", use) for use in used), used
    assert len({use.partition("@")[0] for use in used}) == len(set(used))  # one version of each


def test_a_job_may_write_only_what_it_must(workflow):
    page = yaml.safe_load(workflow)
    assert page["permissions"] == {"contents": "read"}
    more = {name: job["permissions"] for name, job in page["jobs"].items() if "permissions" in job}
    if "deploy" in page["jobs"]:
        assert more.pop("deploy") == {"pages": "write", "id-token": "write"}
        assert more.pop("colab") == {"contents": "write"}
    assert not more
    for name, job in page["jobs"].items():
        checkouts = [step for step in job["steps"] if "checkout" in step.get("uses", "")]
        kept = [step for step in checkouts if step.get("with", {}).get("persist-credentials", True)]
        assert not kept or name == "colab"
        # Nothing that others wrote gets into a shell.
        assert not any("${{" in step.get("run", "") for step in job["steps"])


def test_what_publishes_does_so_from_main_alone_and_is_never_stopped_half_way():
    page = yaml.safe_load(text(".github/workflows/book.yml"))
    assert page[True]["push"] == {"branches": ["main"]}  # (YAML takes "on" for true)
    assert page["concurrency"]["cancel-in-progress"] == "${{ github.event_name == 'pull_request' }}"
    for name in ("deploy", "colab"):
        job = page["jobs"][name]
        assert job["if"] == "github.ref == 'refs/heads/main' && github.event_name == 'push'"
        assert job["needs"] == "build" and job["concurrency"]["cancel-in-progress"] is False


def test_every_file_that_a_workflow_runs_is_there(workflow):
    for name in re.findall(r"(?<![\w.])(\.ci/\w+|(?:lib|tests|book)/[\w/.]+)", workflow):
        assert (ROOT / name).exists(), name

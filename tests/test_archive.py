"""A chapter's published runs as an RO-Crate, to archive with where they came from."""

import json
import zipfile

import pytest
from toys import commit_all, make_project, write_results

from lib.site import archive
from lib.site.contents import BookError


@pytest.fixture
def project(tmp_path):
    folder = make_project(tmp_path / "a project", "01_a")
    commit = commit_all(folder)
    for seed in (0, 1):
        write_results(folder / "published" / "01_a" / f"seed-{seed}.json", seed, commit=commit)
    return folder


def test_a_crate_holds_runs_code_and_lock_and_names_every_file_once(project, tmp_path):
    archive.archive("01_a", tmp_path / "a.zip", project)
    archive.archive("01_a", tmp_path / "b.zip", project)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as crate:
        names = crate.namelist()
        graph = json.loads(crate.read("ro-crate-metadata.json"))["@graph"]
        assert crate.read("seed-1.npz") == (project / "published" / "01_a" / "seed-1.npz").read_bytes()
    entries = {entry["@id"]: entry for entry in graph}
    assert len(entries) == len(graph)
    parts = [part["@id"] for part in entries["./"]["hasPart"]]
    assert sorted([*parts, "ro-crate-metadata.json"]) == sorted(names) and set(parts) <= set(entries)
    assert len([name for name in names if name.endswith("/requirements.txt")]) == 1  # both runs are of one commit


def test_every_run_says_what_made_what_from_what(project):
    graph = archive.metadata("01_a", list(archive.contained("01_a", project)), project)["@graph"]
    entries = {entry["@id"]: entry for entry in graph}
    runs = [entry for entry in graph if entry["@type"] == "CreateAction"]
    assert [run["@id"] for run in runs] == ["#seed-0", "#seed-1"]
    for run in runs:
        (data,) = run["object"]
        for reference in (run["instrument"], data, *run["result"]):
            assert reference["@id"] in entries
        assert '"level": 3' in run["description"] and run["endTime"] == "2026-01-02"
    assert entries[runs[0]["object"][0]["@id"]]["identifier"] == "sha256:0123456789abcdef"


def test_without_runs_or_their_commit_there_is_no_crate(project, tmp_path):
    write_results(project / "published" / "01_a" / "seed-0.json", commit="abcdef0123")
    with pytest.raises(BookError, match="of commit abcdef0123 is not in this repository"):
        archive.archive("01_a", tmp_path / "a.zip", project)
    for path in (project / "published" / "01_a").iterdir():
        path.unlink()
    with pytest.raises(BookError, match="no published runs"):
        archive.archive("01_a", tmp_path / "a.zip", project)
    assert not (tmp_path / "a.zip").exists()

"""Results: what a run measured, written once and read any time."""

import json
import os

import numpy as np
import pytest
import torch

from lib.report.results import MissingResult, Results, ResultsError, copy_for_publishing


def run(path, seed=0, fd=2.0, parameters=None, extra=(), **facts):
    results = Results()
    results.record("fd", fd, unit="nats", better="low", report=3.0)
    results.record("share", 0.5, form="%")
    for name in extra:
        results.record(name, 1.0)
    results.keep("images", np.full((2, 3), seed, np.uint8))
    results.keep("curve", [float(seed), 1.0], each_run=True)
    parameters = {"epochs": 2, "seed": seed, **(parameters or {})}
    results.save(path, {"chapter": "01_a", "code": CODE, "parameters": parameters, **facts})
    return path


CODE = {"cells": "1", "lib/x.py": "1"}


def three(folder):
    return [run(folder / f"seed-{seed}.json", seed, 2.0 + seed) for seed in range(3)]


def test_a_run_reads_as_it_was_written(tmp_path):
    results = Results.read([run(tmp_path / "seed-0.json")])
    fd = results["fd"]
    assert (fd.values, fd.unit, fd.form, fd.better, fd.report, fd.image_error) == ((2.0,), "nats", "", "low", 3.0, None)
    assert (
        results["share"].form == "%" and "fd" in results and "fid" not in results and list(results) == ["fd", "share"]
    )
    assert results.array("images").dtype == np.uint8 and results.array("curve").dtype == np.float32
    facts = {"chapter": "01_a", "code": CODE, "parameters": {"epochs": 2, "seed": 0}}
    assert results.runs == 1 and results.provenance == [facts]


def test_three_runs_read_as_one_with_the_pictures_of_the_first(tmp_path):
    results = Results.read(three(tmp_path))
    assert results["fd"].values == (2.0, 3.0, 4.0) and results["fd"].deviation == 1.0 and results.runs == 3
    assert results["share"].deviation == 0.0
    assert (results.array("images") == 0).all() and [a[0] for a in results.arrays("curve")] == [0.0, 1.0, 2.0]
    with pytest.raises(ValueError, match="read, not added to"):
        results.record("more", 1.0)


def test_what_was_not_measured_is_said_with_the_name_that_was_meant(tmp_path):
    results = Results.read([run(tmp_path / "seed-0.json")])
    for ask in (lambda: results["fdd"], lambda: results.array("imges"), lambda: results.arrays("curves")):
        with pytest.raises(MissingResult, match=r"hold no .* Did you mean '(fd|images|curve)'"):
            ask()
    with pytest.raises(KeyError):
        results["quite another"]


def test_only_finite_numbers_and_arrays_are_results():
    results = Results()
    for value in (float("nan"), float("inf"), torch.tensor(float("nan"))):
        with pytest.raises(ValueError, match="must be finite"):
            results.record("fd", value)
    with pytest.raises(ValueError, match="must be finite"):
        results.keep("curve", [1.0, float("nan")])
    with pytest.raises(ValueError, match="array of numbers"):
        results.keep("names", np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="better='up'"):
        results.record("fd", 1.0, better="up")
    with pytest.raises(ValueError, match="form="):
        results.record("fd", 1.0, form=".3f")
    for beside in ("report", "image_error"):  # an hour before they could not be written
        with pytest.raises(ValueError, match=f"fd, {beside} = nan: a result must be finite"):
            results.record("fd", 1.0, **{beside: float("nan")})
    assert list(results) == []


def test_tensors_are_kept_and_a_cell_run_again_counts(tmp_path):
    results = Results()
    for value in (1.0, 2.0):
        results.record("fd", torch.tensor(value), image_error=torch.tensor(0.5), report=np.float32(0.5))
        results.keep("grid", torch.full((2,), value, requires_grad=True), each_run=value == 1.0)
    results.save(tmp_path / "seed-0.json", {})
    assert json.loads((tmp_path / "seed-0.json").read_text())["arrays"]["each_run"] == []
    read = Results.read([tmp_path / "seed-0.json"])
    assert read["fd"].values == (2.0,) and read["fd"].image_error == 0.5 and (read.array("grid") == 2.0).all()


# --- files that are not whole --------------------------------------------------------


def test_files_that_are_missing_are_named(tmp_path):
    with pytest.raises(ResultsError, match=r"There are no results at .*seed-0\.json"):
        Results.read([tmp_path / "seed-0.json"])
    path = run(tmp_path / "seed-0.json")
    path.with_suffix(".npz").unlink()
    with pytest.raises(ResultsError, match=r"seed-0\.npz is missing"):
        Results.read([path])
    with pytest.raises(ResultsError, match="No results were given"):
        Results.read([])


def spoil(path, change):
    page = json.loads(path.read_text(encoding="utf-8"))
    change(page)
    path.write_text(json.dumps(page), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda page: page.update(format=0), "no results file of format 1"),
        (lambda page: page.pop("arrays"), "damaged"),
        (lambda page: page.pop("provenance"), "damaged"),
        (lambda page: page.update(provenance=[]), "damaged"),
        (lambda page: page["provenance"].update(parameters=[]), "damaged"),
        (lambda page: page.update(numbers=[]), "damaged"),
        (lambda page: page["numbers"].update(fd=3), "damaged"),
        (lambda page: page["numbers"]["fd"].update(value="many"), "damaged"),
        (lambda page: page["numbers"]["fd"].update(value=float("nan")), "damaged .*fd = nan"),
        (lambda page: page["numbers"]["fd"].update(report=float("inf")), "damaged .*report = inf"),
        (lambda page: page["numbers"]["fd"].update(form=".3f"), "damaged .*form="),
        (lambda page: page["numbers"]["fd"].update(colour="red"), "damaged"),
        (lambda page: page["arrays"].update(sha256="0"), r"seed-0\.npz is not the file"),
    ],
)
def test_files_that_are_damaged_are_named(tmp_path, change, message):
    path = run(tmp_path / "seed-0.json")
    spoil(path, change)
    with pytest.raises(ResultsError, match=message):
        Results.read([path])


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\xff"])
def test_a_file_that_was_cut_off_is_named(tmp_path, text):
    path = run(tmp_path / "seed-0.json")
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ResultsError, match=r"seed-0\.json"):
        Results.read([path])


def test_files_of_two_runs_are_never_taken_for_one(tmp_path):
    first, second = run(tmp_path / "seed-0.json"), run(tmp_path / "seed-1.json", 1)
    os.replace(second.with_suffix(".npz"), first.with_suffix(".npz"))
    with pytest.raises(ResultsError, match=r"seed-0\.npz is not the file that seed-0\.json was written with"):
        Results.read([first])


def test_a_run_that_is_killed_while_it_writes_leaves_the_earlier_results_or_says_so(tmp_path, monkeypatch):
    path = run(tmp_path / "seed-0.json")
    replace = os.replace

    def killed(source, target):
        if str(target).endswith(".json"):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        run(path, fd=9.0, seed=4)
    with pytest.raises(ResultsError, match="make both again"):
        Results.read([path])
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["seed-0.json", "seed-0.npz"]


# --- runs that are no repeats --------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parameters": {"epochs": 3}}, "they differ in epochs"),
        ({"parameters": {"width": 3}}, "they differ in width"),
        ({"chapter": "02_b"}, "they differ in chapter"),
        ({"code": {"cells": "2"}}, "they differ in lib/x.py, measuring cells"),
        ({"extra": ["mse"]}, "did not measure the same: only one has mse"),
    ],
)
def test_runs_that_differ_in_more_than_their_seed_are_refused(tmp_path, change, message):
    paths = [run(tmp_path / "seed-0.json"), run(tmp_path / "seed-1.json", 1, **change)]
    with pytest.raises(ResultsError, match=message):
        Results.read(paths)


def test_a_run_counts_once(tmp_path):
    paths = [run(tmp_path / f"seed-{name}.json", seed) for name, seed in ((0, 0), (1, 1), (2, 1))]
    with pytest.raises(ResultsError, match=r"seed-1\.json is not the only file with seed 1"):
        Results.read(paths)
    with pytest.raises(ResultsError, match="not the only file with seed 0"):
        Results.read(paths[:1] * 2)


def test_another_chapters_run_is_refused_where_one_is_named(tmp_path):
    path = run(tmp_path / "seed-0.json")
    assert Results.read([path], chapter="01_a").runs == 1
    with pytest.raises(ResultsError, match=r"seed-0\.json holds results of 01_a, not of 02_b"):
        Results.read([path], chapter="02_b")


def test_the_machine_may_differ(tmp_path):
    other = {"device": "cuda", "data_root": "/data"}
    paths = [run(tmp_path / "seed-0.json"), run(tmp_path / "seed-1.json", 1, parameters=other)]
    assert Results.read(paths).runs == 2


# --- publishing ----------------------------------------------------------------------


def test_of_later_runs_only_what_was_kept_of_every_run_is_published(tmp_path):
    first, second, _ = three(tmp_path)
    copy_for_publishing(first, tmp_path / "out" / "seed-0.json", True)
    copy_for_publishing(second, tmp_path / "out" / "seed-1.json", False)
    results = Results.read([tmp_path / "out" / f"seed-{seed}.json" for seed in (0, 1)])
    assert results["fd"].values == (2.0, 3.0) and len(results.arrays("curve")) == 2
    assert results.provenance[0]["chapter"] == "01_a" and (results.array("images") == 0).all()
    with pytest.raises(MissingResult):
        results.arrays("images")


def test_the_same_results_are_the_same_bytes(tmp_path):
    one, two = run(tmp_path / "a" / "seed-0.json"), run(tmp_path / "b" / "seed-0.json")
    assert one.read_bytes() == two.read_bytes()
    assert one.with_suffix(".npz").read_bytes() == two.with_suffix(".npz").read_bytes()


def test_verdicts_and_rows_go_by_names():
    results = Results()
    results.record("mse_ae", 1.0, better="low", image_error=0.01)
    results.record("mse_vae", 2.0, better="low", image_error=0.01)
    results.record("kl_vae", 3.0)
    assert results.verdict("mse_ae", "mse_vae") == "better"
    assert results.verdict("mse_vae", "mse_ae", "yes", "no") == "no"
    assert results.verdict("kl_vae", "mse_ae", which="low") == "no difference that 1 run can show"
    rows = results.rows({"AE": "ae", "VAE": "vae"}, "mse_{}", "kl_{}")
    assert [[str(cell) for cell in row] for row in rows] == [["AE", "1.00", ""], ["VAE", "2.00", "3.00"]]
    with pytest.raises(MissingResult, match="psnr_ae"):
        results.rows({"AE": "ae"}, "psnr_{}")

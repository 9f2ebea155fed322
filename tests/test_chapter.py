"""What a chapter does around its mathematics."""

import json
import os

import numpy as np
import pytest
import torch
from toys import FACTS, PARAMETERS, commit_all, make_project, write_chapter, write_results

from lib import code
from lib.report import chapter
from lib.report.chapter import Claim
from lib.report.numbers import Number, verdict
from lib.report.parameters import ParameterError
from lib.report.results import Results, ResultsError


def start(name="01_a", given=None, cell=PARAMETERS, **more):
    """A chapter as a notebook starts it, its parameters cell run and papermill's, if any."""
    namespace = {"In": ["", cell, *([given] if given else [])], **more}
    for source in namespace["In"]:
        exec(source, namespace)
    return chapter.start(name, namespace), namespace


@pytest.fixture(autouse=True)
def own(monkeypatch):
    for name in ("LWL_TELL", "LWL_RESULTS", "LWL_PROFILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def shown(monkeypatch):
    """What was displayed: texts, and what was handed on."""
    found = []
    monkeypatch.setattr(chapter, "display", lambda value, **more: found.append(more or value.data))
    return found


# --- starting ------------------------------------------------------------------------


def test_parameters_are_those_that_the_cell_declares_as_they_were_set():
    run, namespace = start(given="# Parameters\nlevel = 4\nrate = 1\n", other=3)
    assert run.parameters == {"level": 4, "rate": 1.0, "seed": 0} and namespace["rate"] == 1.0
    assert type(namespace["rate"]) is float and list(run.results) == []


def test_the_parameters_cell_that_ran_last_counts():
    again = PARAMETERS.replace("level: Count = 1", "level: Count = 7")
    assert start(given=again)[0].parameters["level"] == 7


def test_wrong_and_unknown_parameters_are_refused_together():
    with pytest.raises(ParameterError, match=r"(?s)levle: unknown. Did you mean level\?.*rate = 2.0: it must be") as e:
        start(given="# Parameters\nlevle = 4\nrate = 2\n")
    assert str(e.value).count("\n  - ") == 2


def test_a_notebook_whose_parameters_cell_did_not_run_says_so():
    with pytest.raises(ParameterError, match="Run the parameters cell"):
        chapter.start("01_a", {"In": ["x = 1"]})


def test_limits_that_depend_on_data_are_refused_by_name():
    run, _ = start(given="# Parameters\nlevel = 4\n")
    run.at_most(level=(4, "the images"))
    with pytest.raises(ParameterError, match="level = 4: at most 3, the images"):
        run.at_most(level=(3, "the images"), seed=(0, "none"))


def test_the_device_is_the_one_asked_for(monkeypatch):
    cell = PARAMETERS + '\nfrom lib.report.parameters import Device\n\ndevice: Device = "auto"  # where'
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert start(cell=cell)[0].device == torch.device("cpu")
    with pytest.raises(ParameterError, match="torch sees no GPU here"):
        _ = start(cell=cell, given='# Parameters\ndevice = "cuda"')[0].device


# --- telling -------------------------------------------------------------------------


def test_a_told_chapter_has_the_results_and_the_parameters_of_their_runs(tmp_path, monkeypatch):
    paths = [write_results(tmp_path / f"seed-{seed}.json", seed, 2.0 + seed) for seed in (0, 1)]
    monkeypatch.setenv("LWL_TELL", os.pathsep.join(map(str, paths)))
    cell = PARAMETERS + "\nyounger: Count = 5  # than the results"
    run, namespace = start(cell=cell)
    assert run.results["height"].values == (2.0, 3.0) and run.results.runs == 2
    assert namespace["level"] == 3 and namespace["younger"] == 5 and namespace["seed"] == 0
    assert run.data["title"] == FACTS["data"]["title"]
    with pytest.raises(ResultsError, match="holds results of 01_a, not of 02_b"):
        start(name="02_b", cell=cell)


# --- finishing -----------------------------------------------------------------------


class Data:
    name, title, classes, shape = "toy", "Toy images", ["a", "b"], (1, 2, 2)
    train, test = [0] * 5, [0] * 2

    def digest(self):
        return "0123456789abcdef"


def test_a_run_leaves_its_results_with_where_they_came_from(tmp_path, monkeypatch, shown):
    monkeypatch.setenv("LWL_RESULTS", str(tmp_path / "out" / "seed-0.json"))
    monkeypatch.setenv("LWL_PROFILE", "laptop")
    run, _ = start(given="# Parameters\nlevel = 4\n")
    run.use(Data())
    run.results.record("height", 2.0)
    run.results.keep("walk", np.zeros(3))
    run.finish()
    (facts,) = Results.read([tmp_path / "out" / "seed-0.json"]).provenance
    assert facts["chapter"] == "01_a" and facts["profile"] == "laptop"
    assert facts["parameters"] == {"level": 4, "rate": 0.5, "seed": 0}
    assert facts["data"]["training_images"] == 5 and facts["data"]["sha256"] == "0123456789abcdef"
    assert facts["threads"] == torch.get_num_threads() and facts["device"] and facts["system"]
    assert facts["versions"]["torch"] == torch.__version__.partition("+")[0] or facts["versions"]["torch"]
    assert facts["seconds"] >= 0 and facts["peak_memory_gb"] > 0 and len(facts["date"]) == 10
    assert "seed-0.json" in shown[0] and "seed-0.npz" in shown[0]


def test_plain_runs_leave_results_in_a_place_for_each_set_of_parameters(tmp_path, monkeypatch, shown):
    monkeypatch.setattr(chapter, "ROOT", tmp_path)
    places = []
    for given in ("", "seed = 3", "level = 9"):
        run, _ = start(given=f"# Parameters\n{given}\n")
        run.use(Data())
        run.finish()
        places.append(shown[-1].split("`")[1])
        assert (tmp_path / places[-1]).exists() and str(tmp_path) not in shown[-1]
    folders = [place.rpartition("/")[0] for place in places]
    assert folders[0] == folders[1] != folders[2] and folders[0].startswith("_build/results/own/01_a/")
    assert [place.rpartition("/")[2] for place in places] == ["seed-0.json", "seed-3.json", "seed-0.json"]


def test_checkpoints_have_a_place_for_each_set_of_parameters_and_code(tmp_path):
    def place(given="", label="vae"):
        return start(given=f"# Parameters\n{given}\n")[0].checkpoint(label)

    assert place().is_relative_to(tmp_path / "checkpoints" / "01_a") and place() == place()
    assert len({place(), place("level = 9"), place("seed = 1"), place(label="gan")}) == 4


# --- the commit ----------------------------------------------------------------------


@pytest.fixture
def project(tmp_path, monkeypatch):
    project = make_project(tmp_path / "project", "01_a")
    monkeypatch.setattr(chapter, "ROOT", project)
    return project


def commit(project):
    return chapter._commit("01_a", code.of_chapter("01_a", code.read_from(project)))


def test_the_commit_is_that_of_the_code_that_runs(project, monkeypatch):
    assert commit(project) == "unknown"
    made = commit_all(project)
    assert commit(project) == made and len(made) == 10
    (project / "lib" / "wgan.py").write_text("x = 1\n")
    (project / "notes.txt").write_text("mine")
    assert commit(project) == made, "what it does not use is no change of it"
    monkeypatch.setenv("GIT_DIR", str(project / "elsewhere"))
    monkeypatch.setenv("GIT_WORK_TREE", str(project / "elsewhere"))
    assert commit(project) == made, "a caller's repository is another"
    (project / "lib" / "toy.py").write_text("def height(level):\n    return 3.0\n")
    assert commit(project) == f"{made} with changes"


def test_a_folder_within_another_repository_has_no_commit(project, monkeypatch):
    commit_all(project.parent)
    assert commit(project) == "unknown"


def test_a_changed_measuring_cell_is_a_change(project):
    made = commit_all(project)
    write_chapter(project, "01_a", "x = 1")
    assert commit(project) == f"{made} with changes"


# --- saying --------------------------------------------------------------------------

THREE = Number((1.0, 2.0, 3.0), "m", better="low")


def test_sentences_are_said_with_numbers_by_one_rule(shown):
    chapter.say("It is {a}, or {a.text} over {a.runs} runs.", a=THREE)
    chapter.say("Set {as it is}.")
    chapter.say("""
        Two
        lines.
    """)
    assert shown == ["It is 2.0\u00a0m, or 2.0\u00a0±\u00a01.0 over 3 runs.", "Set {as it is}.", "Two\nlines."]


def test_tables_say_what_their_errors_are(shown):
    chapter.table(["model", "height, m"], [["AE", THREE], ["VAE", 0.12345], ["–", 3]])
    assert shown[0].splitlines() == [
        "| model | height, m |",
        "|:--|--:|",
        "| AE | 2.0\u00a0±\u00a01.0 |",
        "| VAE | 0.123 |",
        "| – | 3 |",
        "",
        "± is the standard deviation over 3 runs.",
    ]
    chapter.table(["a", "b"], [[1, Number((1.0, 1.0 + 1e-8))]], text_columns=2)
    assert "±" not in shown[1] and "|:--|:--|" in shown[1]
    chapter.table(["$p(x | z)$", r"a\|b"], [["c|d", 1]])
    assert shown[2].splitlines()[::2] == [r"| $p(x \| z)$ | a\|b |", r"| c\|d | 1 |"], "a bar in a cell is no end of it"


def test_claims_are_shown_and_handed_on(shown):
    chapter.claims(
        Claim("It is low.", "000", str(verdict(THREE, 9.0)), "2 m"),
        told=[Claim("It is blue.", "002", "cannot be told", "–")],
    )
    assert "blue" not in shown[0], "told above"
    assert "| It is low. | 000 | **better** | 2 m |" in shown[0]
    record = shown[1]["metadata"]
    assert record["scrapbook"]["name"] == "claims" and record["record"][1]["outcome"] == "cannot be told"
    assert json.dumps(record) and record["record"][0]["outcome"] == "better"


def test_claims_are_compared_by_the_names_of_numbers():
    results = Results()
    results.record("low", 1.0, "m", image_error=0.1)
    results.record("high", 2.0, "m", image_error=0.1)
    lines = """
    000 | It is lower | low < high
    002 | It is higher | low > high
    """
    first, second = chapter.compared(results, lines)
    assert (first.report, first.statement, first.outcome) == ("000", "It is lower", "holds")
    assert first.evidence == "1.00 against 2.00\u00a0m" and second.outcome == "fails"
    with pytest.raises(ValueError, match="is not: report"):
        chapter.compared(results, "000 | It is lower")


def test_rates_are_written_as_mathematics():
    assert [chapter.power(rate) for rate in (1e-6, 2e-4, 0.001, 0.5)] == ["$10^{-6}$", "$0.0002$", "$0.001$", "$0.5$"]
    assert [chapter.power(rate) for rate in (2e-6, 1.5e-5)] == [r"$2 \times 10^{-6}$", r"$1.5 \times 10^{-5}$"]


def test_code_is_shown_as_it_stands_in_lib(shown):
    chapter.show_code("files.strip_docs")
    assert shown[0].startswith("```python\ndef strip_docs(") and shown[0].endswith("\n```")


def test_data_are_shown_as_they_are():
    assert chapter.plain("a_b*c [x] <y> $z$") == r"a\_b\*c \[x\] \<y\> \$z\$"


def test_checkpoints_are_not_those_of_another_torch_or_another_code(monkeypatch):
    run = start(given="# Parameters\n")[0]
    places = {run.checkpoint("vae")}
    for change in ({"cells": "1" * 16}, {"cells": "0" * 16, "lib/nets.py": "2" * 16}):
        monkeypatch.setattr(run, "_code", change)
        places.add(run.checkpoint("vae"))
    monkeypatch.setattr(torch, "__version__", "99.0")
    places.add(run.checkpoint("vae"))
    assert len(places) == 4

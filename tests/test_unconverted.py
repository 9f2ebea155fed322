import json

import pytest
import torch

from lib.data import load
from lib.report import unconverted as chapter
from lib.report.unconverted import ParameterError, above, at_least, between, check_parameters, each, one_of

TYPES = {"epochs": int, "rate": float, "name": str, "flag": bool, "widths": list[int], "sigmas": list[float]}
VALUES = {"epochs": 3, "rate": 0.1, "name": "digits", "flag": True, "widths": [4, 2], "sigmas": [0.1]}
RULES = {"epochs": at_least(1), "rate": above(0, up_to=1), "widths": each(at_least(1)), "name": one_of("digits", "x")}


def check(injected="", rules=RULES, **changes):
    cells = ["", "epochs: int = 3  # passes"] + ([f"# Parameters\n{injected}\n"] if injected else []) + ["start()"]
    return check_parameters({"__annotations__": TYPES, **VALUES, "In": cells, **changes}, rules)


def test_good_parameters_pass_and_whole_numbers_become_floats():
    assert check() == VALUES
    rate = check(rate=1)["rate"]
    assert rate == 1.0 and type(rate) is float
    assert [type(sigma) for sigma in check(sigmas=[0.1, 1])["sigmas"]] == [float, float]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"injected": "epoch = 7"}, "epoch: unknown. Did you mean epochs?"),
        ({"injected": "zzz = 7"}, "zzz: unknown. Known: epochs, rate"),
        ({"epochs": "3"}, "epochs = '3' is str, int is wanted: write a whole number"),
        ({"epochs": 3.0}, "epochs = 3.0 is float"),
        ({"epochs": True}, "epochs = True is bool"),
        ({"rate": "1e-4"}, "write 1.0e-4"),
        ({"flag": "true"}, "flag = 'true' is str, bool is wanted: write True or False"),
        ({"name": 3}, "name = 3 is int"),
        ({"widths": [4, "2"]}, "a list of int is wanted"),
        ({"widths": "[4, 2]"}, "write -y 'widths: [64, 32]' (its -p takes no lists)"),
        ({"sigmas": ["1e-4"]}, "a list of float is wanted"),
        ({"epochs": 0}, "epochs = 0: it must be at least 1"),
        ({"rate": 0.0}, "rate = 0.0: it must be above 0, at most 1"),
        ({"rate": float("nan")}, "rate = nan"),
        ({"widths": []}, "a list of values at least 1"),
        ({"name": "y"}, "one of 'digits', 'x'"),
        ({"rules": {}}, "epochs: the chapter states no range for it"),
        ({"rules": {**RULES, "epoch": at_least(1)}}, "epoch: there is a rule for it but no such parameter"),
    ],
)
def test_each_bad_parameter_is_named_with_its_remedy(changes, message):
    with pytest.raises(ParameterError) as error:
        check(**changes)
    assert message in str(error.value)


def test_all_problems_are_told_at_once():
    with pytest.raises(ParameterError, match=r"(?s)typo.*epochs.*rate"):
        check(injected="typo = 1", epochs=0, rate="x")


def test_names_of_later_cells_are_no_unknown_parameters():
    assert check(model=object(), steps=5) == VALUES  # a cell run again in JupyterLab sees them all


def test_between_holds_at_its_ends():
    rule = between(0, 1)
    assert rule.holds(0) and rule.holds(1) and not rule.holds(1.01)


def test_start_writes_converted_values_back_and_chooses_a_device(monkeypatch):
    namespace = {"__annotations__": {"rate": float, "device": str}, "rate": 1, "device": "auto"}
    run = chapter.start("x", namespace, {"rate": above(0)})
    assert type(namespace["rate"]) is float
    assert run.device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ParameterError, match="torch sees no GPU"):
        chapter.start("x", {**namespace, "device": "cuda"}, {"rate": above(0)})


def test_checkpoints_of_other_parameters_or_other_code_lie_elsewhere(monkeypatch):
    def path(**parameters):
        return chapter.Run("x", parameters, torch.device("cpu")).checkpoint("vae")

    assert path(a=1, b=2) == path(b=2, a=1) != path(a=1, b=3)
    before = path(a=1)
    monkeypatch.setattr(chapter, "_code", lambda: ["changed"])
    assert path(a=1) != before


@pytest.fixture
def displayed(monkeypatch):
    shown = []
    monkeypatch.setattr(chapter, "display", lambda data, **options: shown.append((data, options)))
    return shown


def test_a_recorded_number_is_glued_with_its_error(displayed):
    chapter.Run("x", {}, torch.device("cpu")).record("mse", 0.01234, ".3f", "per pixel", error=0.002)
    ((data, options),) = displayed
    assert data == {"application/papermill.record/text/plain": "0.012 ± 0.002"}
    assert options["metadata"]["scrapbook"]["name"] == "mse"
    assert options["metadata"]["record"]["value"] == 0.01234


def test_provenance_names_data_code_and_machine(displayed):
    digits = load("digits")
    run = chapter.Run("x", {"epochs": 3}, torch.device("cpu"))
    for label, seconds in (("vae", 90.0), ("gan", 0.46)):  # as training would tell
        run.checkpoint(label).resumed_seconds = seconds
    run.finish(digits)
    facts = displayed[0][1]["metadata"]["record"]
    assert facts["resumed_seconds"] == 90.5
    assert facts["data_sha256"] == digits.digest()
    assert facts["parameters"] == {"epochs": 3}
    assert facts["seconds"] >= 0 and facts["peak_memory_gb"] > 0.05
    json.dumps(facts)


def test_tables_are_markdown(displayed):
    chapter.table(["a", "b", "c"], [("x", 1, 2), ("y", 3, 4)], text_columns=2)
    assert displayed[0][0].data == "| a | b | c |\n|:--|:--|--:|\n| x | 1 | 2 |\n| y | 3 | 4 |"


def test_shown_code_is_the_code_that_runs(displayed):
    chapter.show_code(above, chapter.Run.record)
    assert displayed[0][0].data.startswith("```python\ndef above(low: float")
    assert displayed[1][0].data.startswith("```python\ndef record(")  # a method loses its indentation
    assert all(shown.data.endswith("```") for shown, _ in displayed)

"""Parameters: declared once with type and range, and refused by name before anything trains."""

import subprocess
import sys

import pytest

from lib.report import parameters
from lib.report.parameters import ParameterError, check, declared, injected, is_declaration

CELL = """\
from lib.report.parameters import Count, Device, Flag, Rate, Seed, Sample, Sigma, Some, Text, \
    Fraction, Positive, Several

epochs: Count = 20  # passes over the training images
limit: Some = 0  # images to take; 0 for all # of them
images: Sample = 0  # a set that is scored
folds: Several = 2  # at least two
seed: Seed = 0  # where random numbers start
rate: Rate = 0.1  # of learning
share: Fraction = 0.5
factor: Positive = 2.0  # above nothing
sigma: Sigma = 0.3  # of pixel noise
rates: list[Rate] = [0.1, 0.2]  # to compare
hidden: list[Count] = [64, 32]  # widths
device: Device = "auto"  # where to compute
dataset: Text = "digits"  # its name
flips: Flag = True  # mirror images
"""
DECLARED = declared(CELL)
VALUES = {name: parameter.default for name, parameter in DECLARED.items()}


def refusal(given=(), **values):
    with pytest.raises(ParameterError) as caught:
        check(DECLARED, {**VALUES, **values}, given)
    return str(caught.value)


def test_a_cell_declares_names_types_defaults_and_helps_in_its_order():
    assert list(DECLARED)[:3] == ["epochs", "limit", "images"]
    assert DECLARED["epochs"].default == 20 and DECLARED["epochs"].help == "passes over the training images"
    assert DECLARED["limit"].help == "images to take; 0 for all # of them" and DECLARED["share"].help == ""
    assert DECLARED["rates"].kind == list[parameters.Rate]


def test_what_is_declared_may_be_used():
    assert check(DECLARED, VALUES) == VALUES


def test_a_whole_number_is_taken_for_a_float_and_nothing_else_is_changed():
    checked = check(DECLARED, {**VALUES, "factor": 3, "rates": [1, 0.5]})
    assert checked["factor"] == 3.0 and type(checked["factor"]) is float
    assert list(map(type, checked["rates"])) == [float, float]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("epochs", 0, "epochs = 0: it must be at least 1."),
        ("limit", -1, "limit = -1: it must be at least 0."),
        ("images", 49, "images = 49: it must be 0, which means all, or at least 50."),
        ("images", -1, "it must be 0, which means all, or at least 50."),
        ("folds", 1, "folds = 1: it must be at least 2."),
        ("seed", -1, "it must be from 0 to 4,294,967,295."),
        ("seed", 2**32, "it must be from 0 to 4,294,967,295."),
        ("rate", 0.0, "rate = 0.0: it must be above 0, at most 1."),
        ("rate", 1.1, "it must be above 0, at most 1."),
        ("rate", float("nan"), "rate = nan: it must be above 0, at most 1."),
        ("share", 1.5, "it must be from 0 to 1."),
        ("factor", float("inf"), "factor = inf: it must be above 0 and finite."),
        ("factor", 0.0, "it must be above 0 and finite."),
        ("sigma", 0.001, "it must be from 0.01 to 10."),
        ("rates", [], "it must be a list with one value or more, each above 0, at most 1."),
        ("rates", [0.1, 2.0], "it must be a list with one value or more, each above 0, at most 1."),
        ("hidden", [0], "it must be a list with one value or more, each at least 1."),
        ("device", "gpu", "device = 'gpu': it must be one of 'auto', 'cpu', 'cuda'."),
        ("epochs", 2.5, "epochs = 2.5: a whole number is wanted, without quotes."),
        ("epochs", "3", "epochs = '3': a whole number is wanted"),
        ("epochs", True, "epochs = True: a whole number is wanted"),
        ("rate", "1e-4", "YAML takes 1e-4 for text: write 1.0e-4"),
        ("rate", True, "rate = True: a number is wanted"),
        ("flips", "true", "flips = 'true': True or False is wanted"),
        ("flips", 1, "flips = 1: True or False is wanted"),
        ("dataset", 3, "dataset = 3: text is wanted"),
        ("rates", 0.1, "a list of numbers is wanted. With papermill, write -y 'rates: [0.1, 0.2]'"),
        ("hidden", "[64, 32]", "a list of whole numbers is wanted. With papermill, write -y 'hidden: [64, 32]'"),
        ("hidden", [64, 0.5], "a list of whole numbers is wanted"),
        ("seed", 10**400, "it must be from 0 to 4,294,967,295."),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(name, value, said):
    message = refusal(**{name: value})
    assert said in message and message.count("\n  - ") == 1 and f"{name} = " in message


def test_everything_wrong_is_said_at_once():
    message = refusal(given=["epoch", "colour", "epochs"], epochs=0, rate=2.0)
    assert message.startswith("these parameters need mending:\n  - epoch: unknown. Did you mean epochs?")
    assert "colour: unknown. Known: epochs, limit" in message and message.count("\n  - ") == 4


def test_names_that_papermill_set_are_those_of_its_last_cell():
    cells = ["epochs: int = 1", "# Parameters\nold = 1", "x = 1", '# Parameters\nepochs = 3\nepoch = "a"\n']
    assert injected(cells) == ["epochs", "epoch"] and injected(["x = 1"]) == []
    # A cell of the notebook's own, run before the first is run again in JupyterLab.
    assert injected([*cells, "# Parameters that were best\nbest = 1"]) == ["epochs", "epoch"]


def test_a_declaration_is_told_by_where_its_types_are_from():
    assert is_declaration(CELL)
    for cell in ("epochs: int = 1", "%matplotlib inline", "from lib.report import parameters", ""):
        assert not is_declaration(cell)


def test_it_loads_in_no_time():
    slow = ("torch", "numpy", "matplotlib", "sklearn", "IPython")
    code = f"import sys, lib.report.parameters; sys.exit(any(name in sys.modules for name in {slow}))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("value", [[True], [64, False], [[64]], [64, None]])
def test_what_is_no_whole_number_is_none_in_a_list_either(value):
    assert "hidden = " in refusal(hidden=value) and "a list of whole numbers is wanted" in refusal(hidden=value)

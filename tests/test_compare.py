import json
import re

import pytest

from lib.report.results import Results
from lib.site import compare, published


def run(path, seed, height, width=1.0, **parameters):
    results = Results()
    results.record("height", height, "m", better="high")
    results.record("width", width)
    facts = {"chapter": "01_a", "profile": "laptop", "parameters": {"seed": seed, "epochs": 3, **parameters}}
    results.save(path, facts)
    return path


@pytest.fixture
def three(tmp_path):
    return [run(tmp_path / f"seed-{i}.json", i, height) for i, height in enumerate((1.0, 2.0, 3.0))]


def test_another_run_is_expected_within_the_prediction_interval_of_students_t(three):
    low, high = compare.expected(Results.read(three)["height"])
    reach = 4.302653 * 1.0 * (1 + 1 / 3) ** 0.5  # t of two degrees of freedom, 97.5 %
    assert (low, high) == pytest.approx((2 - reach, 2 + reach), rel=1e-5)
    assert compare.expected(Results.read(three[:1])["height"]) is None


def test_the_page_carries_limits_texts_and_parameters_but_the_free_ones(three):
    shown = compare.page({"01_a": Results.read(three)}).data
    text = re.search(r'<script type="application/json">(.*?)</script>', shown, re.S)[1]
    data = json.loads(text)["01_a"]
    assert data["parameters"] == {"epochs": 3}
    assert data["numbers"]["height"]["limits"] == pytest.approx(
        compare.expected(Results.read(three)["height"]), abs=1e-6
    )
    # All three agree: the same number is inside, within rounding.
    low, high = data["numbers"]["width"]["limits"]
    assert low < 1 < high and high - low < 1e-6
    assert shown.count("</script>") == 2


def test_one_run_gives_no_limits(three):
    text = compare.page({"01_a": Results.read(three[:1])}).data
    assert '"limits":null' in text


def test_the_terminal_says_what_is_outside_and_what_is_another_experiment(three, tmp_path, monkeypatch):
    monkeypatch.setattr(published, "paths", lambda chapter, root: three)
    said = list(compare.lines(run(tmp_path / "mine.json", 7, 99.0, epochs=5)))
    assert any(line.split()[0] == "OUTSIDE" and "height" in line for line in said)
    assert any(line.split()[0] == "inside" and "width" in line for line in said)
    assert "epochs=5 for 3" in said[1] and said[-1].startswith("1 of 2 numbers are inside")

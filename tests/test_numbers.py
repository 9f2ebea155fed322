"""The one rule for numbers and the one rule for verdicts, against cases made by hand."""

import math

import pytest

from lib.report import numbers
from lib.report.numbers import Number, Verdict, claim, difference, verdict, write


def text(value, error=None, form="", **options):
    return write(value, error, form, **options).replace("\u00a0", " ")


@pytest.mark.parametrize(
    ("value", "error", "written"),
    [
        # Three digits where there is no error.
        (0.0123456, None, "0.0123"),
        (1.0, None, "1.00"),
        (9.996, None, "10.0"),
        (-12.345, None, "−12.3"),
        (123.4, None, "123"),
        (1234.5, None, "1,230"),
        (0, None, "0"),
        (-0.0, None, "0"),
        # Two digits of the error decide.
        (0.0063, 0.00021, "0.00630 ± 0.00021"),
        (101.234, 4.04, "101.2 ± 4.0"),
        (141.03, 1.0, "141.0 ± 1.0"),
        (12345.6, 321.0, "12,350 ± 320"),
        (0.5, 0.0996, "0.50 ± 0.10"),
        (0.001, 0.5, "0.00 ± 0.50"),
        (-0.001, 0.5, "0.00 ± 0.50"),
        (0.0, 0.5, "0.00 ± 0.50"),
        (1e6, 1.0, "1,000,000.0 ± 1.0"),
        # A spread of nothing, or of rounding, is no measurement of one.
        (0.0063, 0.0, "0.00630"),
        (0.0063, 1e-15, "0.00630"),
        # Neither e-notation nor a row of zeros.
        (3e-8, None, "3.00 × 10⁻⁸"),
        (0.0001, None, "0.000100"),
        (0.00009994, None, "9.99 × 10⁻⁵"),
        (-3.2e-8, 4e-9, "(−3.20 ± 0.40) × 10⁻⁸"),
        (123456789.0, None, "1.23 × 10⁸"),
        (123456789.0, 2e6, "(1.235 ± 0.020) × 10⁸"),
        # Powers of ten are those of what is written, not of what is rounded.
        (9_999_999.6, None, "1.00 × 10⁷"),
        (9_994_999.0, None, "9,990,000"),
        (0.000099996, None, "0.000100"),
        (9.9996e7, 1e4, "(9.9996 ± 0.0010) × 10⁷"),
        (9.9996e7, 1e5, "(1.0000 ± 0.0010) × 10⁸"),
        (3e-8, 2.0e-7, "(0.3 ± 2.0) × 10⁻⁷"),
        (1e-300, None, "1.00 × 10⁻³⁰⁰"),
        (float("inf"), None, "∞"),
        (float("-inf"), None, "−∞"),
        (float("nan"), None, "not finite"),
    ],
)
def test_numbers_are_written_by_one_rule(value, error, written):
    assert text(value, error) == written


@pytest.mark.parametrize(
    ("value", "error", "form", "written"),
    [
        (0.4321, None, "%", "43.2%"),
        (0.4321, 0.012, "%", "43.2 ± 1.2%"),
        (1.0, None, "%", "100%"),
        (0.0, None, "%", "0%"),
        (0.5, 0.0, "%", "50.0%"),
        (10, None, "count", "10"),
        (1234567, None, "count", "1,234,567"),
        (-3, None, "count", "−3"),
        (10, 0.0, "count", "10"),
        (9.6667, 0.577, "count", "9.67 ± 0.58"),
        (12345678, None, "count", "12,345,678"),
    ],
)
def test_forms(value, error, form, written):
    assert text(value, error, form) == written


def test_the_error_decides_the_digits_where_it_is_not_written():
    assert text(0.0123456, 0.003, with_error=False) == "0.0123"
    assert text(101.26, 0.04, with_error=False) == "101.260"
    assert text(0.4321, 0.012, "%", with_error=False) == "43.2%"


def test_no_line_breaks_within_a_number():
    assert " " not in write(1.0, 0.1) + write(3e-8, 1e-9) + str(Number((1.0,), "m"))


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="'percent': choose one of"):
        write(1.0, form="percent")


# --- several runs --------------------------------------------------------------------


def test_one_run_has_no_spread():
    one = Number((2.0,), "nats")
    assert (one.mean, one.runs, one.deviation, one.standard_error) == (2.0, 1, None, None)
    assert str(one) == "2.00\u00a0nats" and one.text == "2.00" and f"{one:>12}" == "   2.00\u00a0nats"


def test_three_runs_have_mean_deviation_and_standard_error():
    three = Number((1.0, 2.0, 3.0), "dB")
    assert three.mean == 2.0 and three.deviation == 1.0
    assert three.standard_error == pytest.approx(1 / math.sqrt(3))
    assert three.text == "2.0\u00a0±\u00a01.0" and str(three) == "2.0\u00a0dB" and float(three) == 2.0


def test_runs_that_agree_have_no_spread_even_where_rounding_says_so():
    assert Number((0.1, 0.1, 0.1)).deviation == 0.0
    assert Number((0.1 + 0.2, 0.3, 0.3)).deviation == 0.0 and Number((0.1 + 0.2, 0.3, 0.3)).text == "0.300"


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_huge_and_tiny_runs_have_a_spread(scale):
    number = Number((scale, 2 * scale, 3 * scale))
    assert number.deviation == pytest.approx(scale, rel=1e-9, abs=0.0)
    assert number.text.startswith("(2.0\u00a0±\u00a01.0)")


def test_arithmetic_pairs_runs_so_that_what_they_share_cancels():
    a, b = Number((1.0, 2.0, 3.0), "m", better="low"), Number((0.5, 1.5, 2.5), "m")
    gap = a - b
    assert gap.values == (0.5, 0.5, 0.5) and gap.deviation == 0.0 and gap.unit == "m"
    assert (a / b).values == (2.0, 2.0 / 1.5, 3.0 / 2.5) and (a / b).unit == ""
    assert (a - 1).values == (0.0, 1.0, 2.0)
    with pytest.raises(ValueError, match="3 runs cannot be paired with 1"):
        a - Number((1.0,))


# --- verdicts ------------------------------------------------------------------------

FAR, NEAR = Number((1.0, 1.1, 0.9)), Number((2.0, 2.1, 1.9))
BLURRED = Number((0.5, 2.5, 1.2))


def test_a_difference_needs_two_standard_errors():
    assert difference(FAR, NEAR) == -1 and difference(NEAR, FAR) == 1
    assert difference(FAR, BLURRED) == 0
    # The error of three runs 0.9, 1.0, 1.1 is 0.0577, so 1.1154 is the edge.
    assert difference(FAR, 1.115) == 0 and difference(FAR, 1.116) == -1
    assert difference(FAR, 1.0) == 0


def test_both_errors_count():
    # Errors of 0.0577 each make 0.0816: 2.1633 is the edge.
    assert difference(NEAR, Number((2.16, 2.26, 2.06))) == 0 and difference(NEAR, Number((2.17, 2.27, 2.07))) == -1


def test_one_run_shows_nothing_unless_its_images_do():
    assert difference(Number((1.0,)), Number((9.0,))) == 0 and difference(Number((1.0,)), NEAR) == 0
    sure = Number((1.0,), image_error=0.1)
    assert difference(sure, 1.3) == -1 and difference(sure, 1.1) == 0
    assert difference(sure, Number((2.0,), image_error=0.1)) == -1
    assert difference(sure, Number((2.0,))) == 0


def test_runs_without_any_spread_differ_by_whatever_they_differ():
    assert difference(Number((1.0, 1.0)), Number((2.0, 2.0))) == -1
    assert difference(Number((1.0, 1.0)), Number((1.0, 1.0))) == 0
    assert difference(Number((0.1 + 0.2,) * 3), Number((0.3,) * 3)) == 0, "what differs by rounding ties"
    assert difference(Number((0.1 + 0.2,) * 3), 0.3) == 0 and difference(Number((1e-30,) * 2), 0.0) == 1


def test_a_verdict_knows_which_way_is_better():
    assert str(verdict(FAR, NEAR, "low")) == "better" and str(verdict(FAR, NEAR, "high")) == "worse"
    low = Number((1.0, 1.1, 0.9), better="low")
    assert verdict(low, NEAR) == Verdict(numbers.BETTER, 3) and verdict(low, 0.5).outcome == numbers.WORSE
    with pytest.raises(ValueError, match="which way is better"):
        verdict(FAR, NEAR)


def test_what_is_not_shown_is_said_with_the_number_of_runs():
    assert str(verdict(FAR, BLURRED, "low")) == "no difference that 3 runs can show"
    assert str(verdict(Number((1.0,)), NEAR, "low")) == "no difference that 1 run can show"
    assert verdict(Number((1.0, 1.2)), BLURRED, "low").runs == 2


def test_what_cannot_be_compared_is_not():
    assert str(verdict(FAR, 5.0, "low", "other data")) == "not comparable: other data"


def test_claims_hold_fail_or_cannot_be_told():
    assert claim(FAR, "<", NEAR) == "holds" and claim(FAR, ">", NEAR) == "fails"
    assert claim(FAR, "<", BLURRED) == "cannot be told" and claim(FAR, ">", 0.5) == "holds"
    with pytest.raises(ValueError, match="'<='"):
        claim(FAR, "<=", NEAR)

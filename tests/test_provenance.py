"""What a page says of its runs."""

import pytest
from toys import FACTS, PARAMETERS

from lib.report.parameters import declared
from lib.site import provenance

FACTS = {**FACTS, "parameters": {"level": 3, "rate": 0.5, "seed": 0}}


def closing(*runs):
    return provenance.how_this_was_run(runs or [FACTS], declared(PARAMETERS))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 seconds"), (1, "1 second"), (179, "179 seconds"), (4483, "75 minutes"), (12600, "3.5 hours")],
)
def test_durations_are_said_as_people_say_them(seconds, text):
    assert provenance.duration(seconds) == text


def test_every_run_has_a_line():
    second = {**FACTS, "parameters": {**FACTS["parameters"], "seed": 1}, "threads": 2, "resumed_seconds": 120}
    text = closing(FACTS, second)
    assert "laptop, 2 runs" in text
    assert "| 0 | 2026-01-02 | `abcdef0123` | A processor, 1 thread | 3 minutes | 0.5 GB |" in text
    assert "| 1 | 2026-01-02 | `abcdef0123` | A processor, 2 threads | 3 minutes (120 seconds of it in an" in text


def test_a_gpu_has_no_threads_and_a_system_that_tells_no_memory_is_said():
    text = closing({**FACTS, "threads": None, "peak_memory_gb": None})
    assert "| A processor | 3 minutes | not known |" in text
    assert "| 123 GB |" in closing({**FACTS, "peak_memory_gb": 123.4}) and "10 GB" in closing(
        {**FACTS, "peak_memory_gb": 9.99}
    )


def test_parameters_that_are_defaults_need_no_column_for_defaults():
    text = closing({**FACTS, "parameters": {"level": 1, "rate": 0.5, "seed": 0}})
    assert "All parameters have their default values." in text and "| `level` | `1` | of it |" in text


def test_a_parameter_that_the_chapter_no_longer_has_is_shown():
    text = closing({**FACTS, "parameters": {"gone": "a|b"}})
    assert "| `gone` | **`'a\\|b'`** |  | no parameter of today’s chapter |" in text


def test_banners_stand_over_demo_data_and_earlier_code_only():
    today = {"cells": "0" * 16}
    assert provenance.banner([FACTS], today, False) is None
    assert "Demo data" in provenance.banner([{**FACTS, "profile": "demo"}], today, False)
    assert "Demo data" in provenance.banner([{**FACTS, "profile": "demo.custom"}], today, False)
    other = {**FACTS, "commit": "1234567890"}
    text = provenance.banner([{**FACTS, "profile": "demo"}], {"cells": "1" * 16}, False)
    assert "Demo data" in text and "The cells that measure have changed since" in text
    text = provenance.banner([FACTS, other], {"cells": "1" * 16}, False)
    assert "`abcdef0123` and `1234567890` (2026-01-02)" in text

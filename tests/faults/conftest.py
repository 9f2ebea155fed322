"""Counts what the suites of faults and of bad input tried, and what came of it.

With --record the counts are written to published/reliability/faults.json, from which the page
on reliability takes its numbers.
"""

import datetime
import json
from collections import defaultdict

import pytest

from lib.files import ROOT, atomic_write

RECORD = ROOT / "published" / "reliability" / "faults.json"
found = defaultdict(lambda: {"tried": 0, "well": 0})


def pytest_addoption(parser):
    parser.addoption("--record", action="store_true", help="write published/reliability/faults.json")


@pytest.fixture
def tried(request, record_property):
    """Called with what is counted, "faults" or "bad inputs", its kind, and how many (one, if not said)."""

    def count(what, kind, number=1):
        record_property("tried", [what, kind, number])

    return count


def pytest_runtest_logreport(report):
    if report.when != "call" or report.skipped:
        return
    for name, (what, kind, number) in report.user_properties:
        if name == "tried":
            entry = found[what, kind]
            entry["tried"] += number
            entry["well"] += number * report.passed


def pytest_sessionfinish(session):
    if not session.config.getoption("--record") or not found:
        return
    before = json.loads(RECORD.read_text(encoding="utf-8"))["kinds"] if RECORD.exists() else {}
    kinds = {what: dict(before.get(what, {})) for what in ("bad inputs", "faults")}
    for (what, kind), entry in sorted(found.items()):  # of kinds that were not tried now, the last count stays
        kinds[what][kind] = entry
    totals = {
        what: {key: sum(entry[key] for entry in of.values()) for key in ("tried", "well")} for what, of in kinds.items()
    }
    page = {"date": datetime.date.today().isoformat(), "totals": totals, "kinds": kinds}
    with atomic_write(RECORD) as temporary:
        temporary.write_text(json.dumps(page, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

"""What a page says of its runs: a banner at its top, a closed box at its end."""

from collections.abc import Mapping, Sequence
from typing import Any

from lib.report.parameters import Parameter
from lib.site.contents import DEMO

DEMO_WARNING = """\
This page was made on a small set that comes with scikit-learn, to show that everything
works. Its numbers are measured, but they are not the results of this chapter."""
SUPERSEDED = """\
Results are published, but they are those of an earlier version of this chapter's code,
and lack some of what the page shows."""
EARLIER = """\
The cells that measure have changed since. The results below are those of commit
{commit} ({date}); the code beside them is today's."""


def banner(
    facts: Sequence[Mapping[str, Any]], today: Mapping[str, str], superseded: bool
) -> str | None:
    """A warning over demo data and over results of earlier code; else None.

    ``facts`` are the provenances of the runs shown, ``today`` the digests of the
    chapter's code. ``superseded`` if published results exist that cannot be shown.
    """
    title, texts = "", []
    if facts[0]["profile"].removesuffix(".custom") == DEMO:
        title = "Demo data, not results"
        texts = [DEMO_WARNING, SUPERSEDED] if superseded else [DEMO_WARNING]
    if any(run["code"].get("cells") != today.get("cells") for run in facts):
        commits = dict.fromkeys(f"`{run['commit']}`" for run in facts)
        dates = dict.fromkeys(run["date"] for run in facts)
        title = title or "Measured by an earlier version of this chapter's code"
        texts += [EARLIER.format(commit=_listed(commits), date=_listed(dates))]
    return _box(title, "warning", "\n".join(texts)) if texts else None


def how_this_was_run(
    facts: Sequence[Mapping[str, Any]], declared: Mapping[str, Parameter]
) -> str:
    """The end of a page: data, parameters as used, code, machine, duration, memory."""
    first = facts[0]
    versions = ", ".join(f"{name} {number}" for name, number in _versions(first))
    parts = [
        *([_data(first["data"])] if "data" in first else []),
        f"**Profile:** {first['profile']}, {_count(len(facts), 'run')}.",
        _runs(facts),
        f"**Software:** {versions}; {first['system']}.",
        _parameters(first["parameters"], declared),
    ]
    return _box("How this was run", "dropdown", "\n\n".join(parts))


def _data(data: Mapping[str, Any]) -> str:
    images = (
        f"{_count(data['training_images'], 'image')} for training, "
        f"{data['test_images']:,} for testing"
    )
    return f"**Data:** {data['title']}, {images} (SHA-256 `{data['sha256'][:12]}`)."


def _versions(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [("Python", facts["python"]), *facts["versions"].items()]


def _runs(facts: Sequence[Mapping[str, Any]]) -> str:
    head = ["seed", "date", "commit", "machine", "duration", "memory, at most"]
    rows = [
        [
            str(run["parameters"].get("seed", "–")),
            run["date"],
            f"`{run['commit']}`",
            _machine(run),
            duration(run["seconds"]) + _resumed(run.get("resumed_seconds", 0)),
            _memory(run["peak_memory_gb"]),
        ]
        for run in facts
    ]
    return _table(head, rows)


def _resumed(seconds: float) -> str:
    return f" ({duration(seconds)} of it in an earlier go)" if seconds >= 1 else ""


def _memory(gigabytes: float | None) -> str:
    if not gigabytes:
        return "not known"
    return f"{gigabytes:,.{1 if gigabytes < 9.95 else 0}f} GB"


def _machine(run: Mapping[str, Any]) -> str:
    threads = f", {_count(run['threads'], 'thread')}" if run["threads"] else ""
    return run["device"] + threads


def _parameters(used: Mapping[str, Any], declared: Mapping[str, Parameter]) -> str:
    """All parameters as used; those that are not the default are set in bold."""
    rows, changed = [], 0
    for name, value in used.items():
        if name == "seed":  # stands with each run
            continue
        parameter = declared.get(name)
        own = parameter is None or parameter.default != value
        changed += own
        default = "" if parameter is None or not own else _literal(parameter.default)
        shown = f"**{_literal(value)}**" if own else _literal(value)
        meaning = parameter.help if parameter else "no parameter of today’s chapter"
        rows.append([f"`{name}`", shown, default, meaning])
    if not changed:
        note = "All parameters have their default values."
        return (
            f"{note}\n\n{_table(_HEAD[:2] + _HEAD[3:], [r[:2] + r[3:] for r in rows])}"
        )
    note = "In bold: what differs from the defaults of the notebook."
    return f"{note}\n\n{_table(_HEAD, rows)}"


_HEAD = ["parameter", "value", "default", "meaning"]


def duration(seconds: float) -> str:
    """A time as people say it."""
    if seconds < 180:
        return _count(round(seconds), "second")
    if seconds < 3 * 3600:
        return _count(round(seconds / 60), "minute")
    return f"{seconds / 3600:.1f} hours"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _listed(words: Mapping[str, None]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def _literal(value: Any) -> str:
    return f"`{value!r}`" if value != "" else "`''`"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    # A bar ends a cell, even within code.
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |"
        for line in lines
    )


def _box(title: str, kind: str, text: str) -> str:
    return f"::::{{admonition}} {title}\n:class: {kind}\n{text}\n::::"

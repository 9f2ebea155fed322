"""The benchmarks measure what they say: turns alternate, a ratio is of neighbours, and every way does its work."""

import importlib
import json
import subprocess
import sys

import pytest
import torch

from benchmarks import harness
from benchmarks.__main__ import CHAPTERS
from lib.files import ROOT


class Clock:
    """Time that passes only when work is done."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def work(self, seconds, log, name):
        def way(units):
            log.append((name, units))
            self.now += units * seconds[min(len(log) // 2, len(seconds) - 1)]

        return way


def test_ways_take_turns_and_ratios_are_of_neighbours():
    clock, log = Clock(), []
    # A machine that becomes ten times slower half-way slows both: ratios stay what they are.
    ours, other = [0.001] * 3 + [0.01] * 9, [0.003] * 3 + [0.03] * 9
    ways = {"ours": clock.work(ours, log, "ours"), "limit": clock.work(other, log, "limit")}
    case = harness.Case("toy", ways, units=4, images=8, bars={"limit": 0.9})
    found = harness.measure(case, turns=5, clock=clock)
    assert [name for name, _ in log] == ["ours", "limit"] * 6 and {units for _, units in log} == {4}
    ratio, low, high = found["times_as_long"]["limit"]
    assert ratio == pytest.approx(3, rel=0.01) and low <= ratio <= high
    assert set(found["times_as_long"]) == {"limit"} and found["bars"] == {"limit": 0.9}
    middle = found["milliseconds"]["ours"][0]
    assert found["images_per_second"] == pytest.approx(8000 / middle, rel=0.01)


def test_spread_is_the_median_between_the_quartiles():
    assert harness.spread([1.0, 2.0, 3.0, 4.0, 100.0]) == [3.0, 2.0, 4.0]
    assert harness.spread([7.0]) == [7.0] * 3


@pytest.mark.parametrize("name", CHAPTERS)
def test_every_way_of_every_chapter_does_its_work(name):
    torch.manual_seed(0)
    for case in importlib.import_module(f"benchmarks.{name}").cases():
        assert {"ours", "tutorial"} <= set(case.ways) and set(case.bars) <= set(case.ways)
        assert case.unit != "training step" or "limit" in case.ways
        for way in case.ways.values():
            way(1)


def test_batches_of_the_usual_loop_hold_the_images():
    images = torch.randint(256, (6, 3, 8, 8), dtype=torch.uint8)
    x, index = next(harness.endless(images, 4))
    torch.testing.assert_close(x, images[index].float() / 255)
    x, index = next(harness.endless(images[:, :1], 4))
    torch.testing.assert_close(x, images[index, :1].float() / 255)


@pytest.mark.parametrize("arguments", [["nope"], ["--turns", "1"], ["--threads", "0"]])
def test_what_cannot_be_measured_is_refused(arguments):
    done = subprocess.run([sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and ("choose of" in done.stderr or "at least" in done.stderr)


def test_the_published_report_is_whole():
    found = json.loads((ROOT / "published" / "speed" / "speed.json").read_text(encoding="utf-8"))
    assert list(found["chapters"]) == CHAPTERS and found["growth"] and found["starting"]
    assert [row["threads"] for row in found["threads_beside"]] == [1, 2]
    peers = [name for name, chapter in found["chapters"].items() if "peer" in chapter["cases"][0]["times_as_long"]]
    assert peers == ["autoencoders", "simsiam"], "measured with both peers"

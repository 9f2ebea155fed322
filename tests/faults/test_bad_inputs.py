"""Bad input, generated from the parameters that chapters declare, and a table of contradictions.

Each is refused before anything trains, by the parameter's name and with a remedy; none ends in a raw error, none hangs.
The same inputs come each time.
"""

import math
import re
import string
import time
from typing import get_args

import opened
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from opened import CONVERTED, UNCONVERTED, Trains, open_chapter

from lib.data import NAMES, DataError, load
from lib.report import chapter, parameters, unconverted
from lib.site import contents, engine
from lib.site.contents import BookError

REMEDY = (
    "must |needs |wanted|write|Did you mean|Known:|at most|at least|[Cc]hoose|[Ss]ay |[Aa]sk for|is one of|remove"
    "|Rename|repair|use |has only|Lay |partner|needed|Give |may exceed"
)
SECONDS = 120
"""Longer than any refusal takes on a busy machine; what takes longer hangs."""

EACH = 300
"""Inputs for each chapter's parameters."""

repeatable = settings(
    phases=[Phase.generate],
    max_examples=EACH,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

OF_NO_TYPE = st.sampled_from([None, {}, {"a": 1}, (1,), b"1", 1j, [[1]], [None], object])
TEXT = st.text(string.ascii_letters + "µ🙂<$ '\"", min_size=1, max_size=8)
NOT_FINITE = st.sampled_from([math.inf, -math.inf, math.nan])


def bad_single(kind, limit):
    """Values that one of a type and a range may not have."""
    if kind is bool:
        return st.one_of(OF_NO_TYPE, st.integers(), TEXT)
    if kind is str:
        wrong = st.one_of(OF_NO_TYPE, st.integers(), st.floats(), st.booleans())
        return st.one_of(wrong, TEXT.filter(lambda text: not limit.holds(text))) if limit else wrong
    wrong = st.one_of(OF_NO_TYPE, TEXT, st.booleans(), st.integers(1, 9).map(str), NOT_FINITE)
    if kind is int:
        wrong = st.one_of(wrong, st.floats(0.1, 9.9))
    if isinstance(limit, parameters.Range):
        numbers = st.integers(-(10**12), 10**12) if kind is int else st.floats(-1e12, 1e12)
        outside = numbers.filter(lambda value: not limit.holds(value))
        beyond = [v for v in (limit.low - 1, -1, limit.high + 1, 2**32) if math.isfinite(v) and not limit.holds(v)]
        wrong = st.one_of(wrong, outside, *([st.sampled_from(list(map(kind, beyond)))] if beyond else []))
    return wrong


def bad(kind):
    """Values that a declared type does not allow."""
    item = parameters._item(kind)
    if item is None:
        return bad_single(*parameters._parts(kind))
    one = bad_single(*parameters._parts(item)).filter(lambda value: not isinstance(value, list))
    return st.one_of(
        st.just([]),
        st.integers(),
        TEXT,
        st.none(),
        st.booleans(),
        st.lists(one, min_size=1, max_size=3),
        st.tuples(one),
    )


def refused(error, name, seconds, of=(parameters.ParameterError, unconverted.ParameterError)):
    said = str(error.value)
    assert isinstance(error.value, of), f"raw: {error.value!r}"
    assert name in said, f"{said!r} does not name {name}"
    assert re.search(REMEDY, said), f"{said!r} has no remedy"
    assert seconds < SECONDS, f"took {seconds:.0f} s"


@pytest.mark.parametrize("name", CONVERTED)
def test_what_a_declared_type_does_not_allow(name, tried):
    declared, before = contents.declared(name), opened.defaults(name)
    seen = set()

    @repeatable
    @given(st.data())
    def check(data):
        wrong = data.draw(st.sampled_from(sorted(declared)))
        value = data.draw(bad(declared[wrong].kind))
        started = time.monotonic()
        with pytest.raises(Exception) as error:
            chapter.start(name, opened.given(before, **{wrong: value}))
        refused(error, f"{wrong} = ", time.monotonic() - started)
        seen.add((wrong, repr(value)))

    check()
    tried("bad inputs", f"values of parameters, {name}", len(seen))


class Ruled(Exception):
    """The rules of a chapter, as it states them."""


def rules_of(name, monkeypatch):
    """What an unconverted chapter passes to ``start``."""

    def start(_, __, rules):
        raise Ruled(rules)

    monkeypatch.setattr(unconverted, "start", start)
    namespace = opened.defaults(name)
    with pytest.raises(Ruled) as caught:
        for cell in opened.code_cells(opened.read(name))[1:]:
            exec(compile(cell.source, cell.id, "exec"), namespace)
    monkeypatch.undo()
    return caught.value.args[0]


UNRULED = {"dataset", "data_root", "inception_weights"}
"""Texts of which any may be right."""


def bad_by_type(name, kind):
    if kind in (list[int], list[float], list[str]):
        return bad(kind).filter(lambda value: value != [])
    limit = parameters.Choice(("auto", "cpu", "cuda")) if name == "device" else None
    if kind is str and name not in UNRULED:
        limit = limit or parameters.Choice(())
        return bad_single(str, limit).filter(lambda v: v not in ("SGD", "Adam"))
    if kind in (int, float):
        return bad_single(kind, parameters.Range(0, 2**32 - 1 if name == "seed" else math.inf))
    return bad_single(kind, None)


@pytest.mark.parametrize("name", UNCONVERTED)
def test_what_a_chapters_rules_do_not_allow(name, tried, monkeypatch):
    rules, before = rules_of(name, monkeypatch), opened.defaults(name)
    types = before["__annotations__"]
    seen = set()

    @repeatable
    @given(st.data())
    def check(data):
        wrong = data.draw(st.sampled_from(sorted(types)))
        value = data.draw(bad_by_type(wrong, types[wrong]))
        started = time.monotonic()
        with pytest.raises(Exception) as error:
            unconverted.start(name, opened.given(before, **{wrong: value}), rules)
        refused(error, f"{wrong} = ", time.monotonic() - started)
        seen.add((wrong, repr(value)))

    check()
    tried("bad inputs", f"values of parameters, {name}", len(seen))


@pytest.mark.parametrize("name", CONVERTED)
def test_names_that_no_chapter_has(name, tried):
    before, seen = opened.defaults(name), set()

    @settings(repeatable, max_examples=60)
    @given(st.text(string.ascii_lowercase + "_", min_size=1, max_size=12).filter(str.isidentifier))
    def check(unknown):
        if unknown in before:
            return
        with pytest.raises(parameters.ParameterError, match=rf"{unknown}: unknown\. (Did you mean|Known:)"):
            chapter.start(name, opened.given(before, **{unknown: 1}))
        seen.add(unknown)

    check()
    tried("bad inputs", "unknown names", len(seen))


def test_data_sets_that_cannot_be_had(tried, tmp_path):
    seen = set()

    @settings(repeatable, max_examples=150)
    @given(st.one_of(TEXT, TEXT.map("folder:".__add__)), st.sampled_from([None, 0, -1, 10**9]))
    def check(name, count):
        if name in NAMES:
            return
        started = time.monotonic()
        with pytest.raises(Exception) as error:
            load(name, root=tmp_path, train=count)
        refused(error, "", time.monotonic() - started, DataError)
        seen.add((name, count))

    check()
    for name, count in (("digits", 0), ("digits", -3), ("digits", 1438), ("digits", 10**9), ("photo_digits", 0)):
        with pytest.raises(DataError, match="images"):
            load(name, root=tmp_path, train=count)
        seen.add((name, count))
    tried("bad inputs", "data sets", len(seen))


def test_what_make_is_given(tried):
    seen = set()

    @settings(repeatable, max_examples=150)
    @given(TEXT, st.integers())
    def check(text, number):
        with pytest.raises(BookError, match=r"SEEDS=.*whole numbers are wanted"):
            engine.seeds(text)
        with pytest.raises(BookError, match=r"no profile .* Known: demo"):
            engine.profile(text)
        with pytest.raises(BookError, match="CHAPTER is one of 01_"):
            contents.find(text)
        seen.update({("SEEDS", text), ("PROFILE", text), ("CHAPTER", text)})
        if not 0 <= number < 2**32:
            with pytest.raises(BookError, match="below 2³²"):
                engine.seeds(number)
            seen.add(("SEEDS", number))

    check()
    for arguments in ("-p seed 3", "-y 'seed: 3'", "-p epochs '3", '-p "epochs 3'):
        with pytest.raises(BookError, match=r"say SEEDS|no partner"):
            engine.given(arguments)
        seen.add(("ARGS", arguments))
    tried("bad inputs", "arguments of make", len(seen))


CONTRADICTIONS = [
    ("01_autoencoders", {"latent_dim": 5000}, "latent_dim = 5000"),
    ("01_autoencoders", {"batch_size": 2000}, "batch_size = 2000"),
    ("01_autoencoders", {"train_images": 10**6}, "train_images = 1000000"),
    ("01_autoencoders", {"test_images": 361}, "test_images = 361"),
    ("01_autoencoders", {"dataset": "nope"}, "dataset"),
    ("01_autoencoders", {"dataset": "folder:nope"}, "nope"),
    ("01_autoencoders", {"dataset": "digits", "train_images": 0, "batch_size": 1438}, "batch_size = 1438"),
    ("02_autodecoders", {"train_images": 2}, "latent_dim = 3: at most 2"),
    ("02_autodecoders", {"test_images": 2}, "few_images = 4: at most 2"),
    ("02_autodecoders", {"classifier_images": 1}, "classifier_images = 1"),
    ("02_autodecoders", {"latent_dim": 1}, "latent_dim = 1"),
    ("02_autodecoders", {"latent_dim": 61}, "latent_dim = 61: at most 60"),
    ("02_autodecoders", {"report_latent_dim": 61}, "report_latent_dim = 61: at most 60"),
    ("02_autodecoders", {"sweep_dims": [2, 5000]}, "sweep_dims = [2, 5000]: at most 60"),
    ("02_autodecoders", {"sweep_dims": [1]}, "sweep_dims = [1]"),
    ("02_autodecoders", {"walk": ["x", "9", "7"]}, "no such class"),
    ("02_autodecoders", {"walk": ["0", "10", "7"]}, "no such class"),
    ("02_autodecoders", {"dataset": "photo_digits", "walk": ["0", "9", "Shirt"]}, "no such class"),
    ("02_autodecoders", {"mapped": 61}, "mapped = 61"),
    ("02_autodecoders", {"batch_size": 61}, "batch_size = 61"),
    ("02_autodecoders", {"few_images": 61}, "few_images = 61"),
    ("02_autodecoders", {"channels": [4] * 6}, "channels"),
    ("03_likelihood", {"counts": [1]}, "counts = [1]"),
    ("03_likelihood", {"counts": [2, 3]}, "counts = [2, 3]"),
    ("03_likelihood", {"scored_images": 1}, "scored_images = 1"),
    ("03_likelihood", {"train_images": 200, "validation_images": 150, "batch_size": 10}, "train_images = 200"),
    ("03_likelihood", {"validation_images": 150}, "validation_images = 150"),
    ("03_likelihood", {"best_images": 5000}, "best_images = 5000"),
    ("03_likelihood", {"dataset": "photo_digits"}, "dataset = 'photo_digits'"),
    ("03_likelihood", {"seed": 2**32}, "seed = 4294967296"),
    ("04_wgan_gp", {"steps": 1}, "steps = 1"),
    ("04_wgan_gp", {"sweep_sigmas": math.inf}, "sweep_sigmas = inf"),
    ("04_wgan_gp", {"penalty_weight": math.inf}, "penalty_weight = inf"),
    ("04_wgan_gp", {"report_eps": math.inf}, "report_eps = inf"),
    ("04_wgan_gp", {"train_images": 10}, "samples = 32"),
    ("04_wgan_gp", {"test_images": 2}, "samples = 32"),
    ("04_wgan_gp", {"samples": 16, "neighbours": 16}, "neighbours = 16"),
    ("04_wgan_gp", {"pairs": 33}, "pairs = 33"),
    ("04_wgan_gp", {"sweep_codes": 33}, "sweep_codes = 33"),
    ("04_wgan_gp", {"batch_size": 64}, "n_critic · batch_size = 128"),
    ("04_wgan_gp", {"cells": 1}, "cells = 1"),
    ("04_wgan_gp", {"cells": 6}, "cells = 6"),
    ("04_wgan_gp", {"inception_weights": "nowhere.pth"}, "inception_weights = 'nowhere.pth'"),
    ("05_simsiam", {"train_images": 2}, "train_images = 2"),
    ("05_simsiam", {"dataset": "digits"}, "dataset = 'digits'"),
    ("05_simsiam", {"batch_size": 121}, "batch_size = 121"),
    ("05_simsiam", {"k": 1000}, "k = 1000"),
    ("05_simsiam", {"probe_images": 61}, "probe_images = 61"),
    ("05_simsiam", {"fast_views": 21}, "fast_views = 21"),
    ("05_simsiam", {"validation_images": 61}, "validation_images = 61"),
    ("05_simsiam", {"patch_size": 32}, "patch_size = 32"),
    ("05_simsiam", {"patch_counts": [3, 100_001]}, "patch_counts = [3, 100001]"),
    ("05_simsiam", {"blocks": [1] * 9}, "blocks"),
    ("05_simsiam", {"temperature": math.inf}, "temperature = inf"),
    ("05_simsiam", {"smallest_crop": math.inf}, "smallest_crop = inf"),
    ("06_unmixing", {"first_kind": "digits", "second_kind": "digits"}, "second_kind = 'digits'"),
    ("06_unmixing", {"first_kind": "digits", "second_kind": "photo_digits"}, "second_kind = 'photo_digits'"),
    ("06_unmixing", {"second_kind": "digits"}, "second_kind = 'digits'"),
    ("06_unmixing", {"train_images": 2}, "protocol_images = 20"),
    ("06_unmixing", {"train_images": 1}, "train_images = 1"),
    ("06_unmixing", {"test_images": 1}, "test_images = 1"),
    ("06_unmixing", {"photographs": 61}, "photographs = 61"),
    ("06_unmixing", {"curve": [5000]}, "curve = [5000]"),
    ("06_unmixing", {"channels": [2] * 9}, "channels"),
    ("06_unmixing", {"small_channels": [2] * 9}, "channels"),
    ("06_unmixing", {"patch": 3}, "patch 3"),
    ("06_unmixing", {"other_weight": 1.0}, "other_weight = 1.0"),
    ("06_unmixing", {"learning_rate": math.inf}, "learning_rate = inf"),
]
"""Parameters that are possible alone, and not together, or not with these data."""


@pytest.mark.parametrize(("name", "values", "named"), CONTRADICTIONS)
def test_a_contradiction_is_refused_before_anything_trains(name, values, named, tried, monkeypatch):
    tried("bad inputs", "contradictions")
    started = time.monotonic()
    with pytest.raises(Exception) as error:
        open_chapter(name, monkeypatch, **values)
    assert not isinstance(error.value, Trains), "it trains"
    refused(error, named, time.monotonic() - started, (ValueError, DataError))


def test_the_types_of_parameters_are_those_that_are_generated_here():
    """A new kind of limit has a strategy of its own, or nothing of it would be tried."""
    for name in CONVERTED:
        for parameter in contents.declared(name).values():
            kind = parameters._item(parameter.kind) or parameter.kind
            base, limit = parameters._parts(kind)
            assert base in (bool, int, float, str)
            assert limit is None or isinstance(limit, (parameters.Range, parameters.Choice)), get_args(kind)

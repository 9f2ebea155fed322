"""The explorer of chapter 6: two photographs, their mixture, and the answers to it."""

import itertools

import numpy as np
import pytest
from test_explorer import data_of, images, opened, still_of, tile

from lib.report import mixer

PAIRS = list(itertools.combinations(range(4), 2))


def made(**changes):
    given = {
        "photos": images(4, 3, 6, 5),
        "names": ["cat", "dog", "ship", "</script>"],
        "answers": {"plain": images(6, 3, 3, 6, 5, seed=1), "PIT": images(6, 3, 3, 6, 5, seed=2)},
        "weights": [0, 0.5, 1],
        "gains": {"plain": [0.04] * 6, "PIT": np.linspace(-1, 4, 6)},
        "title": "Mixed",
    }
    return mixer.pairs(**{**given, **changes})


def test_the_sprite_holds_photographs_then_answers_where_the_script_looks_for_them():
    photos, answers = images(4, 3, 6, 5), images(6, 3, 3, 6, 5, seed=2)
    data = data_of(made())
    sprite = opened(data["sprite"]).convert("RGB")
    for i in range(4):
        assert np.array_equal(tile(sprite, data, i), photos[i].permute(1, 2, 0).numpy())
    for pair, (i, j) in enumerate(PAIRS):
        # As explorer.js counts pairs i < j.
        assert pair == i * 4 - i * (i + 1) // 2 + j - i - 1
        for k in range(3):
            index = 4 + (1 * 6 + pair) * 3 + k  # of the second network
            assert np.array_equal(tile(sprite, data, index), answers[pair, k].permute(1, 2, 0).numpy())
    assert data["photos"][3] == "</script>" and data["networks"] == ["plain", "PIT"]
    assert data["gains"][1] == [-1.0, 0.0, 1.0, 2.0, 3.0, 4.0] and data["weights"] == [0, 0.5, 1]


def test_nothing_on_the_page_ends_the_script_and_there_is_a_still_image():
    text = made().html
    assert text.count("<script") == text.count("</script>") == 2
    assert 'alt="Mixed: two photographs' in text and np.asarray(still_of(made())).std() > 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answers": {"plain": images(6, 2, 3, 6, 5), "PIT": images(6, 3, 3, 6, 5)}}, "plain is uint8 .*shape"),
        ({"photos": images(4, 3, 6, 5) / 255}, "photos is float32"),
        ({"names": ["cat"]}, "4 photographs need as many names"),
        ({"start": (1, 0)}, "a start i < j"),
        ({"weights": [0, 0.4, 1]}, "a weight of 0.5"),
        ({"gains": {"plain": [0] * 6, "PIT": [0] * 5}}, "gains: 6 numbers for each network"),
        ({"gains": {"plain": [0] * 6}}, "gains: 6 numbers for each network"),
        ({"limit": 1000}, "even with its images compressed"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        made(**changes)

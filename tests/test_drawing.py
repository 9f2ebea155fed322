import base64
import json
import re

import numpy as np
import pytest
import torch

from lib import nets
from lib.quantise import quantise
from lib.report import drawing
from lib.report.results import Results

SHAPE = (1, 8, 8)


def network(sizes, seed=0):
    """A multilayer perceptron and what is packed of it."""
    torch.manual_seed(seed)
    made = nets.mlp(sizes)
    return made, drawing.Network(*(np.asarray(part) for part in quantise(made)))


def pair(seed=0, shape=SHAPE, outputs=2):
    pixels = int(np.prod(shape))
    encoder, decoder = network([pixels, 6, outputs], seed), network([2, 6, pixels], seed)
    codes = np.random.default_rng(seed).normal(size=(40, 2)).astype(np.float16)
    return drawing.Pair(encoder[1], decoder[1], codes)


def made(pairs=None, shape=SHAPE, **changes):
    examples = np.random.default_rng(0).integers(256, size=(3, *shape), dtype=np.uint8)
    given = {
        "pairs": pairs or {"AE": pair(shape=shape), "VAE": pair(1, shape, outputs=4)},
        "labels": np.arange(40) % 3,
        "classes": ["zero", "one", "</script><b>two"],
        "examples": examples,
        "title": "Draw",
    }
    return drawing.drawing(**{**given, **changes})


def data_of(piece):
    return json.loads(re.search(r'<script type="application/json"[^>]*>(.*?)</script>', piece.html, re.S)[1])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_packed_network_computes_what_torch_does_with_its_rounded_weights(seed):
    torch_network, packed = network([64, 12, 7, 3], seed)
    x = torch.rand(50, 64)
    theirs, ours = torch_network(x).detach().numpy(), packed(x.numpy())
    # 64 weights, each off by less than 1/254 of its row's largest, and two layers more.
    assert 0 < np.abs(theirs - ours).max() < 0.05 * np.abs(theirs).max()


def test_the_page_gets_every_byte_and_the_sizes():
    _, packed = network([64, 12, 3])
    found = packed.packed()
    weights = np.frombuffer(base64.b64decode(found["weights"]), "<i1")
    bias = np.frombuffer(base64.b64decode(found["bias"]), "<f4")
    assert found["sizes"] == [64, 12, 3]
    assert (weights == packed.weights).all() and np.allclose(bias, packed.bias)


def test_the_tool_carries_pairs_examples_and_names_as_text():
    piece = made()
    data = data_of(piece)
    assert [one["name"] for one in data["pairs"]] == ["AE", "VAE"]
    assert len(base64.b64decode(data["examples"])) == 3 * 64
    assert data["classes"][2] == "</script><b>two"
    assert piece.html.count("<script") == piece.html.count("</script>") == 2
    left, right, bottom, top = data["pairs"][0]["extent"]
    assert right - left == pytest.approx(top - bottom, abs=0.002), "both axes on one scale"
    assert 35 <= len(data["pairs"][0]["x"]) <= 40


def test_a_pair_of_a_book_takes_at_most_400_kilobytes():
    codes = np.zeros((40, 2), np.float16)
    codes[0] = 1

    def network_of(sizes):
        return network(sizes)[1]

    pairs = {
        name: drawing.Pair(network_of([784, 80, 40, out]), network_of([2, 40, 80, 784]), codes)
        for name, out in (("AE", 2), ("VAE", 4))
    }
    examples = np.zeros((10, 1, 28, 28), np.uint8)
    data = data_of(made(pairs, examples=examples))
    weights = json.dumps([[one["encoder"], one["decoder"]] for one in data["pairs"]])
    assert len(weights) <= 400_000


def test_colour_images_are_taken_and_their_still_is_colourful():
    assert data_of(made(shape=(3, 8, 8)))["shape"] == [3, 8, 8]


def test_a_pair_for_other_images_or_longer_codes_is_refused_by_name():
    with pytest.raises(ValueError, match="AE: a pair for 48 and 48 pixels; the examples have 64"):
        made({"AE": pair(shape=(3, 4, 4))})
    wrong = drawing.Pair(pair().encoder, network([3, 6, 64])[1], pair().codes)
    with pytest.raises(ValueError, match="VAE: codes of two numbers"):
        made({"VAE": wrong})


def test_a_pair_is_read_from_a_chapters_results():
    results, given = Results(), pair()
    results.keep("drawing_codes_ae", given.codes)
    for half in ("encoder", "decoder"):
        for kind in drawing.Network._fields:
            results.keep(f"drawing_ae_{half}_{kind}", getattr(getattr(given, half), kind))
    found = drawing.pair(results, "drawing_ae")
    x = np.random.default_rng(1).random((5, 64), dtype=np.float32)
    assert (found.encoder(x) == given.encoder(x)).all() and (found.codes == given.codes).all()


def test_codes_outside_the_plane_are_left_out_and_the_others_keep_their_labels():
    codes = np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32)
    codes[0] = 1000, 0  # far outside, and first: labels must not move up
    one = pair()._replace(codes=codes)
    labels = np.arange(400) % 3
    found = data_of(made({"AE": one}, labels=labels))["pairs"][0]
    left, right, bottom, top = found["extent"]
    inside = (codes[:, 0] >= left) & (codes[:, 0] <= right) & (codes[:, 1] >= bottom) & (codes[:, 1] <= top)
    assert not inside[0] and right < 10
    assert found["labels"] == labels[inside].tolist() and len(found["x"]) == inside.sum()
    across = (codes[inside, 0] - left) / (right - left)
    down = (top - codes[inside, 1]) / (top - bottom)
    assert np.abs(np.array(found["x"]) / 1000 - across).max() < 0.001
    assert np.abs(np.array(found["y"]) / 1000 - down).max() < 0.001

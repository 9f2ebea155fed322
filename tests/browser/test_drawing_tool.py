"""The drawing tool computes in a browser what torch computes."""

import shutil

import numpy as np
import pytest
import torch
from playwright.sync_api import sync_playwright

from lib import nets, vae
from lib.quantise import quantise
from lib.report import drawing

SHAPE = (1, 28, 28)


def network_of(network):
    return drawing.Network(*(np.asarray(part) for part in quantise(network)))


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    return {
        "AE": vae.Autoencoder(nets.mlp_encoder(SHAPE, [80, 40], 2), nets.mlp_decoder(2, [40, 80], SHAPE)),
        "VAE": vae.VAE(nets.mlp_encoder(SHAPE, [80, 40], 4), nets.mlp_decoder(2, [40, 80], SHAPE)),
    }


@pytest.fixture(scope="module")
def page(models, tmp_path_factory):
    programs = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    program = next(filter(None, map(shutil.which, programs)), None)
    if program is None:
        pytest.skip(f"no browser is installed: none of {', '.join(programs)}")
    codes = torch.randn(50, 2).numpy()
    pairs = {
        name: drawing.Pair(network_of(model.encoder), network_of(model.decoder), codes)
        for name, model in models.items()
    }
    examples = np.random.default_rng(0).integers(256, size=(4, *SHAPE), dtype=np.uint8)
    made = drawing.drawing(pairs, np.zeros(50, int), ["digit"], examples, title="Draw")
    path = tmp_path_factory.mktemp("drawing") / "page.html"
    path.write_text(f"<!doctype html><html data-theme='light'><body>{made.html}", encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1100, "height": 900})
        opened.goto(path.as_uri())
        opened.wait_for_function("document.querySelector('.lwl-explorer').networks")
        yield opened
        browser.close()


@pytest.mark.parametrize("name", ["AE", "VAE"])
def test_the_page_encodes_and_decodes_100_images_as_torch_does(page, models, name):
    x = torch.rand(100, *SHAPE, generator=torch.Generator().manual_seed(1))
    z = torch.randn(100, 2, generator=torch.Generator().manual_seed(2))
    run = "([name, what, rows]) => rows.map((row) => [...host.networks[name][what](row)])"
    run = run.replace("host", "document.querySelector('.lwl-explorer')")
    codes = np.array(page.evaluate(run, [name, "encode", x.flatten(1).tolist()]))
    images = np.array(page.evaluate(run, [name, "decode", z.tolist()]))
    with torch.no_grad():
        encoded = models[name].encode(x)
        encoded = encoded if name == "AE" else encoded[0]
        decoded = models[name].decode(z).flatten(1)
    # What eight bits cost, and nothing more: numpy with the same rounded weights agrees far more closely.
    assert np.abs(codes - encoded.numpy()).max() < 0.02 * encoded.abs().max().item() + 0.005
    assert np.abs(images - decoded.numpy()).max() < 0.01
    rounded = network_of(models[name].encoder)(x.flatten(1).numpy())[:, :2]
    assert np.abs(codes - rounded).max() < 1e-5


@pytest.mark.parametrize("place", [(60, 40), (120, 110), (5, 150)])
def test_a_stroke_is_centred_and_scaled_as_mnist_is(page, place):
    left, top = place
    ink = np.zeros((280, 280), np.float32)
    ink[top : top + 100, left : left + 20] = 1  # an L, 100 high and 60 wide
    ink[top + 80 : top + 100, left : left + 60] = 1
    prepare = "(ink) => [...document.querySelector('.lwl-explorer').prepare(Float32Array.from(ink), 280, 28)]"
    found = np.array(page.evaluate(prepare, ink.flatten().tolist())).reshape(28, 28)
    rows, columns = (np.flatnonzero(found.max(axis) > 0.5) for axis in (1, 0))
    assert rows[-1] - rows[0] + 1 == pytest.approx(20, abs=1) and columns[-1] - columns[0] + 1 == pytest.approx(
        12, abs=1
    )
    y, x = np.mgrid[:28, :28] + 0.5
    for centre in ((found * x).sum() / found.sum(), (found * y).sum() / found.sum()):
        assert centre == pytest.approx(14, abs=0.1)
    assert found.max() <= 1 and found.min() >= 0


def test_nothing_drawn_is_nothing(page):
    empty = "() => document.querySelector('.lwl-explorer').prepare(new Float32Array(280 * 280), 280, 28)"
    assert page.evaluate(empty) is None


def test_the_pad_answers_to_a_stroke_and_clear_and_a_test_image_makes_room(page):
    said = page.locator("[role=status]")
    pad = page.locator("canvas.pad")
    box = pad.bounding_box()
    before = said.inner_text()
    page.mouse.move(box["x"] + 60, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 60, box["y"] + 150, steps=5)
    page.mouse.up()
    page.wait_for_timeout(100)
    drawn = said.inner_text()
    assert drawn != before
    ink = """c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data
      .reduce((n, v, i) => n + (i % 4 < 3 && v > 99), 0)"""
    share = pad.evaluate(ink) / 3 / 280**2
    assert 0.02 < share < 0.15, "the stroke alone: the test image made room"
    page.get_by_role("button", name="Clear").click()
    assert pad.evaluate(ink) == 0
    page.get_by_role("button", name="Test image 2").click()
    assert said.inner_text() != drawn


def test_a_plane_answers_to_the_arrow_keys(page):
    plane = page.locator(".map canvas").last
    plane.focus()
    before = page.locator("[role=status]").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator("[role=status]").inner_text() != before

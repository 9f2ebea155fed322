import base64
import io
import json
import re
import shutil

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from lib.report import explorer, player

matplotlib.use("agg")
rng = np.random.default_rng(0)


def data_of(made):
    pattern = r'<script type="application/json"[^>]*>(.*?)</script>'
    return json.loads(re.search(pattern, made.html, re.S)[1])


def opened(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.split("base64,")[1])))


def frames(count=5, height=20, width=40):
    """Each brighter than the one before, with one coloured pixel."""
    levels = np.linspace(0, 200, count).astype(np.uint8)
    made = np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).copy()
    made[:, 0, 0] = [255, 0, 0]
    return made


def an_animation(**changes):
    return player.animation(**{"frames": frames(), "title": "A film", **changes})


def rows(moments=5):
    first = rng.integers(256, size=(moments, 3, 1, 8, 6)).astype(np.uint8)
    return {"AE": first, "VAE": first[::-1]}


def a_walk(**changes):
    return player.walk(**{"rows": rows(), "title": "A walk", **changes})


# --- what is on the page -------------------------------------------------------------


@pytest.mark.parametrize("make", [an_animation, a_walk])
def test_a_player_needs_nothing_from_outside(make):
    text = make().html
    outside = r"https?:|//[\w.-]+\.\w|@import|\bfetch\(|import\(|<link"
    assert not re.search(outside + r"|src=(?!\"data:)", text)
    assert text.count("<script") == text.count("</script>") == 2
    assert make(title="A").html == make(title="A").html or make is a_walk


def test_frames_survive_and_one_stands_still():
    made = an_animation(still=4, labels=["a", "b", "c", "d", "last"])
    data = data_of(made)
    for uri, frame in zip(data["frames"], frames(), strict=True):
        np.testing.assert_array_equal(opened(uri).convert("RGB"), frame)
    still = re.search(r'<img [^>]*src="([^"]+)" alt="([^"]+)"', made.html)
    shown = np.asarray(opened(still[1]).convert("L"), float)
    assert shown[10:, 20:].mean() == pytest.approx(200, abs=4)
    assert still[2] == "A film: one of 5 frames, last."
    assert data["start"] == 4 and data["step"] == 1


def test_a_walks_images_survive_in_the_order_that_the_script_reads():
    given = rows()
    data = data_of(player.walk(given, title="A walk"))
    whole = np.asarray(opened(data["sprite"]).convert("L"))
    assert data["rows"] == ["AE", "VAE"] and data["columns"] == 3
    for moment in range(5):
        for line, images in enumerate(given.values()):
            for column in range(3):
                top, left = 8 * (2 * moment + line), 6 * column
                tile = whole[top : top + 8, left : left + 6]
                np.testing.assert_array_equal(tile, images[moment, column, 0])


def test_fractions_and_tensors_are_the_same_to_a_walk():
    given = rows()
    tensors = {name: torch.tensor(x.copy()).float() / 255 for name, x in given.items()}
    assert player.walk(given, title="W").html == player.walk(tensors, title="W").html


def test_what_is_too_large_loses_detail_and_then_is_refused():
    noise = rng.integers(256, size=(4, 60, 80, 3)).astype(np.uint8)
    assert "image/webp" in data_of(an_animation(frames=noise, limit=90_000))["frames"][0]
    with pytest.raises(ValueError, match="20,000 are allowed"):
        an_animation(frames=noise, limit=20_000)


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (an_animation, {"frames": frames()[..., 0]}, r"\(T, height, width, 3\)"),
        (an_animation, {"frames": frames() / 255.0}, "float64"),
        (an_animation, {"frames": frames(1)}, "two frames or more"),
        (an_animation, {"still": 5}, "still=5"),
        (an_animation, {"labels": ["a"]}, "1 labels for 5 frames"),
        (a_walk, {"rows": {}}, "rows are empty"),
        (a_walk, {"rows": {"a": rows()["AE"], "b": rows(4)["AE"]}}, "of one shape"),
        (a_walk, {"rows": {"a": rows()["AE"][0]}}, r"\(T, N, C, H, W\)"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


# --- in a browser --------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium():
    programs = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    program = next(filter(None, map(shutil.which, programs)), None)
    if program is None:
        pytest.skip("no browser is installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, tmp_path):
    """Opens HTML from a file; what goes wrong on the page fails the test."""
    problems = []
    contexts = []

    def open_(html, **options):
        path = tmp_path / "page.html"
        path.write_text(f"<!doctype html><meta charset=utf-8><body>{html}</body>")
        options = {"reduced_motion": "reduce", **options}
        contexts.append(chromium.new_context(**options))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda said: said.type == "error" and problems.append(said.text))
        page.goto(path.as_uri())
        return page

    yield open_
    for context in contexts:
        context.close()
    assert problems == []


BRIGHT = "c => c.getContext('2d').getImageData(c.width / 2, c.height / 2, 1, 1).data[0]"


@pytest.mark.parametrize("make", [an_animation, a_walk])
def test_a_player_plays_pauses_and_scrubs_by_keys_and_mouse(visit, make):
    page = visit(make(seconds=0.2, hold=0.05, still=1).html)
    slider, button = page.locator("input[type=range]"), page.get_by_role("button")
    picture = page.locator("canvas")
    assert slider.input_value() == "1" and button.inner_text() == "Play"
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert slider.input_value() == "2"
    assert slider.get_attribute("aria-valuetext") == "3 of 5"
    page.keyboard.press("End")
    assert slider.input_value() == "4"
    if make is an_animation:
        assert picture.evaluate(BRIGHT) == 200
    page.keyboard.press("Space")
    assert button.inner_text() == "Pause"
    page.wait_for_function("document.querySelector('.lwl-explorer').shadowRoot.querySelector('input').value != '4'")
    button.click()
    assert button.inner_text() == "Play"
    stopped = slider.input_value()
    page.wait_for_timeout(200)
    assert slider.input_value() == stopped
    button.focus()
    page.keyboard.press("Home")
    assert slider.input_value() == "0"
    picture.click()
    assert button.inner_text() == "Pause"


@pytest.mark.parametrize("make", [an_animation, a_walk])
def test_a_player_plays_once_by_itself_unless_less_motion_is_wanted(visit, make):
    html = make(seconds=0.3, hold=0.1, still=2).html
    page = visit(html, reduced_motion="no-preference")
    pressed = "document.querySelector('.lwl-explorer').shadowRoot.querySelector('button')"
    page.wait_for_function(f"{pressed}.textContent == 'Pause'")
    page.wait_for_function(f"{pressed}.textContent == 'Play'")
    assert page.locator("input").input_value() == ("4" if make is an_animation else "0")
    page = visit(html)
    page.wait_for_timeout(500)
    assert page.locator("input").input_value() == "2"


def test_a_player_is_still_on_paper_and_without_a_script(visit):
    page = visit(a_walk().html)
    page.wait_for_selector("canvas")
    assert not page.locator("img").is_visible()
    page.emulate_media(media="print")
    assert page.locator("img").is_visible() and not page.locator("canvas").is_visible()
    assert visit(a_walk().html, java_script_enabled=False).locator("img").is_visible()


GROUND = "c => [...c.getContext('2d').getImageData(2, 2, 1, 1).data].slice(0, 3)"


def test_an_explorer_follows_the_pages_theme(visit):
    images = rng.integers(256, size=(3, 1, 8, 8)).astype(np.uint8)
    made = explorer.scatter(rng.normal(size=(3, 2)), images, np.arange(3), ["a", "b", "c"], title="Dots")
    page = visit(made.html)
    area = page.locator(".map canvas")
    area.wait_for()
    assert area.evaluate(GROUND) == [255, 255, 255]
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.wait_for_timeout(200)
    assert max(area.evaluate(GROUND)) < 60
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    page.wait_for_timeout(200)
    assert area.evaluate(GROUND) == [255, 255, 255]

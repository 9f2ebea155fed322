"""The built book in a real browser, with no network: ``make book`` (or ``make html``) first, then ``make pages``."""

import re
import shutil
from pathlib import Path
from urllib.parse import unquote, urlparse

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import sync_playwright

from lib.files import ROOT
from lib.site import book

HTML = ROOT / "_build" / "html"
NAMES = sorted(path.stem for path in (HTML / "book").glob("*.html"))
CHAPTERS = [name for name in book.chapters() if name in NAMES]
# What Chromium would do of its own accord, off: it must not even try to reach anything.
QUIET = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
QUIET += " --disable-component-update --disable-sync"


@pytest.fixture(scope="session")
def chromium():
    if not NAMES:
        pytest.skip("no book is built: make book, or make html, first")
    programs = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    program = next(filter(None, map(shutil.which, programs)), None)
    if program is None:
        pytest.skip(f"no browser is installed: none of {', '.join(programs)}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=QUIET.split())
        yield browser
        browser.close()


class Visit:
    """A page opened from its file with every other address blocked, and what went wrong while it loaded."""

    def __init__(self, browser, name, theme="light", width=1280):
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
        self.context.add_init_script(
            f"localStorage.setItem('mode', '{theme}'); localStorage.setItem('theme', '{theme}')"
        )
        self.problems = []
        self.page = self.context.new_page()
        self.page.route(re.compile("^(?!file:|data:|blob:)"), self._refuse)
        self.page.on("console", lambda message: message.type == "error" and self.problems.append(message.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("requestfailed", lambda request: self.problems.append(f"failed: {request.url[:200]}"))
        path, _, query = name.partition("?")
        self.page.goto((HTML / path).as_uri() + ("?" + query if query else ""), wait_until="load")

    def _refuse(self, route):
        self.problems.append(f"asks the network for {route.request.url[:200]}")
        route.abort()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()

    def mathematics_is_ready(self):
        self.page.wait_for_function("!window.MathJax || !MathJax.startup || MathJax.startup.promise")
        self.page.evaluate("window.MathJax?.startup?.promise")


@pytest.mark.parametrize("name", NAMES)
def test_a_page_needs_nothing_from_outside_and_reports_no_error(chromium, name):
    with Visit(chromium, f"book/{name}.html") as visit:
        visit.mathematics_is_ready()
        assert visit.problems == []


@pytest.mark.parametrize("name", NAMES)
def test_mathematics_is_rendered(chromium, name):
    with Visit(chromium, f"book/{name}.html") as visit:
        visit.mathematics_is_ready()
        formulas = visit.page.locator("article .math").count()
        assert formulas >= (10 if name in CHAPTERS else 0)
        assert visit.page.locator("article mjx-container").count() >= formulas
        assert visit.page.locator("mjx-merror").count() == 0


@pytest.mark.parametrize("name", NAMES)
def test_pictures_say_what_is_to_be_seen_and_show_something(chromium, name):
    with Visit(chromium, f"book/{name}.html") as visit:
        pictures = visit.page.locator("article img").evaluate_all("all => all.map(i => [i.src, i.alt, i.naturalWidth])")
        assert len(pictures) >= (5 if name in CHAPTERS else 0)
        for source, alt, width in pictures:
            assert len(alt.split()) >= 3 and not re.fullmatch(r"[\w./-]*[0-9a-f]{16,}[\w./-]*", alt), (source[:80], alt)
            assert width > 0, source[:80]
            if source.startswith("file:"):
                pixels = np.asarray(Image.open(unquote(urlparse(source).path)).convert("L"), float)
                assert pixels.std() > 1, f"{Path(source).name} is blank"


@pytest.mark.parametrize("name", NAMES)
def test_nothing_sticks_out_on_a_phone(chromium, name):
    with Visit(chromium, f"book/{name}.html", width=390) as visit:
        visit.mathematics_is_ready()
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", NAMES)
def test_axe_finds_nothing_serious(chromium, name, theme):
    with Visit(chromium, f"book/{name}.html", theme) as visit:
        visit.mathematics_is_ready()
        assert visit.page.evaluate("document.documentElement.dataset.theme") == theme
        found = Axe().run(visit.page, options={"resultTypes": ["violations"]}).response["violations"]
        serious = [
            f"{violation['id']}: {node['html'][:150]} ({node['failureSummary'][:200]})"
            for violation in found
            if violation["impact"] in ("serious", "critical")
            for node in violation["nodes"][:3]
        ]
        assert not serious, "\n".join(serious)


WITH_EXPLORERS = [name for name in NAMES if "lwl-explorer" in (HTML / "book" / f"{name}.html").read_text()]
PIXELS = (
    "c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].reduce((s, v) => (31 * s + v) % 1e9, 7)"
)


@pytest.mark.parametrize("name", WITH_EXPLORERS)
def test_explorers_answer_to_keys_and_mouse(chromium, name):
    with Visit(chromium, f"book/{name}.html") as visit:
        for explorer in visit.page.locator(".lwl-explorer").all():
            explorer.scroll_into_view_if_needed()
            picture = explorer.locator("canvas.tile").first
            if sliders := explorer.locator("input[type=range]").all():
                before, words = picture.evaluate(PIXELS), sliders[0].get_attribute("aria-valuetext")
                sliders[0].focus()
                visit.page.keyboard.press("End")
                assert sliders[0].get_attribute("aria-valuetext") != words
                assert picture.evaluate(PIXELS) != before
                box = sliders[0].bounding_box()
                visit.page.mouse.click(box["x"] + 3, box["y"] + box["height"] / 2)
                assert sliders[0].input_value() == sliders[0].get_attribute("min")
                continue
            readout, area = explorer.locator("[role=status]"), explorer.locator(".map canvas")
            area.focus()
            said = {readout.inner_text()}
            for key in ("ArrowRight", "ArrowDown", "ArrowLeft"):
                visit.page.keyboard.press(key)
                said.add(readout.inner_text())
            assert len(said) > 2, said
            box = area.bounding_box()
            places = [(x, y) for x in (0.3, 0.5, 0.7) for y in (0.3, 0.5, 0.7)]
            for x, y in places:
                visit.page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
                said.add(readout.inner_text())
            assert len(said) > 6, said
        assert visit.problems == []


@pytest.mark.parametrize("name", WITH_EXPLORERS)
def test_explorers_leave_a_still_picture_where_no_script_runs(chromium, name):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((HTML / "book" / f"{name}.html").as_uri())
    for explorer in page.locator(".lwl-explorer").all():
        still = explorer.locator("img")
        assert still.is_visible() and len(still.get_attribute("alt")) > 20
    context.close()


# Results come one after the other: wait for the one that must come.
def test_the_search_finds_a_word_of_a_chapter(chromium):
    with Visit(chromium, "search.html?q=divergence") as visit:
        visit.page.wait_for_selector("#search-results li:has-text('Auto-decoders')")


@pytest.mark.skipif("04_wgan_gp" not in NAMES, reason="the chapter on WGAN-GP is not in this book")
def test_the_search_finds_wasserstein(chromium):
    with Visit(chromium, "search.html?q=Wasserstein") as visit:
        visit.page.wait_for_selector("#search-results li:has-text('WGAN-GP')")


@pytest.mark.skipif(not NAMES, reason="no book is built: make book, or make html, first")
def test_pages_carry_nothing_of_the_machine_that_made_them():
    for path in HTML.rglob("*.html"):
        page = path.read_text()
        for debris in (str(ROOT), str(Path.home()), "widget-state", "vnd.jupyter.widget", "googletagmanager", "it/s]"):
            assert debris not in page, (path.name, debris)


@pytest.mark.skipif(not NAMES, reason="no book is built: make book, or make html, first")
def test_the_book_is_small_enough_to_carry():
    assert sum(path.stat().st_size for path in HTML.rglob("*") if path.is_file()) <= 40e6

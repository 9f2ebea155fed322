"""The built book in a real browser, with no network: ``make book`` (or ``make html``) first, then ``make pages``."""

import json
import re
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
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
# What chapters that are not converted yet cannot pass is asked of the others.
FINISHED = [name for name in NAMES if name not in CHAPTERS or book.converted(name)]
WIDTHS = (1280, 768, 390)
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


# What is wider than the window, or than its own box, where nothing scrolls.
STICKING_OUT = """() => {
  const scrolls = (e) => /auto|scroll/.test(getComputedStyle(e).overflowX);
  const inside = (e) => {
    for (let up = e; up.tagName !== "ARTICLE"; up = up.parentElement) if (scrolls(up)) return true;
  };
  return [...document.querySelectorAll("article *")]
    .filter((e) => !e.closest("mjx-assistive-mml, .headerlink, canvas") && e.getClientRects().length)
    .filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && !inside(e))
    .map((e) => e.outerHTML.slice(0, 120));
}"""


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", NAMES)
def test_nothing_sticks_out_at_any_width(chromium, name, width):
    with Visit(chromium, f"book/{name}.html", width=width) as visit:
        visit.mathematics_is_ready()
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
        assert visit.page.evaluate(STICKING_OUT) == []


@pytest.mark.parametrize("name", NAMES)
def test_code_of_88_columns_fits_beside_the_contents(chromium, name):
    with Visit(chromium, f"book/{name}.html") as visit:
        cut = visit.page.evaluate("""() => [...document.querySelectorAll("article pre")]
          .filter((p) => p.getClientRects().length && p.scrollWidth > p.clientWidth + 1)
          .filter((p) => Math.max(...p.textContent.split("\\n").map((line) => line.length)) <= 88)
          .map((p) => p.textContent.slice(0, 100))""")
        assert cut == []


@pytest.mark.parametrize("name", NAMES)
def test_a_formulas_number_covers_nothing_on_a_phone(chromium, name):
    with Visit(chromium, f"book/{name}.html", width=390) as visit:
        visit.mathematics_is_ready()
        covered = visit.page.evaluate("""() => [...document.querySelectorAll("article div.math")].filter((box) => {
          const [a, b] = [".eqno", "mjx-container"].map((s) => box.querySelector(s)?.getBoundingClientRect());
          return a && b && a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
        }).length""")
        assert covered == 0


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


def operate_switches(page, explorer, switches):
    told, slider = explorer.locator("[role=status]"), explorer.locator("input[type=range]")
    area = explorer.locator("canvas").first
    before = told.inner_text(), area.evaluate(PIXELS)
    switches[0].focus()
    page.keyboard.press("Space")
    assert not switches[0].is_checked()
    assert told.inner_text() != before[0] and area.evaluate(PIXELS) != before[1]
    switches[0].click()
    assert (told.inner_text(), area.evaluate(PIXELS)) == before
    slider.focus()
    page.keyboard.press("Home")
    assert told.inner_text() != before[0] and slider.input_value() == "0"
    explorer.locator("button.play").click()
    page.wait_for_function("slider => slider.value !== '0'", arg=slider.element_handle())
    explorer.locator("button.play").click()  # pauses
    where = slider.input_value()
    page.wait_for_timeout(400)
    assert slider.input_value() == where


@pytest.mark.parametrize("name", WITH_EXPLORERS)
def test_explorers_answer_to_keys_and_mouse(chromium, name):
    with Visit(chromium, f"book/{name}.html") as visit:
        for explorer in visit.page.locator(".lwl-explorer").all():
            explorer.scroll_into_view_if_needed()
            picture = explorer.locator("canvas.tile").first
            if switches := explorer.locator("input[type=checkbox]").all():
                operate_switches(visit.page, explorer, switches)
                continue
            if sliders := explorer.locator("input[type=range]").all():
                told = explorer.locator("[role=status]")
                before = [told.inner_text() if told.count() else "", picture.evaluate(PIXELS)]
                words = sliders[0].get_attribute("aria-valuetext")
                sliders[0].focus()
                visit.page.keyboard.press("End")
                assert sliders[0].get_attribute("aria-valuetext") != words
                assert [told.inner_text() if told.count() else "", picture.evaluate(PIXELS)] != before
                box = sliders[0].bounding_box()
                visit.page.mouse.click(box["x"] + 3, box["y"] + box["height"] / 2)
                assert sliders[0].input_value() == sliders[0].get_attribute("min")
                continue
            readout, area = explorer.locator("[role=status]"), explorer.locator(".map canvas").first
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


LANDING = "intro"


@pytest.mark.skipif(LANDING not in WITH_EXPLORERS, reason="the landing page of this book has no explorer")
def test_the_landing_page_shows_an_explorer_and_two_cards_at_once_and_is_short(chromium):
    with Visit(chromium, f"book/{LANDING}.html") as visit:
        explorer = visit.page.locator(".lwl-explorer canvas").first
        explorer.wait_for()
        boxes = [card.bounding_box() for card in visit.page.locator(".lwl-card").all()]
        assert len(boxes) == len(CHAPTERS)
        for box in (explorer.bounding_box(), *boxes[:2]):
            assert box["y"] + box["height"] <= 900, box
        assert visit.page.evaluate("document.documentElement.scrollHeight") <= 4 * 900


@pytest.mark.parametrize("name", [name for name in CHAPTERS if name in FINISHED])
def test_a_chapter_shows_a_figure_at_once_and_an_explorer_soon(chromium, name):
    with Visit(chromium, f"book/{name}.html") as visit:
        tops = visit.page.evaluate("""() => ["article figure, .lwl-explorer", ".lwl-explorer", "footer"]
          .map((s) => document.querySelector(s)?.getBoundingClientRect().top + scrollY)""")
        figure, explorer, end = [top / 900 for top in tops]
        assert figure <= 1 and explorer <= 5 and end <= 20, (figure, explorer, end)


def test_figures_enlarge_by_mouse_and_keys_and_escape_closes_them(chromium):
    name = next((n for n in NAMES if "<figure" in (HTML / "book" / f"{n}.html").read_text()), None)
    if name is None:
        pytest.skip("no page has a figure")
    with Visit(chromium, f"book/{name}.html", width=390) as visit:
        image = visit.page.locator("article figure > img").first
        small = image.bounding_box()["width"]
        image.focus()
        for opening in (lambda: visit.page.keyboard.press("Enter"), image.click):
            opening()
            enlarged = visit.page.locator("dialog[open] img")
            assert enlarged.bounding_box()["width"] > 1.5 * small
            visit.page.keyboard.press("Escape")
            assert visit.page.locator("dialog.enlarged").count() == 0
            assert visit.page.evaluate("document.activeElement.tagName") == "IMG"


@pytest.mark.parametrize("name", NAMES)
def test_on_paper_nothing_scrolls_and_stills_take_the_place_of_what_moves(chromium, name):
    with Visit(chromium, f"book/{name}.html", theme="dark", width=718) as visit:
        visit.mathematics_is_ready()
        visit.page.emulate_media(media="print")
        scrolling = visit.page.evaluate("""() => [...document.querySelectorAll("article *")]
          .filter((e) => e.getClientRects().length && e.scrollWidth > e.clientWidth + 1)
          .filter((e) => /auto|scroll/.test(getComputedStyle(e).overflowX))
          .map((e) => e.outerHTML.slice(0, 120))""")
        assert scrolling == []
        for selector in ("details.hide", "button.copybtn", ".bd-sidebar-primary", ".prev-next-footer"):
            assert not any(element.is_visible() for element in visit.page.locator(selector).all()), selector
        for still in visit.page.locator(".lwl-explorer > img").all():
            assert still.is_visible() and still.bounding_box()["width"] > 50


E_NOTATION = re.compile(r"\d(\.\d+)?e[+-]\d")


@pytest.mark.parametrize("name", FINISHED)
def test_pages_are_written_for_readers(chromium, name):
    with Visit(chromium, f"book/{name}.html") as visit:
        prose = visit.page.evaluate("""() => {
          const article = document.querySelector("article").cloneNode(true);
          article.querySelectorAll("pre, code, .math, script, .tag_hide-input details").forEach((e) => e.remove());
          return article.textContent;
        }""")
        cells = visit.page.evaluate("""() => [...document.querySelectorAll("article :is(td, th)")].map((cell) => {
          const text = cell.cloneNode(true);
          text.querySelectorAll("code, .math").forEach((e) => e.remove());
          return text.textContent;
        })""")
        assert [cell for cell in cells if re.search(r"± 0(\.0*)?(?![\d.])", cell.replace("\u00a0", " "))] == []
        assert [cell for cell in cells if E_NOTATION.search(cell)] == []
        assert [cell for cell in cells if re.search(r"(?<![\w-])-\d", cell)] == [], "a hyphen for a minus"
        for words in ("shall", "1 threads", "named rightly", "puts right", "not in the published run"):
            assert not re.search(rf"\b{words}\b", prose), words
        folds = visit.page.locator("details.hide > summary").all_text_contents()
        assert [fold for fold in folds if "code cell" in fold] == []
        if name in CHAPTERS and name in FINISHED:
            assert any(fold.strip().startswith("Parameters") for fold in folds)
        assert visit.page.locator("article img[src$='.gif']").count() == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_page_has_a_title_of_its_own_and_says_what_it_is_about(chromium, name):
    with Visit(chromium, f"book/{name}.html") as visit:
        assert visit.page.title().endswith("Learning Without Labels")
        assert len(visit.page.locator("meta[name=description]").first.get_attribute("content")) >= 40


# Results come one after the other: wait for the one that must come.
def test_the_search_finds_a_word_of_a_chapter(chromium):
    with Visit(chromium, "search.html?q=divergence") as visit:
        visit.page.wait_for_selector("#search-results li:has-text('Auto-decoders')")


@pytest.mark.skipif("04_wgan_gp" not in NAMES, reason="the chapter on WGAN-GP is not in this book")
def test_the_search_finds_wasserstein(chromium):
    with Visit(chromium, "search.html?q=Wasserstein") as visit:
        visit.page.wait_for_selector("#search-results li:has-text('WGAN-GP')")


class Served(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Nothing: what was asked for is of no interest."""


@pytest.mark.skipif(not NAMES, reason="no book is built: make book, or make html, first")
def test_over_http_the_search_shows_where_a_page_has_the_word(chromium):
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Served, directory=str(HTML))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = chromium.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/search.html?q=divergence")
        page.wait_for_function("document.querySelector('#search-results .context')?.innerText.includes('ivergence')")
        page.close()
        server.shutdown()


STOPS = """() => [...document.querySelectorAll("a[href], button, input, select, summary, [tabindex]")].filter(
    e => e.tabIndex >= 0 && !e.disabled && e.getClientRects().length && getComputedStyle(e).visibility !== "hidden"
).map(e => e.tagName)"""


@pytest.mark.parametrize("name", FINISHED)
def test_the_tab_key_passes_links_and_controls_and_no_formula(chromium, name):
    with Visit(chromium, f"book/{name}.html") as visit:
        visit.mathematics_is_ready()
        stops = visit.page.evaluate(STOPS)
        assert "MJX-CONTAINER" not in stops and "A" in stops
        if name in CHAPTERS:
            assert len(stops) <= 130


@pytest.mark.skipif(not NAMES, reason="no book is built: make book, or make html, first")
def test_pages_carry_nothing_of_the_machine_that_made_them():
    for path in HTML.rglob("*.html"):
        page = path.read_text()
        for debris in (str(ROOT), str(Path.home()), "widget-state", "vnd.jupyter.widget", "googletagmanager", "it/s]"):
            assert debris not in page, (path.name, debris)


@pytest.mark.skipif(not NAMES, reason="no book is built: make book, or make html, first")
def test_the_book_is_small_enough_to_carry():
    assert sum(path.stat().st_size for path in HTML.rglob("*") if path.is_file() and path.suffix != ".pdf") <= 40e6


def test_a_readers_run_is_compared_on_the_results_page(chromium):
    run = ROOT / "published" / "01_autoencoders" / "seed-1.json"
    with Visit(chromium, "book/results.html") as visit:
        answer, choose = visit.page.locator(".lwl-answer"), visit.page.locator(".lwl-drop input")
        choose.set_input_files(run)
        visit.page.wait_for_timeout(300)  # a file is read while the page goes on
        said = re.search(r"01_autoencoders: (\d+) of (\d+) numbers lie", answer.inner_text())
        assert said and int(said[1]) == int(said[2]) > 50, "one of the runs itself lies inside"
        changed = json.loads(run.read_text())
        changed["numbers"]["fd_vae_standard"]["value"] = 9999.0
        changed["provenance"]["parameters"]["epochs"] = 99
        choose.set_input_files({"name": "a.json", "mimeType": "", "buffer": json.dumps(changed).encode()})
        visit.page.wait_for_timeout(300)
        first = answer.locator("tbody tr").first.inner_text()
        assert "fd_vae_standard" in first and "9999" in first and first.endswith("outside")
        assert "epochs = 99, ours 20" in answer.inner_text()
        choose.set_input_files({"name": "a.npz", "mimeType": "", "buffer": b"PK"})
        visit.page.wait_for_timeout(300)
        assert "cannot be read as JSON" in answer.inner_text()
        choose.set_input_files({"name": "a.json", "mimeType": "", "buffer": b"[1]"})
        visit.page.wait_for_timeout(300)
        assert "no results file" in answer.inner_text()
        assert visit.problems == []

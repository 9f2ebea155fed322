"""The whole book as one PDF, printed by a headless browser: ``python -m lib.site.pdf``.

The built pages are put one after the other on a sheet of their own, behind a title and
a table of contents, and Chromium prints it. It is printed twice: only the first print
tells on which page a chapter begins.
"""

import html
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml
from bs4 import BeautifulSoup, Tag

from lib.files import ROOT, atomic_write

NAME = "learning-without-labels.pdf"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
UNPRINTED = (
    "script, style, button, dialog, a.headerlink, details.hide, .lwl-screen, "
    ".lwl-pdf, .lwl-no-pdf, .toctree-wrapper"
)
"""What does nothing on paper."""

FOOT = (
    '<div style="width: 100%; font: 8pt sans-serif; color: #555; text-align: center">'
    '<span class="pageNumber"></span></div>'
)


class PdfError(Exception):
    """The book cannot be printed; the message names the remedy."""


# --- one sheet of all pages ----------------------------------------------------------


def listed(root: Path = ROOT) -> list[tuple[str, str]]:
    """(part, page) in the book's order: landing page, then the contents."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    parts = toc.get("parts", [toc])
    files = [("", toc["root"])]
    files += [(p.get("caption", ""), e["file"]) for p in parts for e in p["chapters"]]
    return [(part, Path(file).name) for part, file in files]


def sheet(pages: Path, root: Path = ROOT) -> tuple[str, list[tuple[str, str, str]]]:
    """The book as one HTML page, and (part, name, title) of each of its pages.

    In place of page numbers the contents have ``page-of:name``.
    """
    names, found = [], {}
    for part, name in listed(root):
        path = pages / f"{name}.html"
        if not path.exists():
            raise PdfError(f"{path} is missing: run `make html` first.")
        found[name] = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        names.append((part, name))
    heads, bodies = [], []
    for part, name in names:
        article = found[name].select_one("article")
        if article is None:
            raise PdfError(f"{name}.html has no article: run `make html` first.")
        _for_paper(article, name, found)
        title = article.select_one("h1")
        heads.append((part, name, title.get_text(" ", strip=True) if title else name))
        inner = article.decode_contents()
        bodies.append(f'<article class="bd-article" id="{name}">{inner}</article>')
    first = found[names[0][1]]
    book = first.select_one("title").get_text().rpartition("—")[2].strip()
    parts = [_head(first), _front(book, heads), *bodies]
    return "\n".join([*parts, "</main></body></html>"]), heads


def _for_paper(article: Tag, name: str, pages: dict[str, BeautifulSoup]) -> None:
    """Take out what does nothing on paper, and make names and links the sheet's own."""
    for element in article.select(UNPRINTED):
        element.decompose()
    for fold in article.select("details"):
        fold["open"] = ""
    for image in article.select("img"):
        image.attrs.pop("loading", None)
    for element in article.select("[id]"):
        element["id"] = f"{name}--{element['id']}"
    for link in article.select("a[href]"):
        page, _, place = link["href"].partition("#")
        target = Path(page).stem if page else name
        if "://" in page or target not in pages:
            continue
        link["href"] = f"#{target}--{place}" if place else f"#{target}"


def _head(first: BeautifulSoup) -> str:
    """The head of the built pages: their style, and MathJax with its settings."""
    kept = [str(link) for link in first.select("head link[rel=stylesheet]")]
    scripts = [s for s in first.select("head script") if "mathjax" in str(s).lower()]
    kept += [str(script) for script in scripts]
    return (
        '<!DOCTYPE html><html lang="en" data-theme="light" data-mode="light">'
        f'<head><meta charset="utf-8">{"".join(kept)}<style>{LOOKS}</style></head>'
        '<body><main class="bd-main bd-content">'
    )


LOOKS = """
.front { break-after: page; }
.front h1 { margin-top: 60mm; font-size: 34pt; text-align: center; }
.contents { break-after: page; }
.contents p { display: flex; gap: 1em; margin: 0.25em 0; max-width: none; }
.contents p span:last-child { margin-left: auto; min-width: 2em; text-align: right; }
.contents .part { margin-top: 1.2em; font-weight: 600; }
article.bd-article { break-before: page; }
article.bd-article:first-of-type { break-before: auto; }
"""


def _front(book: str, heads: list[tuple[str, str, str]]) -> str:
    lines, last = [], ""
    for part, name, title in heads:
        if part != last:
            lines.append(f'<p class="part">{html.escape(part)}</p>')
        last = part
        link = f'<a href="#{name}">{html.escape(title)}</a>'
        lines.append(f"<p>{link}<span>page-of:{name}</span></p>")
    return (
        f'<div class="front"><h1>{html.escape(book)}</h1></div>'
        f'<div class="contents"><h1>Contents</h1>{"".join(lines)}</div>'
    )


# --- printing ------------------------------------------------------------------------


def print_book(out: Path, root: Path = ROOT) -> int:
    """Print the built book to ``out``, offer it on the landing page; gives its pages.

    Raises :class:`PdfError` where no book is built or no browser is installed.
    """
    pages = root / "_build" / "html" / "book"
    text, heads = sheet(pages, root)
    printed = _printed(pages, text)
    starts = dict(page_starts(printed))
    if missing := [name for _, name, _ in heads if name not in starts]:
        raise PdfError(f"The print does not say where {', '.join(missing)} begins.")
    for _, name, _ in heads:
        text = text.replace(f"page-of:{name}</span>", f"{starts[name]}</span>")
    printed = _printed(pages, text)
    with atomic_write(out) as temporary:
        temporary.write_bytes(printed)
    _offer(pages, listed(root)[0][1])
    return count(printed)


def _printed(pages: Path, text: str) -> bytes:
    """The sheet as PDF; while printed it lies among the pages, for its pictures."""
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        raise PdfError(f"No browser is installed: none of {', '.join(BROWSERS)}.")
    path = pages / ".whole-book.html"
    path.write_text(text, encoding="utf-8")
    try:
        with sync_playwright() as playwright:
            options = [
                "--no-sandbox",
                "--disable-gpu",
                "--allow-file-access-from-files",
            ]
            browser = playwright.chromium.launch(executable_path=program, args=options)
            page = browser.new_page(color_scheme="light")
            page.set_default_timeout(300_000)
            page.goto(path.as_uri(), wait_until="load")
            page.emulate_media(media="print")
            page.evaluate("window.MathJax?.startup?.promise")
            page.evaluate(FIT)
            return page.pdf(
                prefer_css_page_size=True,
                display_header_footer=True,
                header_template="<span></span>",
                footer_template=FOOT,
                print_background=True,
                outline=True,
                tagged=True,
            )
    finally:
        path.unlink()


FIT = """() => {
  // What is wider than the paper, 178 mm at 96 dots per inch, is made smaller.
  const room = 672;
  document.body.style.width = `${room}px`;
  const wide_ones = "div.math, .pst-scrollable-table-container";
  for (const box of document.querySelectorAll(wide_ones)) {
    const inner = box.querySelector("mjx-container, table");
    const wide = Math.max(box.scrollWidth, inner ? inner.scrollWidth : 0);
    if (inner && wide > room + 1) inner.style.zoom = room / wide;
  }
  document.body.style.width = "";
}"""


# --- reading what was printed --------------------------------------------------------


def count(printed: bytes) -> int:
    """The pages of a PDF that Chromium wrote."""
    return len(_page_objects(printed))


def page_starts(printed: bytes) -> Iterator[tuple[str, int]]:
    """(name, page) of the places that links of the PDF lead to."""
    order = {number: place for place, number in enumerate(_page_objects(printed), 1)}
    pattern = rb"/([^\s/\[\]<>()]+) \[(\d+) 0 R /XYZ"
    for name, number in re.findall(pattern, printed):
        plain = re.sub(
            rb"#([0-9A-Fa-f]{2})", lambda m: bytes.fromhex(m[1].decode()), name
        )
        yield plain.decode("utf-8", "replace"), order[int(number)]


def _page_objects(printed: bytes) -> list[int]:
    """The numbers of the page objects, in the order of the pages."""
    objects = dict(re.findall(rb"\n(\d+) 0 obj\s*(<<.*?)endobj", printed, re.S))
    root = next(
        n for n, o in objects.items() if b"/Type /Pages" in o and b"/Parent" not in o
    )

    def leaves(number: bytes) -> Iterator[int]:
        body = objects[number]
        if b"/Type /Pages" not in body:
            yield int(number)
            return
        kids = re.search(rb"/Kids \[(.*?)\]", body, re.S)
        for kid in re.findall(rb"(\d+) 0 R", kids[1] if kids else b""):
            yield from leaves(kid)

    return list(leaves(root))


def _offer(pages: Path, landing: str) -> None:
    """Show the link that the landing page has for the PDF."""
    path = pages / f"{landing}.html"
    text = path.read_text(encoding="utf-8")
    shown = text.replace('<a class="lwl-pdf" hidden', '<a class="lwl-pdf"')
    shown = shown.replace(
        '<span class="lwl-no-pdf">', '<span class="lwl-no-pdf" hidden>'
    )
    path.write_text(shown, encoding="utf-8")


def main() -> int:
    out = ROOT / "_build" / "html" / NAME
    try:
        number = print_book(out)
    except PdfError as error:
        print(error, file=sys.stderr)
        return 1
    size = out.stat().st_size / 1e6
    print(f"{out.relative_to(ROOT)}: {number} pages, {size:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())

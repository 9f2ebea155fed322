"""The book as one PDF: what is printed, and on which page each part begins."""

import shutil

import pytest
import yaml

from lib.site import pdf

PAGE = """<html><head><title>{title} — A Book</title><script src="mathjax.js"></script></head><body>
<article><h1 id="top">{title}<a class="headerlink" href="#top">#</a></h1><p>See <a href="#top">here</a>,
<a href="b.html#top">there</a> and <a href="https://example.org/b.html">outside</a>.</p>
<details class="hide"><pre>hidden</pre></details><details class="answer"><p>An answer.</p></details>{more}</article>
</body></html>"""


@pytest.fixture
def project(tmp_path):
    toc = {"root": "book/a", "parts": [{"caption": "Part", "chapters": [{"file": "book/b"}, {"file": "book/c"}]}]}
    (tmp_path / "_toc.yml").write_text(yaml.safe_dump(toc))
    pages = tmp_path / "_build" / "html" / "book"
    pages.mkdir(parents=True)
    offer = '<a class="lwl-pdf" hidden href="x.pdf">PDF</a><span class="lwl-no-pdf">none</span>'
    (pages / "a.html").write_text(PAGE.format(title="Start", more=offer))
    (pages / "b.html").write_text(PAGE.format(title="Long", more="<p>line</p>" * 150))
    (pages / "c.html").write_text(PAGE.format(title="End", more=""))
    return tmp_path


def test_the_sheet_has_all_pages_with_links_among_themselves(project):
    text, heads = pdf.sheet(project / "_build" / "html" / "book", project)
    assert heads == [("", "a", "Start"), ("Part", "b", "Long"), ("Part", "c", "End")]
    for piece in ('id="a--top"', 'href="#b--top"', 'href="#c--top"', 'href="https://example.org/b.html"', "page-of:c"):
        assert piece in text
    assert "hidden" not in text and "An answer." in text and text.count("<script") == 1
    assert "<h1>A Book</h1>" in text


def test_a_table_of_contents_without_parts_is_one(project):
    (project / "_toc.yml").write_text("root: book/a\nchapters:\n  - file: book/b\n")
    assert pdf.listed(project) == [("", "a"), ("", "b")]


def test_a_missing_page_is_named_with_the_remedy(project):
    (project / "_build" / "html" / "book" / "c.html").unlink()
    with pytest.raises(pdf.PdfError, match=r"c\.html is missing: run `make html`"):
        pdf.print_book(project / "book.pdf", project)


@pytest.mark.skipif(not any(map(shutil.which, pdf.BROWSERS)), reason="no browser is installed")
def test_the_contents_name_the_page_on_which_each_begins(project):
    out = project / "_build" / "html" / pdf.NAME
    pages = pdf.print_book(out, project)
    printed = out.read_bytes()
    starts = dict(pdf.page_starts(printed))
    assert pdf.count(printed) == pages >= 7
    assert (starts["a"], starts["b"]) == (3, 4) and starts["c"] == pages > 5
    assert starts["b--top"] == 4
    landing = (project / "_build" / "html" / "book" / "a.html").read_text()
    assert '<a class="lwl-pdf" href' in landing and '<span class="lwl-no-pdf" hidden>' in landing
    assert not list(out.parent.glob("**/.whole-book.html"))

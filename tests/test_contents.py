"""What the book holds, as its table of contents says."""

import nbformat
import yaml
from nbformat.v4 import new_notebook

from lib.site import contents


def test_chapters_and_pages_come_from_the_root_and_all_parts(tmp_path):
    (tmp_path / "book").mkdir()
    for name in ("intro", "01_a", "02_b", "results"):
        nbformat.write(new_notebook(), tmp_path / "book" / f"{name}.ipynb")
    (tmp_path / "book" / "symbols.md").write_text("# Symbols\n")
    part = [{"file": "book/02_b"}, {"file": "book/01_a"}]
    rest = [{"file": "book/results"}, {"file": "book/symbols"}]
    for toc in ({"parts": [{"chapters": part}, {"chapters": rest}]}, {"chapters": part + rest}):
        (tmp_path / "_toc.yml").write_text(yaml.safe_dump({"root": "book/intro", **toc}))
        assert contents.chapters(tmp_path) == ["02_b", "01_a"]
        assert contents.pages(tmp_path) == ["intro", "results"]

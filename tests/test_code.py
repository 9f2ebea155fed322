"""What code means, and which files a chapter's numbers come from."""

import json

import pytest

from lib import code
from lib.files import ROOT
from lib.site import contents


def notebook(*cells):
    """The text of a notebook of (tag, source) cells."""
    made = [
        {"cell_type": "code", "source": source.splitlines(True), "metadata": {"tags": [tag] if tag else []}}
        for tag, source in cells
    ]
    return json.dumps({"cells": [{"cell_type": "markdown", "source": "# Title", "metadata": {}}, *made]})


FILES = {
    "book/01_a.ipynb": notebook(
        ("parameters", "from lib.report.parameters import Count\nepochs: Count = 1"),
        ("", "from lib import used\nfrom lib.report import chapter"),
        ("measure", "from lib.deep import f\nx = used.g() + f()"),
        ("", "from lib import pictures\nprint(x)"),
        ("measure", "y = 2"),
    ),
    "lib/__init__.py": '"""All."""\n',
    "lib/used.py": "import lib.below\n\n\ndef g():\n    return 1\n",
    "lib/below.py": "from lib.files import ROOT\nfrom lib.report import plots\n",
    "lib/deep.py": "def f():\n    from lib import late\n\n    return late\n",
    "lib/late.py": "",
    "lib/files.py": "ROOT = 1\n",
    "lib/pictures.py": "",
    "lib/reporting.py": "",
    "lib/report/chapter.py": "",
}


def chapter(**changed):
    return code.of_chapter("01_a", {**FILES, **changed}.get)


def test_a_chapters_code_is_its_measuring_cells_and_what_they_import_to_the_end():
    files = ["lib/below.py", "lib/deep.py", "lib/files.py", "lib/late.py", "lib/used.py"]
    assert list(chapter()) == ["cells", *files]
    assert code.of_chapter("02_b", FILES.get) == {}


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"lib/used.py": '"""Of it."""\nimport lib.below\ndef g():  # why\n  """Why."""\n  return (1)\n'}, []),
        ({"lib/pictures.py": "x = 1"}, []),
        ({"lib/report/chapter.py": "x = 1"}, []),
        ({"lib/used.py": "import lib.below\n\n\ndef g():\n    return 2\n"}, ["lib/used.py"]),
        ({"lib/late.py": "x = 1"}, ["lib/late.py"]),
        ({"lib/late.py": None}, ["lib/late.py"]),
    ],
)
def test_comments_docstrings_and_layout_are_no_change(change, names):
    assert code.changes(chapter(), chapter(**change)) == names


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ("y = 2", "y = 2  # of it", []),
        ("y = 2", "y = (2)", []),
        ("print(x)", "print(x + 1)", []),
        ("epochs: Count = 1", "epochs: Count = 2", []),
        ("y = 2", "y = 3", ["cells"]),
        ("y = 2", "%timeit y", ["cells"]),
        ("y = 2", "from lib import pictures", ["cells", "lib/pictures.py"]),
        ("y = 2", "from lib import reporting", ["cells", "lib/reporting.py"]),
    ],
)
def test_only_measuring_cells_are_the_chapters_own_code(old, new, names):
    text = FILES["book/01_a.ipynb"]
    assert old in text
    assert code.changes(chapter(), chapter(**{"book/01_a.ipynb": text.replace(old, new)})) == names


def test_the_order_of_cells_counts_and_cells_do_not_run_into_each_other():
    assert code.digest(["x = 1", "y = 2"]) != code.digest(["y = 2", "x = 1"])
    assert code.digest(["x = 1\ny = 2"]) != code.digest(["x = 1", "y = 2"])


SYNTAX = """\
'''Of it.'''
import os as o

@o.cache
class A(B, k=1):
    "Of A."
    x: int = 0

    async def f(self, a, /, b=1, *c, d: int = 2, **e) -> None:
        "Only words."

def g():
    with a as b, c:
        "no docstring, and left out all the same"
        return lambda x, *y: f"{x!r:>9} {y}" or {**z, 1: [i for i in j if k]}

match x:
    case {"a": [1, *_]} | A(y=2):
        global h
        del h[1:2, ...]
"""


def test_digests_are_the_same_in_every_python():
    assert code.digest([SYNTAX, "%timeit x"]) == "28ccc308e77e3985"


def test_a_docstring_is_none_where_it_is_a_value():
    assert code.digest(["x = 'a'"]) != code.digest(["x = 'b'"])
    assert code.digest(["f('a')"]) != code.digest(["f('b')"])


@pytest.mark.parametrize(
    ("source", "modules"),
    [
        ("import lib.vae", {"lib.vae"}),
        ("from lib import vae, nets", {"lib", "lib.vae", "lib.nets"}),
        ("from lib.vae import VAE", {"lib.vae", "lib.vae.VAE"}),
        ("if x:\n    import lib.vae as v", {"lib.vae"}),
        ("import library, os\nfrom liberty import x", set()),
        ("%matplotlib inline", set()),
    ],
)
def test_imports_of_lib_are_found_wherever_they_stand(source, modules):
    assert code.imported(source) == modules


def test_a_notebook_measures_if_a_cell_says_so():
    assert code.measures(FILES["book/01_a.ipynb"]) and not code.measures(notebook(("", "x = 1")))
    assert code.measuring_sources(FILES["book/01_a.ipynb"])[1] == "y = 2"
    assert code.parameters_source(FILES["book/01_a.ipynb"]).endswith("epochs: Count = 1")
    assert code.parameters_source(notebook()) == ""


def test_the_code_of_this_books_chapters_is_found():
    for name in contents.chapters():
        if contents.converted(name):
            files = code.of_chapter(name)
            assert all((ROOT / file).is_file() for file in files if file != "cells")
            assert not any(file.startswith(("lib/report", "lib/site")) for file in files) and len(files) > 1


# --- pieces of the library -----------------------------------------------------------


def test_pieces_of_lib_are_shown_as_they_stand_there(tmp_path):
    (tmp_path / "lib").mkdir()
    source = (
        "import functools\n\n\nclass A:\n    @functools.cache\n"
        "    def f(self):\n        return 1\n\n\ndef g():\n    return 2\n"
    )
    (tmp_path / "lib" / "x.py").write_text(source)
    assert code.source_of("x.g", tmp_path) == "def g():\n    return 2"
    assert code.source_of("x.A.f", tmp_path) == "@functools.cache\ndef f(self):\n    return 1"
    assert code.source_of("x.A", tmp_path).startswith("class A:\n    @functools.cache\n    def f")
    for name in ("x.h", "x.A.g"):
        with pytest.raises(KeyError, match=r"lib/x\.py has no"):
            code.source_of(name, tmp_path)

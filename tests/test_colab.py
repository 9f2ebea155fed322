"""Copies of chapters for Colab: they fetch the project, and their prose is plain Markdown."""

import re
import subprocess
import sys

import nbformat
import pytest
from chapter_cells import code_cells
from toys import make_project, write_chapter

from lib.site import colab, contents, furnish

PROSE = """\
(a-place)=
## A heading

It is {eval}`level * 2` high, see {eq}`eq-height` and {numref}`fig-a`, {cite:p}`one2001,two2002`; {cite:t}`three2003`:

$$
h = 2 l .
$$ (eq-height)

:::{admonition} A note
:class: important
It is {eval}`"high"
    .upper()`.
:::

:::{admonition} Answer
:class: dropdown
Two lines

of it, see {doc}`rerun`.
:::"""

PLAIN = """\
## A heading

It is 6 high, see (1.1) and the figure, [one2001,two2002]; [three2003]:

$$
h = 2 l .
\\tag{1.1}
$$

> **A note**
>
> It is HIGH.

<details><summary><b>Answer</b></summary>

Two lines

of it, see *rerun*.

</details>"""


@pytest.fixture
def project(tmp_path):
    folder = make_project(tmp_path / "a project", "01_a")
    write_chapter(folder, "01_a", prose=PROSE)
    return folder


def test_a_copy_fetches_the_project_first_and_has_every_cell_of_the_chapter(project):
    copy = colab.copied("01_a", "https://example.org/me/book", project)
    nbformat.validate(copy)
    assert [cell.id for cell in copy.cells][:4] == ["title", "colab", "set-up", "parameters"]
    assert "https://example.org/me/book" in copy.cells[2].source
    ids = [cell.id for cell in contents.notebook("01_a", project).cells]
    assert [cell.id for cell in copy.cells if cell.id in ids] == ids


def test_prose_is_plain_and_quotes_the_runs_numbers(project):
    copy = colab.copied("01_a", "https://example.org/me/book", project)
    (cell,) = [cell for cell in copy.cells if cell.id == "prose"]
    assert cell.cell_type == "code" and cell.metadata["cellView"] == "form"
    names = {"told": colab.told, "level": 3}
    exec(cell.source.replace("told(", "shown = told("), names)
    assert names["shown"].data == PLAIN


def test_the_set_up_cell_clones_what_it_is_told_and_installs_it(project, tmp_path):
    source = colab.copied("01_a", "https://example.org/it's/here", project).cells[2].source
    # In place of git and pip: what would be run.
    said = "import subprocess\nsubprocess.run = lambda command, check: print('RUN', *command[-2:])\n"
    end = source.replace("from lib.site.colab import told", "print('ON PATH', sys.path[0])")
    result = subprocess.run([sys.executable, "-c", said + end], cwd=tmp_path, capture_output=True, encoding="utf-8")
    folder = (tmp_path / "learning-without-labels").resolve()
    assert result.stdout.splitlines() == [
        f"RUN https://example.org/it's/here {folder}",
        f"RUN --editable {folder}",
        f"ON PATH {folder}",
    ], result.stderr


@pytest.mark.parametrize("name", contents.chapters())
def test_nothing_of_myst_is_left_in_the_books_chapters(name):
    copy = colab.copied(name, "https://example.org/me/book")
    for cell in copy.cells:
        if cell.cell_type == "markdown" or cell.source.startswith("#@title Text"):
            rest = re.sub(r"\{eval\}`[^`]+`", "", cell.source)
            assert not re.search(r"\{[a-z:-]+\}`|^:::|^\$\$ \(|^\([\w-]+\)=", rest, re.M), rest
        if cell.source.startswith("#@title Text"):
            compile(cell.source, cell.id, "exec")
            assert "'''" not in cell.source.partition("told(r'''")[2].rpartition("'''")[0]
    assert len({cell.id for cell in copy.cells}) == len(copy.cells)
    assert not any(cell.outputs for cell in code_cells(copy))


def test_the_pages_button_leads_to_the_copy_of_a_chapter():
    def buttons():
        place = "https://colab.research.google.com/github/me/book/blob/main/book/page.ipynb"
        others = {"text": "Binder", "url": "https://mybinder.org/v2/gh/me/book/main"}
        return [{"url": "x"}, {"buttons": [others, {"text": "Colab", "url": place}]}]

    name = contents.chapters()[0]
    furnish.launch(f"book/{name}", found := buttons())
    address = f"https://colab.research.google.com/github/me/book/blob/colab/{name}.ipynb"
    assert found[1]["buttons"][1]["url"] == address
    furnish.launch("book/intro", found := buttons())
    assert [button["text"] for button in found[1]["buttons"]] == ["Binder"]

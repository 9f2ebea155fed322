"""What the book holds, and how it is laid out."""

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from toys import KERNEL, make_project, write_chapter, write_profile, write_toc

from lib.files import ROOT
from lib.site import book, contents, engine
from lib.site.book import BookError


@pytest.fixture
def project(tmp_path):
    project = make_project(tmp_path, "01_a", "02_b")
    told = new_notebook(cells=[new_markdown_cell("# Told", id="title")], metadata=KERNEL)
    for name in ("01_a", "02_b"):
        path = project / "_build" / "told" / "demo" / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(told, path)
    return project


# --- contents ------------------------------------------------------------------------


def test_chapters_and_pages_are_the_notebooks_of_the_table_of_contents(project):
    nbformat.write(new_notebook(metadata=KERNEL), project / "book" / "results.ipynb")
    (project / "book" / "rerun.md").write_text("# Running it\n", encoding="utf-8")
    write_toc(project, "02_b", "01_a", "results", "rerun")
    assert book.chapters(project) == ["02_b", "01_a"] and book.pages(project) == ["results"]


def test_a_chapter_is_found_by_the_start_of_its_name(project):
    assert contents.find("01", project) == "01_a" == contents.find("01_a", project)
    for start, message in {
        "0": "'0' is the start of 2 chapters",
        "7": "'7' is no chapter: CHAPTER is one of 01_a, 02_b",
        "": "Say which chapter: CHAPTER is one of 01_a, 02_b",
    }.items():
        with pytest.raises(BookError, match=message):
            contents.find(start, project)


def test_profiles_are_read_and_wrong_ones_refused(project):
    assert book.parameters("01_a", "demo", project) == {}
    assert book.parameters("01_a", "laptop", project) == {"level": 3}
    with pytest.raises(BookError, match=r"no profile 'labtop'. Known: demo, laptop"):
        book.parameters("01_a", "labtop", project)
    (project / "book" / "profiles" / "cut.yaml").write_text("01_a: {level: [1", encoding="utf-8")
    with pytest.raises(BookError, match=r"book/profiles/cut\.yaml is no YAML"):
        contents.parameters("01_a", "cut", project)
    with pytest.raises(BookError, match=r"laptop\.yaml has no parameters for '03_c'"):
        book.parameters("03_c", "laptop", project)


def test_a_run_gets_the_defaults_and_what_its_profile_sets(project):
    assert contents.effective("01_a", "demo", project) == {"level": 1, "rate": 0.5, "seed": 0}
    assert contents.effective("01_a", "laptop", project) == {"level": 3, "rate": 0.5, "seed": 0}


def test_every_chapter_and_profile_of_this_book_can_be_read():
    for name in book.chapters():
        for profile in ("demo", "laptop", "paper"):
            assert engine.arguments(name, profile, "0" if book.converted(name) else "") is not None


def test_a_failure_names_cell_and_error():
    cell = new_code_cell("\nprint(1)")
    assert contents.failure(new_notebook(cells=[cell])) is None
    cell.outputs = [new_output("error", ename="ValueError", evalue="\x1b[31mno good\x1b[0m", traceback=[])]
    assert contents.failure(new_notebook(cells=[cell])) == "code cell 1 (print(1))\nValueError: no good"


def test_paths_of_the_machine_are_seen_and_others_not(project, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    named = {
        f"read {project}/data/x.png": f"{project}/data/x.png",
        '"/home/me/data"': "/home/me/data",
        "/home/men/data": None,
        "data/x.png": None,
    }
    for text, path in named.items():
        assert contents.path_of_this_machine(text, project) == path
    monkeypatch.setenv("HOME", "/")
    assert contents.path_of_this_machine("1/2 and /3", project) is None


# --- what depends on what ------------------------------------------------------------


def measured(project, name="01_a", profile="laptop"):
    return engine.code_of(name, project), engine.arguments(name, profile, "0", "", project), engine.lock(project)


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        (lambda p: write_chapter(p, "01_a", measuring="# Another comment.\n" + measuring_of(p)), False),
        (lambda p: write_chapter(p, "01_a", telling="say('Other words.')", prose="Other prose."), False),
        (lambda p: append(p / "lib" / "report" / "chapter.py", "x = 1"), False),
        (lambda p: append(p / "lib" / "wgan.py", "x = 1"), False),
        (lambda p: replace(p / "lib" / "toy.py", "(level):\n", '(level):\n    """A docstring."""\n'), False),
        (lambda p: write_profile(p, **{"01_a": "{level: 3, rate: 0.5}", "02_b": "{level: 7}"}), False),
        (lambda p: append(p / "requirements.txt", "# a comment"), False),
        (lambda p: write_chapter(p, "01_a", measuring=measuring_of(p) + "\nx = 1"), True),
        (lambda p: replace(p / "lib" / "toy.py", "2.0", "3.0"), True),
        (lambda p: write_profile(p, **{"01_a": "{level: 4}"}), True),
        (lambda p: replace(p / "book" / "01_a.ipynb", "rate: Rate = 0.5", "rate: Rate = 0.6"), True),
        (lambda p: append(p / "requirements.txt", "new==1.0"), True),
    ],
)
def test_a_chapter_is_measured_again_for_what_changes_its_numbers_alone(project, change, counts):
    before = measured(project)
    change(project)
    assert (measured(project) != before) == counts


def measuring_of(project):
    cells = contents.notebook("01_a", project).cells
    return next(cell.source for cell in cells if cell.get("id") == "measuring")


def append(path, line):
    path.write_text(path.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")


def replace(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        (lambda p: write_chapter(p, "01_a", prose="Other prose."), True),
        (lambda p: write_chapter(p, "01_a", telling="say('Other words.')"), True),
        (lambda p: append(p / "lib" / "report" / "numbers.py", "# a comment"), True),
        (lambda p: append(p / "lib" / "toy.py", "# a comment that a page can show"), True),
        (lambda p: append(p / "lib" / "wgan.py", "x = 1"), False),
        (lambda p: write_chapter(p, "02_b", prose="Other prose."), False),
    ],
)
def test_a_chapter_is_told_again_for_what_its_page_shows(project, change, counts):
    before = engine.told_from("01_a", project)
    change(project)
    assert (engine.told_from("01_a", project) != before) == counts


def test_arguments_reach_papermill_as_numbers_and_lists(project):
    write_profile(project, **{"01_a": "{rate: 1.0e-6, level: 2}"})
    given = engine.arguments("01_a", "laptop", "4", "", project)
    assert given == "-y '{level: 2}' -y '{rate: 1.0e-06}' -p seed 4"
    assert engine.arguments("01_a", "laptop.custom", "0", "-p level 9", project).endswith("-p seed 0 -p level 9")


def test_what_was_asked_for_is_checked(project):
    assert engine.profile("laptop", project) == "laptop"
    with pytest.raises(BookError, match="no profile 'labtop'"):
        engine.profile("labtop", project)
    assert engine.seeds("0 1 12") == ["0", "1", "12"] and engine.seeds(3) == ["3"]
    for text in ("", "one", "-1", "0,1"):
        with pytest.raises(BookError, match="whole numbers are wanted"):
            engine.seeds(text)
    assert engine.given("-p seeds 3 -p level 2") == "-p seeds 3 -p level 2"
    for arguments in ("-p seed 3", "-y 'seed: 3'", '-y "{seed: 3}"'):
        with pytest.raises(BookError, match="say SEEDS"):
            engine.given(arguments)


def test_runs_of_a_chapter_have_a_place_each(project):
    target = engine.target("01_a", "laptop", ["0", "2"], root=project)
    assert target == [f"_build/results/laptop/01_a/seed-{seed}.json" for seed in (0, 2)]
    custom = engine.target("01_a", "laptop", custom=True, root=project)
    assert custom == ["_build/results/laptop.custom/01_a/seed-0.json"]
    with pytest.raises(BookError, match="no profile"):
        engine.target("01_a", "labtop", root=project)


# --- laying out ----------------------------------------------------------------------


def test_the_book_is_laid_out_with_told_notebooks_and_without_what_is_no_page(project):
    out = project / "_build" / "source"
    book.assemble("demo", out, project)
    files = {path.relative_to(out).as_posix() for path in out.glob("**/*") if path.is_file()}
    assert {"_toc.yml", "_config.yml", "book/intro.md", "book/01_a.ipynb", "book/02_b.ipynb"} <= files
    assert not any("profiles" in name for name in files)
    assert nbformat.read(out / "book" / "01_a.ipynb", 4).cells[0].source == "# Told"


def test_laying_out_again_touches_only_what_has_changed(project):
    out = project / "_build" / "source"
    book.assemble("demo", out, project)
    (out / "book" / "gone.md").write_text("# Gone\n")
    before = {path: path.stat().st_mtime_ns for path in out.glob("**/*.*")}
    (project / "book" / "intro.md").write_text("# Other\n")
    book.assemble("demo", out, project)
    after = {path: path.stat().st_mtime_ns for path in out.glob("**/*.*")}
    changed = {path.name for path in before if after.get(path) != before[path]}
    assert changed == {"intro.md", "gone.md"}
    assert not (out / "book" / "gone.md").exists()


def test_a_chapter_that_was_not_told_is_named(project):
    (project / "_build" / "told" / "demo" / "02_b.ipynb").unlink()
    with pytest.raises(BookError, match="02_b has not been told"):
        book.assemble("demo", project / "_build" / "source", project)


def test_laying_out_never_empties_a_folder_of_the_project(project):
    with pytest.raises(BookError, match="would be emptied"):
        book.assemble("demo", project / "book", project)
    assert (project / "book" / "intro.md").exists()


def test_addresses_bring_buttons_and_a_picture_only_when_they_are_known(project):
    (project / "_config.yml").write_text("title: Test\nhtml: {}\nsphinx: {extra_extensions: [], config: {}}\n")
    (project / "book" / "static").mkdir()
    (project / "book" / "static" / "card.png").write_bytes(b"picture")
    out = project / "_build" / "source"

    def configuration(**addresses):
        book.assemble("demo", out, project, **addresses)
        return yaml.safe_load((out / "_config.yml").read_text())

    plain = configuration()
    assert "launch_buttons" not in plain and "repository" not in plain and plain["html"] == {}
    addressed = configuration(repository="https://github.com/me/book", site="https://me.example/book")
    assert addressed["repository"]["url"] == "https://github.com/me/book"
    assert addressed["html"]["use_edit_page_button"] and addressed["launch_buttons"]["colab_url"]
    assert addressed["sphinx"]["config"]["ogp_image"] == "https://me.example/book/_static/card.png"
    assert (out / "_static" / "card.png").exists()


def test_the_page_of_the_library_has_every_file(project):
    api = "# The library\n\n```{eval-rst}\n.. automodule:: lib.toy\n   :members:\n```\n"
    (project / "lib" / "eighth.py").write_text('"""Eight."""\n')
    page = book.with_all_files(api, project)
    assert page.count("automodule:: lib.toy\n") == 1 and page.count("automodule:: lib.eighth\n") == 1
    whole = (ROOT / "book" / "api.md").read_text(encoding="utf-8")
    assert book.with_all_files(whole).startswith(whole.rstrip())


def test_hidden_files_and_profiles_are_no_pages_and_what_is_static_has_its_place(project):
    for name in (".secret.md", "images/.DS_Store", ".ipynb_checkpoints/a.md", "__pycache__/a.pyc", "static/card.png"):
        path = project / "book" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    out = project / "_build" / "source"
    book.assemble("demo", out, project)
    files = {path.relative_to(out).as_posix() for path in out.glob("**/*") if path.is_file()}
    assert not any(part.startswith((".", "__")) for name in files for part in name.split("/"))
    assert "_static/card.png" in files and (out / "_toc.yml").read_bytes() == (project / "_toc.yml").read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        lambda p: append(p / "_toc.yml", "# a comment"),
        lambda p: append(p / "_config.yml", "# a comment"),
        lambda p: append(p / "book" / "references.bib", ""),
        lambda p: append(p / "book" / "intro.md", "More."),
        lambda p: append(p / "lib" / "report" / "explorer.js", "// newer"),
        lambda p: append(p / "lib" / "site" / "book.py", "# newer"),
        lambda p: write(p / "published" / "01_a" / "seed-0.json"),
    ],
)
def test_the_book_is_built_again_for_whatever_it_is_made_of(project, change):
    before = engine.book_from(project)
    (project / "book" / ".hidden").write_text("not it")
    assert engine.book_from(project) == before
    change(project)
    assert engine.book_from(project) != before


def write(path):
    path.parent.mkdir(parents=True)
    path.write_text("{}")

import os

import pytest

from lib.files import atomic_write, strip_docs


def test_the_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("first")
        assert not path.exists()
    assert path.read_text() == "first"

    with pytest.raises(KeyboardInterrupt), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path], "a temporary file was left behind"


def test_comments_and_docstrings_do_not_make_other_code():
    one = 'def f(x):\n    """Doc."""\n    return x + 1  # why\n'
    assert strip_docs(one) == strip_docs("def f(x):\n\n    return (x + 1)\n")
    assert strip_docs(one) != strip_docs("def f(x):\n    return x + 2\n")


def test_the_bytes_are_on_the_disk_before_the_name_is_theirs(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *given, name=name, real=real: (calls.append(name), real(*given))[1])
    with atomic_write(tmp_path / "file.txt") as temporary:
        temporary.write_text("whole")
    assert calls[:2] == ["fsync", "replace"]


def test_who_reads_the_old_file_reads_it_to_its_end(tmp_path):
    """A new file takes the old one's name; the old one is not written over."""
    path = tmp_path / "file.txt"
    path.write_text("old")
    before = path.stat().st_ino
    with path.open() as reader:
        with atomic_write(path) as temporary:
            assert temporary.parent == path.parent and temporary.suffix == ".txt" and temporary.name.startswith(".")
            temporary.write_text("new and longer")
        assert reader.read() == "old"
    assert path.stat().st_ino != before and path.read_text() == "new and longer"

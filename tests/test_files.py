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

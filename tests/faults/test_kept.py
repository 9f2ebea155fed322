"""Files that hold what was computed, harmed in every way that disks and people harm files.

Nothing that is harmed is taken for whole, and the message names the file and what to do.
"""

import gzip
import hashlib
import http.server
import json
import os
import re
import resource
import signal
import stat
import struct
import threading
import time

import numpy as np
import pytest
import torch
from tiny import make_batches, make_step, weights
from torchvision import datasets
from toys import make_project, write_results, write_toc

from lib import data, files, train
from lib.checkpoint import Checkpoint, CheckpointError, fingerprint
from lib.files import WriteError, atomic_write
from lib.report.results import Results, ResultsError
from lib.site import contents, engine, old_way
from lib.site.contents import BookError

# --- checkpoints -------------------------------------------------------------------------------


def trained(folder, steps=6):
    train.seed(0)
    step, checkpoint = make_step(), Checkpoint(folder / "run")
    train.fit(step, make_batches(), steps, checkpoint=checkpoint, checkpoint_every=3)
    return step, checkpoint.path


def flipped(at):
    def harm(path):
        content = bytearray(path.read_bytes())
        content[int(at * len(content))] ^= 0x10
        path.write_bytes(content)

    return harm


def cut(share):
    return lambda path: path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def resaved(change):
    """A whole file with a digest of its own, but not of this training."""

    def harm(path):
        saved = torch.load(path, weights_only=True)
        del saved["digest"]
        change(saved)
        torch.save({**saved, "digest": fingerprint(saved)}, path)

    return harm


def not_finite(saved):
    saved["parts"]["model"]["0.weight"][0, 0] = float("nan")


def another_shape(saved):
    saved["parts"]["model"]["0.weight"] = torch.zeros(8, 5)


def lacks_a_part(saved):
    del saved["parts"]["optimizer"]


def altered(path):
    saved = torch.load(path, weights_only=True)
    saved["parts"]["model"]["0.weight"][0, 0] += 1e-3
    torch.save(saved, path)


HARMS = {
    **{f"a flipped bit at {at:.0%}": flipped(at) for at in (0.05, 0.3, 0.5, 0.7, 0.95)},
    **{f"cut off at {share:.0%}": cut(share) for share in (0, 0.5, 0.99)},
    "a weight altered": altered,
    "a weight that is not finite": resaved(not_finite),
    "a weight of another shape": resaved(another_shape),
    "a part that is missing": resaved(lacks_a_part),
    "a foreign file": lambda path: torch.save({"a": torch.zeros(3)}, path),
    "no file of torch": lambda path: path.write_bytes(b"text"),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_harmed_checkpoint_is_refused_by_its_path_or_changes_nothing(tmp_path, harm, tried):
    tried("faults", "checkpoints")
    whole, path = trained(tmp_path)
    HARMS[harm](path)
    try:
        again, _ = trained(tmp_path)
    except CheckpointError as error:
        assert str(path) in str(error) and "delete it to train anew" in str(error)
    else:  # a bit that stands for nothing, such as padding
        assert torch.equal(weights(again), weights(whole)) and harm.startswith("a flipped bit")


def forked(job):
    """The number of a process that runs ``job``."""
    child = os.fork()
    if child:
        return child
    try:
        job()
        os._exit(0)
    except BaseException as error:  # noqa: BLE001
        print(repr(error), flush=True)
        os._exit(3)


def status(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def in_a_process_of_its_own(job):
    """The exit status of a forked process that runs ``job``."""
    return status(forked(job))


def no_room(size):
    """As if the disk were full once a file has so many bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_full_disk_leaves_the_old_checkpoint_and_says_what_is_full(tmp_path, tried):
    tried("faults", "full disk")
    train.seed(0)
    _, path = trained(tmp_path)
    before = path.read_bytes()

    def job():
        no_room(1000)
        checkpoint = Checkpoint(tmp_path / "run")
        checkpoint.path, checkpoint.parts = path, {"model": make_step().model}
        with pytest.raises(WriteError, match=f"{path} cannot be written: files may not grow"):
            checkpoint.save({"seconds": 1.0})

    assert in_a_process_of_its_own(job) == 0
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_full_disk_leaves_no_half_results(tmp_path, tried):
    tried("faults", "full disk")
    path = write_results(tmp_path / "seed-0.json")
    before = Results.read([path])["height"].mean

    def job():
        no_room(300)
        with pytest.raises(WriteError, match="cannot be written"):
            write_results(path, height=9.0)

    assert in_a_process_of_its_own(job) == 0
    assert Results.read([path])["height"].mean == before


def test_a_full_disk_under_the_cache_costs_only_time(tmp_path, monkeypatch, tried):
    tried("faults", "full disk")
    monkeypatch.setenv("LWL_CACHE", str(tmp_path / "cache"))
    made = data.Split(torch.zeros(50, 1, 28, 28, dtype=torch.uint8), torch.zeros(50, dtype=torch.long))

    def job():
        no_room(1000)
        found, _ = data._cached("set", lambda: "stamp", lambda: (made, made))
        assert torch.equal(found.images, made.images) and not list((tmp_path / "cache").glob("*"))

    assert in_a_process_of_its_own(job) == 0


@pytest.mark.parametrize("number", ["ENOSPC", "EDQUOT", "EROFS", "EACCES"])
def test_what_the_system_refuses_is_said_with_the_file_and_a_remedy(tmp_path, number, tried):
    tried("faults", "full disk")
    code = getattr(files.errno, number)
    said = r"file\.txt cannot be written: .*(free some room|LWL_CACHE)"
    with pytest.raises(WriteError, match=said), atomic_write(tmp_path / "file.txt"):
        raise OSError(code, os.strerror(code))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_files_are_as_readable_as_the_umask_lets_them_be(tmp_path, mask):
    before = os.umask(mask)
    try:
        with atomic_write(tmp_path / "file") as temporary:
            temporary.write_text("x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~mask


# --- results -----------------------------------------------------------------------------------


def edited(change):
    def harm(path):
        page = json.loads(path.read_text(encoding="utf-8"))
        change(page)
        path.write_text(json.dumps(page), encoding="utf-8")

    return harm


RESULTS = {
    "cut off": cut(0.5),
    "empty": cut(0),
    "of another format": edited(lambda page: page.update(format=99)),
    "a number that is none": edited(lambda page: page["numbers"]["height"].update(value="high")),
    "a number that is not finite": edited(lambda page: page["numbers"]["height"].update(value=float("nan"))),
    "no provenance": edited(lambda page: page.update(provenance=[])),
    "a list": lambda path: path.write_text("[]"),
    "bytes": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "arrays of another run": lambda path: np.savez(path.with_suffix(".npz"), walk=np.zeros(2)),
    "arrays cut off": lambda path: cut(0.5)(path.with_suffix(".npz")),
    "no arrays": lambda path: path.with_suffix(".npz").unlink(),
}


@pytest.mark.parametrize("harm", RESULTS)
def test_harmed_results_are_refused_by_their_path(tmp_path, harm, tried):
    tried("faults", "results")
    path = write_results(tmp_path / "seed-0.json")
    RESULTS[harm](path)
    with pytest.raises(ResultsError, match=r"seed-0\.(json|npz).*(make|restore)"):
        Results.read([path])


def test_no_result_that_is_not_finite_is_recorded(tried):
    results = Results()
    for value in (float("nan"), float("inf"), -np.inf, np.float32("nan"), torch.tensor(float("nan"))):
        with pytest.raises(ValueError, match="height"):
            results.record("height", value)
        with pytest.raises(ValueError, match="walk"):
            results.keep("walk", [1.0, float(value)])
    with pytest.raises(ValueError, match="waves"):
        results.keep("waves", np.array([1j * np.nan]))
    tried("faults", "results")


# --- the project's own files -------------------------------------------------------------------

TOCS = {
    "empty": "",
    "a word": "chapters",
    "no YAML": "root: [",
    "no chapters": "format: jb-book\nroot: book/intro\n",
    "no root": "chapters:\n- file: book/01_a\n",
    "entries without a file": "root: book/intro\nchapters:\n- book/01_a\n",
    "a file that is not there": "root: book/intro\nchapters:\n- file: book/09_z\n",
    "a file twice": "root: book/intro\nchapters:\n- file: book/01_a\n- file: book/01_a\n",
    "a name twice": "root: book/intro\nroot: book/intro\nchapters:\n- file: book/01_a\n",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("toys"), "01_a")


@pytest.mark.parametrize("harm", TOCS)
def test_a_harmed_table_of_contents_is_named(project, harm, tried):
    tried("faults", "files of the project")
    (project / "_toc.yml").write_text(TOCS[harm], encoding="utf-8")
    with pytest.raises(BookError, match=r"_toc\.yml"):
        contents.chapters(project)
    write_toc(project, "01_a")
    assert contents.chapters(project) == ["01_a"]


PROFILES = {
    "empty": "",
    "a word": "01_a",
    "no YAML": "01_a: {level: ",
    "a list": "- 01_a",
    "a block that is a number": "01_a: 3",
    "a block that is a list": "01_a: [level]",
    "a chapter twice": "01_a: {level: 3}\n01_a: {level: 4}\n",
    "a parameter twice": "01_a:\n  level: 3\n  level: 4\n",
    "another encoding": b"01_a: {level: 3} # \xe9t\xe9",
    "no block": "02_b: {level: 3}",
}


@pytest.mark.parametrize("harm", PROFILES)
def test_a_harmed_profile_is_named(project, harm, tried):
    tried("faults", "files of the project")
    text = PROFILES[harm]
    path = project / "book" / "profiles" / "odd.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BookError, match=r"odd\.yaml"):
        engine.profile("odd", project)


@pytest.mark.parametrize("harm", [b"", b"{", b"[]", b"\xff"])
def test_harmed_notebooks_and_published_files_are_named(project, harm, tried):
    tried("faults", "files of the project")
    book, stored = project / "book" / "01_a.ipynb", project / "published"
    stored.mkdir(exist_ok=True)
    for name in ("01_a.ipynb", "01_a.json"):
        (stored / name).write_bytes(harm)
    before = book.read_bytes()
    with pytest.raises(BookError, match=r"published/01_a\.(ipynb|json) is damaged.*restore"):
        old_way.staleness("01_a", project)
    book.write_bytes(harm)
    with pytest.raises(BookError, match=r"book/01_a\.ipynb is damaged.*restore"):
        contents.converted("01_a", project)
    book.write_bytes(before)


def test_what_the_continuous_integration_uses_is_pinned_by_commit():
    """A tag can be moved to other code; a commit cannot."""
    for path in (files.ROOT / ".github" / "workflows").glob("*.yml"):
        used = re.findall(r"uses: (\S+)", path.read_text(encoding="utf-8"))
        assert used and all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", name) for name in used)


# --- two that download at once -------------------------------------------------------------------


def idx(array):
    return gzip.compress(
        struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + bytes(array)
    )


class Slow(http.server.BaseHTTPRequestHandler):
    """A mirror that takes its time over each file."""

    def do_GET(self):
        body = self.server.files[self.path.strip("/")]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        for start in range(0, len(body), 20_000):
            self.wfile.write(body[start : start + 20_000])
            time.sleep(0.2)

    def log_message(self, *_):
        pass


def test_two_chapters_that_download_the_same_set_both_have_it_whole(tmp_path, monkeypatch, tried):
    tried("faults", "two at once")
    rng, served = np.random.default_rng(0), {}
    for split, count in (("train", 200), ("t10k", 50)):
        served[f"{split}-images-idx3-ubyte.gz"] = idx(rng.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        served[f"{split}-labels-idx1-ubyte.gz"] = idx(rng.integers(0, 10, count, dtype=np.uint8))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    server.files = served
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
    resources = [(name, hashlib.md5(body).hexdigest()) for name, body in served.items()]
    monkeypatch.setattr(datasets.MNIST, "resources", resources)

    def job(number):
        os.environ["LWL_CACHE"] = str(tmp_path / f"cache-{number}")
        torch.set_num_threads(1)
        time.sleep(0.5 * number)
        assert len(data.load("mnist", root=tmp_path / "data").train) == 200

    children = [forked(lambda number=number: job(number)) for number in range(3)]
    assert [status(child) for child in children] == [0, 0, 0]
    server.shutdown()

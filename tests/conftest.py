import os

import pytest

# Before torch is imported, here and in every notebook kernel: threads that spin for long while they wait slow tests
# that run beside other work tenfold.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")
# Files of tests run beside each other, one a core.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A hook's GIT_DIR would have tests commit to the project itself.
for name in [name for name in os.environ if name.startswith("GIT_")]:
    del os.environ[name]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No test reads or writes the project's own caches, data or progress files."""
    monkeypatch.setenv("LWL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LWL_CHECKPOINTS", str(tmp_path / "checkpoints"))
    monkeypatch.delenv("LWL_DATA", raising=False)
    monkeypatch.delenv("LWL_PROGRESS", raising=False)

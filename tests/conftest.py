import os
import random
import sys

import pytest

# Before torch is imported, here and in every notebook kernel: threads that spin for long while they wait slow tests
# that run beside other work tenfold.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")
# Files of tests run beside each other, one a core.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A hook's GIT_DIR would have tests commit to the project itself.
for name in [name for name in os.environ if name.startswith("GIT_")]:
    del os.environ[name]

SHIFT = int(os.environ.get("LWL_TEST_SEED") or 0)
"""Added to every seed that tests and lib set: what passes with one seed alone has a tolerance that is luck."""

if SHIFT:
    import numpy as np
    import torch

    def shifted(seeding):
        # (Generators and sequences of numbers are seeds, too; they stay.)
        return lambda seed=None, *rest: seeding(seed + SHIFT if isinstance(seed, int) else seed, *rest)

    class ShiftedGenerator(torch.Generator):
        def manual_seed(self, seed):
            return super().manual_seed(seed + SHIFT)

    torch.manual_seed, torch.Generator = shifted(torch.manual_seed), ShiftedGenerator
    np.random.seed, np.random.default_rng = shifted(np.random.seed), shifted(np.random.default_rng)
    random.seed = shifted(random.seed)


@pytest.fixture(autouse=True)
def own_seed():
    """What a test draws depends on no test before it."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No test reads or writes the project's own caches, data or progress files."""
    monkeypatch.setenv("LWL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LWL_CHECKPOINTS", str(tmp_path / "checkpoints"))
    monkeypatch.delenv("LWL_DATA", raising=False)
    monkeypatch.delenv("LWL_PROGRESS", raising=False)

"""Settings of the kernels of this environment: a chapter sees the project's own.

``environment.py`` copies this file to ``etc/ipython`` of the environment, where each
IPython kernel reads it first, whoever starts it: papermill, Snakemake or JupyterLab.
What a user has set for other work reaches no run: IPython profiles and start-up files,
matplotlib's backend and matplotlibrc, and modules that lie in the working folder, such
as another ``lib``.
"""

import atexit
import importlib.machinery
import os
import shutil
import sys
import tempfile
from pathlib import Path

from ipykernel.kernelapp import IPKernelApp


class ThisLib:
    """Finds the ``lib`` that is this project's, also behind others of that name."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "lib":
            return None
        for entry in sys.path:
            if (Path(entry or ".") / "lib" / "report" / "parameters.py").is_file():
                return importlib.machinery.PathFinder.find_spec(name, [entry or "."])
        others = (
            f for f in sys.meta_path if "editable" in getattr(f, "__module__", "")
        )
        found = (finder.find_spec(name, path, target) for finder in others)
        return next((spec for spec in found if spec is not None), None)


def _forget(app):
    """Let the user's IPython profile and its start-up files count for nothing."""
    empty = tempfile.mkdtemp(prefix="lwl-no-settings-")
    atexit.register(shutil.rmtree, empty, ignore_errors=True)
    # Where IPython looks for settings: the working folder and the user's profile come
    # before this file's folder, and would be read after it.
    paths = app.config_file_paths
    here = str(Path(__file__).parent)
    for number in range(paths.index(here) if here in paths else 0):
        paths[number] = empty
    app.profile_dir.startup_dir = empty


def _settle(app, config):
    sys.meta_path.insert(0, ThisLib)
    if (
        os.environ.get("LWL_KERNEL") != "telling"
    ):  # that has a profile that tell.py made
        _forget(app)
    config.InteractiveShellApp.exec_PYTHONSTARTUP = False
    config.InteractiveShellApp.ignore_cwd = True
    for name in ("MPLBACKEND", "MATPLOTLIBRC"):
        os.environ.pop(name, None)


# Not in a Python that everyone uses, nor at IPython's own prompt.
if sys.prefix != sys.base_prefix and IPKernelApp.initialized():
    _settle(IPKernelApp.instance(), get_config())  # noqa: F821 — IPython's

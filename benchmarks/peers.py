"""Other libraries, for comparison: installed into a folder of their own, never among the project's packages."""

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "_build" / "peers"
PACKAGES = ["pythae==0.1.2", "lightly==1.6.0", "lightly-utils"]
NEEDED = ["pydantic", "pydantic-core", "annotated-types", "typing-inspection", "cloudpickle"]


def install() -> str:
    """Make the folder, once; returns it, for a path. All else that they need the project has."""
    if not (FOLDER / "pythae").is_dir() or not (FOLDER / "lightly").is_dir():
        print("installing pythae and lightly into", FOLDER, flush=True)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(FOLDER)]
        if subprocess.run([*pip, *PACKAGES, *NEEDED]).returncode:
            print("They could not be installed: their lines stay empty.", file=sys.stderr)
    return str(FOLDER)

"""A Sphinx extension: pages need nothing from outside and load nothing unused."""

import importlib.util
import shutil
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

MATHJAX = ("tex-chtml.js", "output/chtml/fonts", "input/tex/extensions")
"""What pages need of MathJax: a tenth of the whole."""


def setup(app: Sphinx) -> dict[str, Any]:
    app.config.mathjax_path = "mathjax/tex-chtml.js"
    app.connect("html-page-context", _leave_out_thebe, priority=900)
    app.connect("build-finished", _copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _leave_out_thebe(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any
) -> None:
    """Jupyter Book always loads Thebe, which runs code on servers: no page does."""
    for files in ("script_files", "css_files"):
        context[files] = [
            file for file in context.get(files, []) if not _is_thebe(file)
        ]


def _is_thebe(file: Any) -> bool:
    return (
        "thebe" in f"{file} {getattr(file, 'attributes', {}).get('body', '')}".lower()
    )


def _copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    if error or app.builder.format != "html":
        return
    folder = importlib.util.find_spec(
        "sphinx-mathjax-offline"
    ).submodule_search_locations[0]
    for name in MATHJAX:
        source, target = (
            Path(folder) / "static" / "mathjax" / name,
            Path(app.outdir) / "_static" / "mathjax" / name,
        )
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copy(source, target)

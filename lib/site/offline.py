"""A Sphinx extension: pages need nothing from outside and load nothing unused."""

import importlib.util
import re
import shutil
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

MATHJAX = ("tex-chtml.js", "output/chtml/fonts", "input/tex/extensions")
"""What pages need of MathJax: a tenth of the whole."""

ICON = re.compile(
    r'("[\w-]+"|[\w$]+):\[\d+,\d+,\[[^\]]*\],"[0-9a-f]+",(?:"[^"]*"|\[[^\]]*\])\],?'
)
"""One of the theme's two thousand icons, in its script."""


def setup(app: Sphinx) -> dict[str, Any]:
    app.config.mathjax_path = "mathjax/tex-chtml.js"
    app.connect("html-page-context", _leave_out_thebe, priority=900)
    app.connect("build-finished", _copy_mathjax)
    app.connect("build-finished", _leave_out_icons)
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


def _leave_out_icons(app: Sphinx, error: Exception | None) -> None:
    """Take the drawings of icons that no page names out of the theme's script."""
    path = Path(app.outdir) / "_static" / "scripts" / "fontawesome.js"
    if error or app.builder.format != "html" or not path.exists():
        return
    naming = [*Path(app.outdir).glob("**/*.html"), *path.parent.glob("*theme*.js")]
    pages = "\n".join(file.read_text(encoding="utf-8") for file in naming)
    used = set(re.findall(r"\bfa-([a-z][\w-]*)", pages))
    script = path.read_text(encoding="utf-8")
    path.write_text(only_icons(script, used), encoding="utf-8")


def only_icons(script: str, used: set[str]) -> str:
    """The script with the icons of these names alone."""
    return ICON.sub(lambda icon: icon[0] * (icon[1].strip('"') in used), script)

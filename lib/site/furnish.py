"""A Sphinx extension: what pages need and neither notebooks nor the theme give them.

Folds say what they hold, each page is described in a sentence for those who meet it in
a list of links, and pictures that are charts are marked: in the dark they are turned.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from docutils import nodes
from PIL import Image
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

DESCRIPTION = 200
"""Letters of a page's description, at most."""


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_post_transform(NameFolds)
    app.connect("html-page-context", _furnish, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


# --- folds ---------------------------------------------------------------------------


class NameFolds(SphinxPostTransform):
    """Folded code says whose it is, where its cell's metadata do not say it."""

    default_priority = 190  # MyST-NB makes folds of them at 199
    formats = ("html",)

    def run(self, **_: Any) -> None:
        for cell in self.document.findall(nodes.container):
            if cell.get("hide_mode") and "{type}" in cell.get("prompt_show", ""):
                what = self._held(cell)
                cell["prompt_show"], cell["prompt_hide"] = what, what

    def _held(self, cell: nodes.container) -> str:
        if "tag_measure" in cell["classes"]:
            return "Measuring code"
        numbers = self.env.toc_fignumbers.get(self.env.docname, {}).get("figure", {})
        for figure in cell.findall(nodes.figure):
            for name in figure["ids"]:
                if name in numbers:
                    return f"Code of Fig. {'.'.join(map(str, numbers[name]))}"
        raw = "".join(node.astext() for node in cell.findall(nodes.raw))
        if "lwl-explorer" in raw:
            return "Code of the interactive figure below"
        if next(iter(cell.findall(nodes.table)), None) is not None:
            return "Code of the table below"
        outputs = [
            n for n in cell.children if n.get("nb_element") != "cell_code_source"
        ]
        return "Code of what follows" if outputs else "Code used further down"


# --- pages ---------------------------------------------------------------------------


def _furnish(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any
) -> None:
    if doctree is None or "body" not in context:
        return
    # The label would stand in place of what the fold says.
    body = context["body"].replace(
        '<summary aria-label="Toggle hidden content">', "<summary>"
    )
    sources = {name: path for path, name in app.builder.images.items()}

    def marked(match: re.Match[str]) -> str:
        path = sources.get(match["name"])
        chart = path is not None and is_chart(Path(app.srcdir) / path)
        return f'<img class="chart"{match["rest"]}' if chart else match[0]

    context["body"] = re.sub(
        r'<img(?P<rest>(?: alt="[^"]*")? src="[^"]*/_images/(?P<name>[^"]+)")',
        marked,
        body,
    )
    if "sphinxext.opengraph" not in app.extensions:  # which says the same, and more
        text = describe(doctree).replace("&", "&amp;").replace('"', "&quot;")
        if text:
            context["metatags"] = (
                context.get("metatags", "")
                + f'\n<meta name="description" content="{text}" />'
            )


def describe(doctree: nodes.document) -> str:
    """A page's first paragraph, cut between words."""
    for paragraph in doctree.findall(nodes.paragraph):
        inside = (nodes.Admonition, nodes.table, nodes.figure, nodes.caption)
        above, odd = paragraph.parent, False
        while above is not None and not odd:
            odd, above = isinstance(above, inside), above.parent
        text = " ".join(paragraph.astext().split())
        if odd or len(text) < 40:
            continue
        if len(text) > DESCRIPTION:
            text = text[: DESCRIPTION - 1].rsplit(" ", 1)[0].rstrip(",;:") + "…"
        return text
    return ""


@cache
def is_chart(path: Path) -> bool:
    """Whether a picture is drawn on white paper, and not made of images."""
    if path.suffix not in (".png", ".jpg", ".jpeg", ".webp") or not path.is_file():
        return False
    pixels = np.asarray(Image.open(path).convert("RGB"))
    paper = (pixels >= 250).all(-1).mean()
    black = (pixels.mean(-1) < 60).mean()
    return bool(paper > 0.6 and black < 0.05)

"""A Sphinx extension: what pages need and neither notebooks nor the theme give them.

Folds say what they hold; each page is described in a sentence, for those who meet it in
a list of links; and figures on white paper get a picture on dark paper, for the dark.
"""

import io
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from docutils import nodes
from PIL import Image
from scipy import ndimage
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

from lib.site import colab, contents

DESCRIPTION = 200
"""Letters of a page's description, at most."""

LIGHT, DARK = 215, 18
"""Grey of words and of paper in the dark; the theme's ground is the same."""

IMAGE = re.compile(
    r'<img(?P<rest>(?: alt="[^"]*")?'
    r' src="(?P<place>[^"]*/_images/(?P<name>[^"]+))")'
)

TILE = 26
"""Pixels: the least side of what is taken for an image in a grid."""


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
        if "tag_parameters" in cell["classes"]:
            return "Parameters"
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
    launch(page, context.get("header_buttons", []))
    if context.get("title") == context.get("docstitle"):  # the landing page
        subtitle = app.config.html_context.get("subtitle")
        context["title"] = subtitle or context["title"]
    # The label would stand in place of what the fold says.
    body = context["body"].replace(
        '<summary aria-label="Toggle hidden content">', "<summary>"
    )
    sources = {name: path for path, name in app.builder.images.items()}

    def marked(match: re.Match[str]) -> str:
        picture = at_night(Path(app.srcdir) / sources.get(match["name"], ""))
        if picture is None:
            return match[0]
        name = Path(match["name"]).stem + "-night.webp"
        folder = Path(app.outdir) / app.builder.imagedir
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture)
        place = match["place"].removesuffix(match["name"]) + name
        return f'<img data-night="{place}"{match["rest"]}'

    context["body"] = IMAGE.sub(marked, body)
    if "sphinxext.opengraph" not in app.extensions:  # which says the same, and more
        text = describe(doctree).replace("&", "&amp;").replace('"', "&quot;")
        if text:
            context["metatags"] = (
                context.get("metatags", "")
                + f'\n<meta name="description" content="{text}" />'
            )


def launch(page: str, buttons: list[dict[str, Any]]) -> None:
    """Lead the theme's Colab button to a chapter's copy that runs there, in place.

    Pages that are no chapter have no copy, and lose the button.
    """
    name = page.rpartition("/")[2]
    for group in buttons:
        for button in [b for b in group.get("buttons", []) if b["text"] == "Colab"]:
            if name in contents.chapters():
                repository = button["url"].partition("/blob/")[0]
                button["url"] = f"{repository}/blob/{colab.BRANCH}/{name}.ipynb"
            else:
                group["buttons"].remove(button)


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


# --- pictures in the dark ------------------------------------------------------------


@cache
def at_night(path: Path) -> bytes | None:
    """A figure on dark paper, as WebP; None for what is not drawn on white paper.

    Paper becomes dark and ink light, colours stay what they are. Images and other
    solid areas are left alone.
    """
    if path.suffix not in (".png", ".jpg", ".jpeg", ".webp") or not path.is_file():
        return None
    pixels = np.asarray(Image.open(path).convert("RGB"))
    white = (pixels >= 250).all(-1)
    if np.concatenate([white[0], white[-1], white[:, 0], white[:, -1]]).mean() < 0.5:
        return None
    kept = solid(pixels) if is_chart(pixels) else tiles(pixels)
    turned = np.where(kept[..., None], pixels, inked(pixels)).round().astype(np.uint8)
    buffer = io.BytesIO()
    chart = is_chart(pixels)
    Image.fromarray(turned).save(buffer, "WEBP", lossless=chart, quality=85, method=4)
    return buffer.getvalue()


def inked(pixels: np.ndarray) -> np.ndarray:
    """What was drawn on white paper, as it looks on dark paper.

    Every pixel is taken for paper under some ink. The more colour an ink has, the less
    it is lightened.
    """
    colors = pixels.astype(float)
    share = 1 - colors.min(-1, keepdims=True) / 255
    ink = (colors - 255 * (1 - share)) / np.maximum(share, 1e-6)
    ink += LIGHT * (1 - ink.max(-1, keepdims=True) / 255)
    return np.clip(DARK * (1 - share) + ink * share, 0, 255)


def is_chart(pixels: np.ndarray) -> bool:
    """Whether a picture is drawn on white paper, and not made of images."""
    paper = (pixels >= 250).all(-1).mean()
    black = (pixels.mean(-1) < 60).mean()
    return bool(paper > 0.6 and black < 0.05)


def solid(pixels: np.ndarray) -> np.ndarray:
    """Where (height, width) a chart has areas of colour: cells of a heat map, dots."""
    colors = pixels.astype(int)
    vivid = np.ptp(colors, axis=-1) > 60
    areas = ndimage.binary_opening(vivid | (colors.mean(-1) < 150), np.ones((15, 15)))
    labels, count = ndimage.label(ndimage.binary_closing(areas, np.ones((31, 31))))
    white = ndimage.mean((colors > 245).all(-1), labels, range(count + 1))
    areas = (labels > 0) & (np.asarray(white)[labels] < 0.15)  # words on them included
    around = (3, 3, 1)
    span = ndimage.maximum_filter(colors, around) - ndimage.minimum_filter(
        colors, around
    )
    return areas | (vivid & (span.max(-1) < 30))


def tiles(pixels: np.ndarray) -> np.ndarray:
    """Where (height, width) a grid of images has its images.

    They are found as large full rectangles that are not white. One that is white in
    parts lies where a row and a column of others cross.
    """
    marks = (pixels < 245).any(-1)
    labels, _ = ndimage.label(marks)
    inside = np.zeros(marks.shape, bool)
    columns, rows = inside[0].copy(), inside[:, 0].copy()
    for number, (y, x) in enumerate(ndimage.find_objects(labels), 1):
        height, width = y.stop - y.start, x.stop - x.start
        if min(height, width) >= TILE and (labels[y, x] == number).mean() > 0.8:
            columns[x], rows[y] = True, True
    inside[np.ix_(rows, columns)] = True
    for y in _runs(rows):
        for x in _runs(columns):
            inside[y, x] = marks[y, x].any()
    return inside


def _runs(marked: np.ndarray) -> list[slice]:
    """The stretches of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], marked.astype(int), [0]])))
    return [slice(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True)]

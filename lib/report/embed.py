"""Interactive pictures as pieces of HTML that need nothing else.

Each is a still image, its data as JSON, and the script with the style that brings it
to life (``explorer.js``, ``drawing.js``, ``explorer.css``), which an executed page gets
anew when they have changed.
"""

import hashlib
import html
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

LIMIT = 700_000
"""Bytes of HTML that one interactive picture may take."""

_SCRIPT = re.compile(r"<script data-explorer-code>.*?</script>", re.S)


class Explorer:
    """An interactive picture; a notebook shows it as HTML, a terminal its title."""

    def __init__(self, title: str, html: str) -> None:
        self.title, self.html = title, html

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return f"Explorer: {self.title}"


def build(
    title: str,
    data: dict[str, Any],
    pictures: Iterable[dict[str, Any]],
    still: str,
    width: int,
    alt: str,
    limit: int = LIMIT,
) -> Explorer:
    """The page's piece, with the first of its ``pictures`` that fits.

    ``data``, ``pictures``
        What the script needs, and its images in several encodings: the first without
        loss, which may take half of the ``limit`` in bytes, then smaller and smaller.
    ``still``, ``width``, ``alt``
        The address of the image for where no script runs and for paper, its width in
        CSS pixels, and what it shows in words.

    Raises ValueError where even the last encoding takes more than ``limit`` bytes.
    """
    size = 0
    for number, picture in enumerate(pictures):
        # "</" would end the script, "<!--" hide the rest of it.
        content = json.dumps(
            data | {"title": title} | picture, separators=(",", ":"), sort_keys=True
        ).replace("<", "\\u003c")
        mark = hashlib.sha256((content + still).encode()).hexdigest()[:12]
        piece = (
            f'<div class="lwl-explorer" data-explorer="{mark}" '
            f'data-lm-suppress-shortcuts="true">'
            f'<img class="dark-light" src="{still}" alt="{html.escape(alt)}" '
            f'style="width: {width}px; max-width: 100%; background: #fff"></div>\n'
            f'<script type="application/json" data-explorer-data="{mark}">{content}'
            f"</script>\n{script()}\n"
        )
        size = len(piece.encode())
        # The eye gains little from what is kept without loss, and a notebook holds
        # more than one picture.
        if size <= (limit // 2 if number == 0 else limit):
            return Explorer(title, piece)
    raise ValueError(
        f"This explorer takes {size:,} bytes, even with its images compressed; "
        f"{limit:,} are allowed. Give fewer images (a coarser grid, fewer steps or "
        "points) or smaller ones."
    )


def script() -> str:
    """The script element that wakes every interactive picture of its page."""
    looks = json.dumps(_beside("explorer.css")).replace("<", "\\u003c")
    code = _beside("explorer.js").replace("__LOOKS__", looks)
    code = code.replace("__DRAWING__", _beside("drawing.js"))
    return f"<script data-explorer-code>{code}</script>"


def refresh(page: str) -> str:
    """HTML with explorers, their script replaced by today's; their data stay."""
    return _SCRIPT.sub(lambda _: script(), page)


def _beside(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8").strip()

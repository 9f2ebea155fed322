"""The behaviour and looks of explorers, put into a page, and put into an executed page anew when they have changed."""

import json
import re
from pathlib import Path

_SCRIPT = re.compile(r"<script data-explorer-code>.*?</script>", re.S)


def script() -> str:
    """The script element that brings every explorer of its page to life: explorer.js with explorer.css inside."""
    looks = json.dumps(_beside("explorer.css")).replace("<", "\\u003c")
    return f"<script data-explorer-code>{_beside('explorer.js').replace('__LOOKS__', looks)}</script>"


def refresh(page: str) -> str:
    """HTML with explorers in it, their script replaced by today's; their data and images stay as they are."""
    return _SCRIPT.sub(lambda _: script(), page)


def _beside(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8").strip()

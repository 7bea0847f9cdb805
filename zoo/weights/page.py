"""A registry as one web page that needs nothing else: a table that can be searched."""

from collections.abc import Iterable
from pathlib import Path

from ... import __version__
from ..page import render as render_page
from .recipe import obstacle
from .schema import Entry


def render(entries: Iterable[Entry]) -> str:
    """Return the page's HTML. Everything from the registry is escaped."""
    rows = [(entry, obstacle(entry)) for entry in entries]
    states = {state: sum(one.state == state for one, _ in rows) for state in _STATES}
    template = Path(__file__).with_name("page.html.j2")
    return render_page(template, {}, rows=rows, states=states, meaning=_STATES, version=__version__)


_STATES = {
    "pinned": "a full sha256 or sha384 is known: the file is verified",
    "weak": "a full sha1 or md5 is known, and the sha256 is locked at the first fetch",
    "prefix": "only the first digits of a digest are known, which shows accidents",
    "unverified": "no digest was ever published: refused until it is trusted once",
}

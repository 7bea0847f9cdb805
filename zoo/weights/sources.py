"""What the addresses in a registry mean: https, http, file, Google Drive, Hugging Face."""

import os
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qs, quote, urlencode, urljoin, urlsplit

from ...proto.errors import UsageError

DRIVE = "https://drive.usercontent.google.com/download"
HUB = "https://huggingface.co"
_COMMIT = re.compile(r"[0-9a-f]{40}")


def resolve(url: str, registry: str = "") -> str:
    """Return the https, http or file address of any address a registry may hold.

    ``registry`` is the file that has it: an address without a scheme is relative to that.

    Raises
    ------
    UsageError
        No such kind of address.

    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UsageError(f"{url}: is no address ({error}).") from None
    if parts.scheme == "hf":
        return _hugging_face(url)
    query = parse_qs(parts.query)
    if parts.hostname == "drive.google.com" and "id" in query:
        known = [(key, query[key][0]) for key in ("id", "resourcekey") if key in query]
        return f"{DRIVE}?{urlencode([*known, ('export', 'download')])}"
    if parts.scheme in ("https", "http", "file"):
        return url
    if not parts.scheme and registry:
        return (Path(registry).resolve().parent / url).as_uri()
    raise UsageError(f"{url}: expected https, http, file, hf:// or a path beside its registry.")


def _hugging_face(url: str) -> str:
    found = re.fullmatch(r"hf://(?P<repo>[^@]+)@(?P<commit>[^/]+)/(?P<path>.+)", url)
    if found is None or not _COMMIT.fullmatch(found["commit"]):
        raise UsageError(
            f"{url}: expected hf://OWNER/NAME@COMMIT/PATH with a commit of 40 hex digits, since "
            "a branch's files change."
        )
    base = (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")
    return f"{base}/{found['repo']}/resolve/{found['commit']}/{quote(found['path'])}"


class _Form(HTMLParser):
    """Google Drive's page before a large file: a form with a button."""

    def __init__(self) -> None:
        super().__init__()
        self.action = ""
        self.fields: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        if tag == "form" and "download" in (known.get("id") or known.get("action") or ""):
            self.action = known.get("action") or ""
        elif tag == "input" and self.action and known.get("type") == "hidden":
            self.fields[known.get("name") or ""] = known.get("value") or ""


def confirmed(page: str, url: str) -> str | None:
    """Return the address behind Google Drive's "download anyway"; None for another page."""
    form = _Form()
    form.feed(page)
    if not form.action or "id" not in form.fields:
        return None
    return f"{urljoin(url, form.action)}?{urlencode(form.fields)}"


def not_the_file(start: bytes, content_type: str) -> str | None:
    """Say what a server sent instead of a file, by its first bytes; None if nothing shows."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"quota exceeded" in text or b"too many users have viewed" in text:
        return "a page that says the file's quota is exceeded"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<!--")):
        return "a web page"
    if text.startswith(b"version https://git-lfs.github.com/spec/"):
        return "a git-LFS pointer"
    if text.startswith(b"<?xml") or (text.startswith(b"<") and "xml" in content_type):
        return "an XML error message"
    if text.startswith((b"{", b"[")) and "json" in content_type:
        return "a JSON error message"
    return None

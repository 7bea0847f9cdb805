"""One request and what its answer means: the bytes from where on, try again, or give up here."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import requests
import urllib3

from ... import __version__
from . import sources
from .events import Stop

AGENT = f"deeplab-zoo/{__version__} (Python; requests)"
PAGE = 1 << 20  # A confirm page is smaller.
SNIFF = 256  # Bytes that show what a body is; a server may send the first ones singly.
BLOCK = 1 << 20
TRANSIENT = (408, 425, 429)
_COUNT = r"\d{1,18}"
CA_HINT = (
    "If a proxy of your network signs its own certificates, name its authority in "
    "REQUESTS_CA_BUNDLE or SSL_CERT_FILE."
)


class Retry(Exception):  # noqa: N818 - both are caught by the loop that asks
    """A failure that may pass: ask the same address again.

    ``after`` seconds, if the server said so; ``restart``: what has come does not fit.
    """

    def __init__(self, reason: str, after: float | None = None, *, restart: bool = False) -> None:
        super().__init__(reason)
        self.after, self.restart = after, restart


class Refused(Exception):  # noqa: N818
    """An address that does not have the file; go on to the next one."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Bytes from ``start`` on; ``total`` of the whole file, where the server says.

    ``read`` returns what has arrived, ``b""`` at the end, and raises `Retry`. ``validator``
    is what If-Range may name: a strong ETag, else the date of the last change. Of an answer
    that is not ``delimited``, a broken connection looks like the end.
    """

    start: int
    total: int | None
    read: Callable[[], bytes]
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    validator: str = ""
    delimited: bool = True


def new_session() -> requests.Session:
    """Return a session: proxies and certificates as the environment says, a name of our own."""
    session = requests.Session()
    session.headers.update({"User-Agent": AGENT, "Accept-Encoding": "identity"})
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE")
    if bundle:
        session.verify = bundle
    return session


@contextmanager
def ask(
    session: requests.Session,
    url: str,
    *,
    offset: int = 0,
    validator: str = "",
    size: int | None = None,
    pinned: bool = False,
    timeout: tuple[float, float] = (10.0, 30.0),
    stop: Stop | None = None,
) -> Iterator[Answer]:
    """Ask for a file from ``offset`` on; ``size`` is the whole's, ``pinned`` allows http.

    Raises
    ------
    Retry, Refused

    """
    stop = stop or Stop()
    if urlsplit(url).scheme == "http" and not pinned:
        raise Refused("plain http, and no sha256 is known that would show a change on the way")
    if urlsplit(url).scheme == "file":
        with _open(url) as answer:
            yield answer
        return
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    if offset and validator:
        headers["If-Range"] = validator
    target: str | None = url
    while target is not None:
        got = _get(session, target, headers, timeout)
        with got as response, stop.reaches(response):
            _check_redirects(response, pinned)
            start = _start(response, offset, size)
            _check_unchanged(response, start, validator)
            read = _reader(response)
            first = _first(read) if start == 0 else b""
            target = _confirmation(first, read, response, target)
            if target is None:
                if start == 0 and not first:
                    raise Retry("it sent an empty file")
                _refuse_other_things(first, response.headers.get("Content-Type", ""), url)
                yield _answer(response, start, _joined(first, read))
                return


def _get(
    session: requests.Session, url: str, headers: Mapping[str, str], timeout: tuple[float, float]
) -> requests.Response:
    """Ask, and go where the answer leads."""
    try:
        return session.get(url, headers=headers, stream=True, timeout=timeout)
    except requests.exceptions.SSLError as error:
        raise Refused(f"no trust in its certificate ({error}). {CA_HINT}") from None
    except (requests.exceptions.ConnectionError, requests.exceptions.Timeout) as error:
        raise Retry(_brief(error)) from None
    # Addresses that cannot be parsed are bare ValueErrors, certificates not found OSErrors.
    except (OSError, ValueError) as error:
        raise Refused(_brief(error)) from None


def _first(read: Callable[[], bytes]) -> bytes:
    """Read as much of a body as shows what it is."""
    first = b""
    while len(first) < SNIFF and (block := read()):
        first += block
    return first


def _joined(first: bytes, read: Callable[[], bytes]) -> Callable[[], bytes]:
    """Return what reads a body whose ``first`` bytes have been looked at."""
    pending = [first] if first else []
    return lambda: pending.pop() if pending else read()


def _answer(response: requests.Response, start: int, read: Callable[[], bytes]) -> Answer:
    headers = response.headers
    length = headers.get("Content-Length", "")
    total = start + int(length) if re.fullmatch(_COUNT, length) else None
    if start:
        total = int(headers["Content-Range"].rpartition("/")[2])
    delimited = total is not None or "chunked" in headers.get("Transfer-Encoding", "")
    found = _validator(response)
    return Answer(start, total, read, response.url, dict(headers), found, delimited)


def _start(response: requests.Response, offset: int, size: int | None) -> int:
    """Return where the body begins, of an answer that has the file's bytes."""
    status = response.status_code
    if status in (200, 206):
        _check_encoding(response)
    if status == 200:
        return 0
    if status == 206 and offset:
        told = response.headers.get("Content-Range", "")
        found = re.fullmatch(rf"bytes ({_COUNT})-({_COUNT})/({_COUNT})", told)
        if found is None or int(found[1]) != offset or size not in (None, int(found[3])):
            raise Retry(f"asked for bytes from {offset} on, it sent {told!r}", 0, restart=True)
        return offset
    if status == 416 and offset:
        raise Retry(f"it has no bytes from {offset} on", 0, restart=True)
    if status in TRANSIENT or status >= 500:
        raise Retry(f"HTTP {status} {response.reason}", _retry_after(response))
    raise Refused(f"HTTP {status} {response.reason}")


def _check_encoding(response: requests.Response) -> None:
    encoding = response.headers.get("Content-Encoding", "").lower()
    # Old servers state a .tgz's own compression there; what they send is the file.
    own = encoding in ("gzip", "x-gzip") and urlsplit(response.url).path.endswith((".gz", ".tgz"))
    if encoding not in ("", "identity") and not own:
        raise Refused("it compresses what it sends although asked not to")


def _check_unchanged(response: requests.Response, start: int, validator: str) -> None:
    """Refuse the rest of another file than the one that was begun."""
    found = _validator(response)
    if start and validator and found and found != validator:
        raise Retry(f"the file has changed: {found}, was {validator}", 0, restart=True)


def _validator(response: requests.Response) -> str:
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def _reader(response: requests.Response) -> Callable[[], bytes]:
    raw = response.raw

    def read() -> bytes:
        try:
            block: bytes = raw.read1(BLOCK)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Retry(_brief(error)) from None
        return block

    return read


def _check_redirects(response: requests.Response, pinned: bool) -> None:
    hops = [urlsplit(one.url).scheme for one in (*response.history, response)]
    if "https" in hops and "http" in hops[hops.index("https") :] and not pinned:
        raise Refused(f"it leads from https to plain http ({response.url})")


def _confirmation(
    first: bytes, read: Callable[[], bytes], response: requests.Response, asked: str
) -> str | None:
    """Return where Google Drive's page before a large file leads, if this is that page."""
    if (
        "confirm=" in asked
        or not asked.startswith(sources.DRIVE)
        or not sources.not_the_file(first, "")
    ):
        return None
    page = first
    while len(page) < PAGE and (block := read()):
        page += block
    return sources.confirmed(page.decode("utf-8", "replace"), response.url)


def _refuse_other_things(first: bytes, content_type: str, url: str) -> None:
    text = urlsplit(url).path.lower().endswith((".json", ".xml", ".html"))  # It may well be that.
    if not text and (found := sources.not_the_file(first, content_type.lower())):
        raise Refused(f"{found} instead of the file")


def _retry_after(response: requests.Response) -> float | None:
    """Read Retry-After, which is a number of seconds or a date."""
    told = response.headers.get("Retry-After", "").strip()
    if told.isdecimal():
        return float(told)
    try:
        when = parsedate_to_datetime(told)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())


@contextmanager
def _open(url: str) -> Iterator[Answer]:
    path = Path(url2pathname(urlsplit(url).path))
    if path.exists() and not path.is_file():  # A pipe would keep us waiting.
        raise Refused("is no file")
    try:
        file = path.open("rb")
    except (OSError, ValueError) as error:
        raise Refused(f"cannot be read ({_brief(error)})") from None

    def read() -> bytes:
        try:
            return file.read(BLOCK)
        except OSError as error:
            raise Refused(f"cannot be read ({_brief(error)})") from None

    with file:
        first = read()
        if not first:
            raise Refused("is empty")
        _refuse_other_things(first, "", url)
        yield Answer(0, path.stat().st_size, _joined(first, read), url)


def _brief(error: Exception) -> str:
    """Name the cause that requests and urllib3 wrap."""
    cause = next((one for one in error.args if isinstance(one, Exception)), error)
    cause = getattr(cause, "reason", None) or cause
    return f"{type(cause).__name__}: {cause}"

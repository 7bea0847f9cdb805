"""A store, a lock and a registry of one's own, and a server that misbehaves."""

import hashlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deeplab_zoo.zoo.weights.download import Policy
from deeplab_zoo.zoo.weights.events import Event
from deeplab_zoo.zoo.weights.fetch import fetch_entry
from deeplab_zoo.zoo.weights.parse import parse
from deeplab_zoo.zoo.weights.registry import assemble
from deeplab_zoo.zoo.weights.schema import Entry
from deeplab_zoo.zoo.weights.work import Options

from .faulty_server import Site, serving

BODY = random.Random(6).randbytes(300_007)
Fetching = Callable[..., tuple[Path, list[Event]]]
QUICK = Policy(retries=5, connect=2, timeout=0.25, backoff=0.005, longest_wait=0.05)


@pytest.fixture
def site() -> Iterator[Site]:
    """The server, with ``x.pth`` on it."""
    with serving() as found:
        found.files["x.pth"] = BODY
        yield found


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store and lock; nothing of the user's is read or written."""
    monkeypatch.setenv("DEEPLAB_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DEEPLAB_ZOO_LOCK", str(tmp_path / "deeplab-zoo.lock"))
    for name in (
        "DEEPLAB_ZOO_REGISTRY", "DEEPLAB_ZOO_OFFLINE", "DEEPLAB_ZOO_EXTRA_ROOTS",
        "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy",
        "NO_PROXY", "no_proxy", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE",
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


def digest(data: bytes, algorithm: str = "sha256") -> str:
    return hashlib.new(algorithm, data).hexdigest()


def kinds(events: list[Event]) -> list[str]:
    """What happened, without how far it was."""
    return [one.kind for one in events if one.kind != "progress"]


def described(*artifacts: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An entry with what every entry needs."""
    return {
        "name": "mine",
        "kind": "dataset",
        "description": "of a test",
        "license": {"spdx": "MIT"},
        "homepage": "https://example.org",
        "artifacts": list(artifacts),
        **more,
    }


def artifact(
    *urls: str, body: bytes | None = BODY, filename: str = "x.pth", **more: Any
) -> dict[str, Any]:
    """An artifact, pinned to ``body`` unless that is None."""
    known = {} if body is None else {
        "size": len(body),
        "digests": {"sha256": digest(body)},
        "evidence": [{"grade": "A", "covers": ["sha256", "size"], "where": "the test"}],
    }  # fmt: skip
    return {"filename": filename, "sources": [{"url": url} for url in urls], **known, **more}


def text_of(*entries: dict[str, Any]) -> str:
    return yaml.safe_dump({"schema_version": 1, "entries": list(entries)}, sort_keys=False)


def entry_of(described: dict[str, Any]) -> Entry:
    (entry,) = parse(text_of(described), "test")
    return assemble([entry]).entries[entry.name]


@pytest.fixture
def fetching() -> Fetching:
    """Fetch an entry with a quick policy; return its folder and what happened."""

    def fetch(one: dict[str, Any], **options: Any) -> tuple[Path, list[Event]]:
        events: list[Event] = []
        chosen = Options(**{"policy": QUICK, **options})
        return fetch_entry(entry_of(one), chosen, events.append), events

    return fetch

"""A file, or an address, becomes an entry of one's own registry, with its digest computed."""

import hashlib
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

from ... import __version__
from ...converters.files import write_text
from ...proto.errors import FormatError, UsageError, ZooError, listing
from . import store
from .download import Job, Received, download
from .events import Listener, silent
from .guard import guarded
from .http import new_session
from .lint import problems
from .parse import parse, read_entries, read_text
from .registry import load_registry
from .schema import Claim, Entry
from .sources import resolve

EMPTY = "schema_version: 1\nentries:\n"


def described(
    name: str,
    place: str,
    size: int,
    digest: str,
    *,
    seen: str,
    grade: str,
    same_as: str | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Return the fields of a new entry; ``more`` are any other fields of an entry."""
    artifact: dict[str, Any] = {
        "filename": filename_of(place),
        "size": size,
        "digests": {"sha256": digest},
        "evidence": [{"grade": grade, "covers": ["sha256", "size"], "where": seen}],
        "sources": [{"url": place}],
    }
    if same_as is not None:
        artifact["same_as"] = same_as
    fields = {key: value for key, value in more.items() if value is not None}
    return {"name": name, **fields, "artifacts": [artifact]}


def filename_of(place: str) -> str:
    """Return the file's name in an address or path."""
    path = unquote(urlsplit(place).path) if "://" in place else place
    return path.rpartition("/")[2]


def measure(what: str, registry: Path, listen: Listener = silent) -> tuple[str, int, str, str]:
    """Hash a file or what an address gives: its place, size, sha256, and how we know.

    A file below the registry's folder is named relative to it, so that the folder can move.
    """
    today = time.strftime("%Y-%m-%d")
    if "://" not in what:
        path = Path(what).resolve()
        if not path.is_file():
            raise ZooError(f"{what}: no such file.")
        home = registry.resolve().parent
        near = path.is_relative_to(home)
        place = path.relative_to(home).as_posix() if near else path.as_uri()
        if near and ":" in place:  # What stands before it would be a scheme.
            place = f"./{place}"
        digest = store.digests_of(path, ())["sha256"]
        seen = f"computed from the file by deeplab-zoo {__version__} on {today}"
        return place, path.stat().st_size, digest, seen
    found: list[tuple[int, str]] = []

    def note(received: Received) -> None:
        found.append((received.size, received.digests["sha256"]))
        received.path.unlink()

    root = store.cache_folder()
    url = resolve(what)
    key = f"add-{hashlib.sha256(what.encode()).hexdigest()[:32]}"
    with new_session() as session:
        download(Job(what, (url,), Claim(), root, note, session, listen=listen), key)
    size, digest = found[0]
    return what, size, digest, f"one download by deeplab-zoo {__version__} on {today}"


def add(registry: Path, fields: dict[str, Any]) -> Entry:
    """Append an entry to a registry file; what is there stays as it is written.

    Raises
    ------
    UsageError
        The entry does not pass `lint`, or its name is taken.
    FormatError
        The file cannot be extended as text.

    """
    # Without the guard two at once would each keep their own entry only.
    with guarded(store.cache_folder() / "guards", f"registry-{registry.resolve()}", wait=10):
        return _add(registry, fields)


def _add(registry: Path, fields: dict[str, Any]) -> Entry:
    text = read_text(registry) if registry.exists() else EMPTY
    before = parse(text, str(registry))
    shown = yaml.safe_dump([fields], sort_keys=False, allow_unicode=True, width=100)
    start = re.search(r"^( *)- ", text.partition("entries:")[2], re.MULTILINE)
    indent = start[1] if start else "  "
    added = re.sub(r"^(?=.)", indent, shown, flags=re.MULTILINE)
    text = re.sub(r"entries: *\[\]\s*$", "entries:\n", text).rstrip("\n") + "\n" + added
    after = parse(text, str(registry))
    if after[:-1] != before or len(after) != len(before) + 1:
        raise FormatError(
            f"{registry}: its entries are not the last thing in the file, as a block; add the "
            f"entry by hand:\n{added}"
        )
    known = (*load_registry().entries.values(), *before)
    taken = {name for entry in known for name in entry.names}
    wrong = [f"{after[-1].name}: the name is taken"] if after[-1].name in taken else []
    wrong += [line for line in problems(after) if line.startswith(f"{after[-1].name}:")]
    if wrong:
        raise UsageError(f"{registry}: the entry would not be sound:\n{listing(wrong)}")
    write_text(registry, text)
    return read_entries(registry)[-1]

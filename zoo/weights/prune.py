"""What in the store may go, and what that frees."""

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG

from . import store
from .schema import Entry
from .staging import leftovers as unfinished


def leftovers() -> Iterator[Path]:
    """Yield what no entry needs: dead downloads, quarantine, blobs without another name."""
    root = store.cache_folder()
    yield from unfinished(root / "staging")
    yield from (root / "quarantine").glob("*")
    for blob in (root / "blobs").glob("*/*/*"):
        with suppress(FileNotFoundError):  # Another process prunes too.
            if blob.stat().st_nlink == 1:
                yield blob


def entry_files(entry: Entry) -> Iterator[Path]:
    """Yield all that the store holds of an entry, blobs included."""
    root, owner = store.cache_folder(), entry.owner
    for filename in entry.filenames:
        stamp = store.read_stamp(root, owner, filename)
        path = store.file_of(root, owner, filename)
        if path.exists():
            yield path
        if stamp is not None:
            blob = store.blob_of(root, stamp.digests["sha256"])
            if blob.exists() and blob.stat().st_nlink <= 2:
                yield blob
    for folder in (root / "stamps" / owner, root / "converted" / entry.name):
        if folder.exists():
            yield folder


def freed(paths: Iterable[Path]) -> int:
    """Return the bytes that are free when files and folders have gone; links share theirs."""
    found = {}
    for path in paths:
        with suppress(FileNotFoundError):
            for file in (path, *path.rglob("*")) if path.is_dir() else (path,):
                found[file] = file.stat()
    links = Counter((one.st_dev, one.st_ino) for one in found.values())
    files = {(one.st_dev, one.st_ino): one for one in found.values() if S_ISREG(one.st_mode)}
    return sum(one.st_size for key, one in files.items() if links[key] == one.st_nlink)


def remove(path: Path) -> None:
    """Remove a file or folder, if no other process has."""
    with store.disk(path), suppress(FileNotFoundError):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()

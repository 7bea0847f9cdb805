"""What in the store may go, and what that frees."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from . import store
from .schema import Entry
from .staging import leftovers as unfinished


def leftovers() -> Iterator[Path]:
    """Yield what no entry needs: dead downloads, quarantine, blobs without another name."""
    root = store.cache_folder()
    yield from unfinished(root / "staging")
    yield from (root / "quarantine").glob("*")
    for blob in (root / "blobs").glob("*/*/*"):
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


def remove(path: Path, *, dry_run: bool = False) -> int:
    """Remove a file or folder; return the bytes that this frees."""
    files = [one for one in path.rglob("*") if one.is_file()] if path.is_dir() else [path]
    freed = sum(one.stat().st_size for one in files if one.stat().st_nlink == 1)
    if not dry_run:
        with store.disk(path):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    return freed

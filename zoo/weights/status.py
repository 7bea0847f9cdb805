"""What is true of an entry here and now: its state with the lock, whether it is in the store."""

from collections.abc import Iterable, Mapping

from . import store
from .lock import Record
from .schema import Entry


def state_of(entry: Entry, lock: Mapping[str, Record]) -> str:
    """Return an entry's state; less than pinned is ``locked`` if the lock has all its files."""
    files = [f"{entry.owner}/{name}" for name in entry.filenames]
    return "locked" if entry.state != "pinned" and set(files) <= set(lock) else entry.state


def is_cached(entry: Entry) -> bool:
    """Tell whether all files of an entry are in one store, as they were when they came."""
    return any(
        all(store.find(root, entry.owner, name) is not None for name in entry.filenames)
        for root in (*store.extra_roots(), store.cache_folder())
    )


def matches(entry: Entry, words: Iterable[str]) -> bool:
    """Tell whether every word occurs in what an entry is called and about."""
    about = [*entry.names, entry.description, entry.kind, entry.numerics or ""]
    if entry.arch:
        about += [entry.arch.family, entry.arch.backbone]
    if entry.trained_on:
        about += [entry.trained_on.dataset, entry.trained_on.split]
    text = " ".join(about).lower()
    return all(word.lower() in text for word in words)

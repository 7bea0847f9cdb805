"""Fetched files hashed again, stamps or not."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ...proto.errors import IntegrityError
from . import store
from .judge import judge
from .lock import lock_path, read_lock
from .schema import Entry


class Checked(NamedTuple):
    """A stored file and what was found; ``state`` as of `judge`, or ``mismatch``."""

    file: str
    state: str
    words: str


def verify_entry(entry: Entry) -> Iterator[Checked]:
    """Hash the stored files of an entry; what is wrong goes to quarantine, if the store is ours."""
    for root in (*store.extra_roots(), store.cache_folder()):
        yield from _verify(entry, root, ours=root == store.cache_folder())


def _verify(entry: Entry, root: Path, *, ours: bool) -> Iterator[Checked]:
    owner = entry.owner
    locked = read_lock(lock_path())
    for artifact in entry.artifacts:
        for filename, (claim, archive) in artifact.stored.items():
            path, place = store.file_of(root, owner, filename), f"{owner}/{filename}"
            stamp = store.read_stamp(root, owner, filename)
            if stamp is None or not path.exists():
                continue
            digests = store.digests_of(path, claim.algorithms)
            found = replace(stamp, digests=digests, size=store.size_of(path))
            try:
                if digests["sha256"] != stamp.digests["sha256"]:
                    raise IntegrityError(
                        f"sha256 {digests['sha256']}, was {stamp.digests['sha256']} when it came"
                    )
                verdict = judge(place, found, claim, archive, locked.get(place))
            except IntegrityError as error:
                where = f"now in {store.quarantine(root, path)}" if ours else f"in {root}"
                yield Checked(place, "mismatch", f"MISMATCH: {error}; {where}")
            else:
                if ours:
                    store.restamp(root, owner, found)
                yield Checked(place, verdict.state, verdict.words)

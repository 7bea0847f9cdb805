"""Fetched files hashed again, stamps or not."""

from collections.abc import Iterator
from dataclasses import replace
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
    """Hash the stored files of an entry; what is wrong goes to quarantine."""
    owner, root = entry.owner, store.cache_folder()
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
                kept = store.quarantine(root, path)
                yield Checked(place, "mismatch", f"MISMATCH: {error}; now in {kept}")
            else:
                store.restamp(root, owner, found)
                yield Checked(place, verdict.state, verdict.words)

"""A lock between processes that saves work and never decides about right or wrong.

File systems of clusters have locks that fail, hang or lie. Where one does, or does not open
in time, the work goes on without: at worst it is done twice.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

BROKEN = (OSError, NotImplementedError, Timeout)


@contextmanager
def guarded(
    folder: Path, key: str, wait: float, waiting: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Hold the lock called ``key`` during the block, if it can be had in ``wait`` seconds."""
    name = hashlib.sha256(key.encode()).hexdigest()[:32]
    lock = None
    with suppress(*BROKEN):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{name}.lock", thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waiting()
            lock.acquire(timeout=wait)
    try:
        yield
    finally:
        if lock is not None and lock.is_locked:
            with suppress(*BROKEN):
                lock.release()

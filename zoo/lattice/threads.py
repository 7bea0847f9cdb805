"""Work without the interpreter's lock, on as many threads as torch is set to."""

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

_WORTHWHILE = 2048  # rows: handing over fewer takes longer than the work


_here = threading.local()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Return threads in which torch's own operations stay on one, whatever it is set to.

    Else each would call in all cores, and the calls of all would wait for each other. torch keeps
    the number for a thread, and the latest one for threads to come: that is put back.
    """
    started = threading.Barrier(threads)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="lattice", initializer=_stay_alone)
    list(pool.map(lambda _: started.wait(), range(threads)))
    torch.set_num_threads(threads)
    return pool


def _stay_alone() -> None:
    _here.alone = True
    torch.get_num_threads()  # On a thread's first call torch sets the number, and never again.
    torch.set_num_threads(1)


def _threads() -> int:
    return 1 if getattr(_here, "alone", False) else torch.get_num_threads()


# A forked child inherits the pool's records but not its threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)


def each(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Map in threads; work that is already inside one stays there."""
    work, threads = list(items), _threads()
    if len(work) < 2 or threads < 2:
        return [function(item) for item in work]
    return list(_pool(threads).map(function, work))


def each_image(function: Callable[[Item], Result], images: Sequence[Item]) -> list[Result]:
    """Map an image to a thread if that keeps all of them busy, else let each image spread."""
    threads = _threads()
    if len(images) % threads == 0 or len(images) >= 4 * threads:
        return each(function, images)
    return [function(image) for image in images]


def spread(function: Callable[[int, int], object], count: int) -> None:
    """Call with the bounds of ranges that together cover ``count``."""
    threads = _threads()
    parts = 1 if threads < 2 else min(2 * threads, 1 + count // _WORTHWHILE)
    bounds = [count * part // parts for part in range(parts + 1)]
    each(lambda part: function(bounds[part], bounds[part + 1]), range(parts))

"""Work without the interpreter's lock, on as many threads as torch is set to.

torch's own operations must not run in parallel beside it: after each of them OpenMP's threads
spin for some ten milliseconds in wait for the next one, and keep a core from ours. What touches
large tensors is therefore handed to `conduct`.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any, TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

_WORTHWHILE = 2048  # rows: handing over fewer takes longer than the work
_PARTS = 4  # to a thread, so that one that is held up leaves some to the others

_here = threading.local()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Return threads in which torch's own operations stay on one, whatever it is set to.

    torch keeps the number for a thread, and the latest one for threads to come: that is put back.
    """
    started = threading.Barrier(threads)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="lattice", initializer=_stay_alone)
    list(pool.map(lambda _: started.wait(), range(threads)))
    torch.set_num_threads(threads)
    return pool


def _stay_alone() -> None:
    torch.get_num_threads()  # On a thread's first call torch sets the number, and never again.
    torch.set_num_threads(1)


# A forked child inherits the pool's records but not its threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)


def conduct(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call in one of the threads, from which ``each`` shares work with the others.

    Work on another device than the CPU, be it a tensor's or a lattice's, stays with the caller,
    whose stream it belongs to.
    """
    threads = torch.get_num_threads()  # one in those threads themselves
    devices = (getattr(argument, "device", None) for argument in arguments)
    here = all(one.type == "cpu" for one in devices if isinstance(one, torch.device))
    if threads < 2 or not here:
        return function(*arguments)

    def conducting() -> Result:
        _here.threads = threads
        try:
            return function(*arguments)
        finally:
            _here.threads = 1

    return _pool(threads).submit(conducting).result()


def at_hand() -> int:
    """Return the number of threads that share the work that is handed out here."""
    threads: int = getattr(_here, "threads", 1)
    return threads


def each(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Map in all threads, where that is conducted; an item's own work stays in its thread."""
    work, threads = list(items), at_hand()
    if len(work) < 2 or threads < 2:
        return [function(item) for item in work]
    results: list[Any] = [None] * len(work)
    left = deque(enumerate(work))

    def take() -> None:
        while True:
            try:
                place, item = left.popleft()  # Whoever is free takes the next.
            except IndexError:
                return
            results[place] = function(item)

    pool = _pool(threads)
    helpers = [pool.submit(take) for _ in range(min(threads, len(work)) - 1)]
    _here.threads = 1
    try:
        take()
    finally:
        _here.threads = threads
        for helper in helpers:  # One that has not begun finds nothing left.
            if not helper.cancel():
                helper.result()
    return results


def each_image(function: Callable[[Item], Result], images: Sequence[Item]) -> list[Result]:
    """Map an image to a thread if that keeps all of them busy, else let each image spread."""
    threads = at_hand()
    if len(images) % threads == 0 or len(images) >= 4 * threads:
        return each(function, images)
    return [function(image) for image in images]


def ranges(count: int, parts: int) -> list[tuple[int, int]]:
    """Return the bounds of ranges of nearly one size that together cover ``count``."""
    bounds = [count * part // parts for part in range(parts + 1)]
    return list(pairwise(bounds))


def spread(function: Callable[[int, int], object], count: int) -> None:
    """Call with the bounds of ranges that together cover ``count``."""
    threads = at_hand()
    parts = 1 if threads < 2 else min(_PARTS * threads, 1 + count // _WORTHWHILE)
    each(lambda bounds: function(*bounds), ranges(count, parts))

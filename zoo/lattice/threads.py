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
    return ThreadPoolExecutor(threads, thread_name_prefix="lattice")


# A forked child inherits the pool's records but not its threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)


def each(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Map in threads; work that is already inside one stays there."""
    work, threads = list(items), torch.get_num_threads()
    if len(work) < 2 or threads < 2 or getattr(_here, "busy", False):
        return [function(item) for item in work]

    def inside(item: Item) -> Result:
        _here.busy = True
        try:
            return function(item)
        finally:
            _here.busy = False

    return list(_pool(threads).map(inside, work))


def each_image(function: Callable[[Item], Result], images: Sequence[Item]) -> list[Result]:
    """Map an image to a thread if that keeps all of them busy, else let each image spread."""
    threads = torch.get_num_threads()
    if len(images) % threads == 0 or len(images) >= 4 * threads:
        return each(function, images)
    return [function(image) for image in images]


def spread(function: Callable[[int, int], object], count: int) -> None:
    """Call with the bounds of ranges that together cover ``count``."""
    busy = getattr(_here, "busy", False)
    parts = 1 if busy else min(2 * torch.get_num_threads(), 1 + count // _WORTHWHILE)
    bounds = [count * part // parts for part in range(parts + 1)]
    each(lambda part: function(bounds[part], bounds[part + 1]), range(parts))

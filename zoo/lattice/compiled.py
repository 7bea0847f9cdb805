"""How loops are compiled: by numba, to work on the range ``first..last`` that they are given.

They release the interpreter's lock and hold no state, so that ``threads`` can hand ranges to
threads. numba's own ``parallel`` is left alone: its thread layers abort the process when a forked
child, or with some of them a second Python thread, enters a region.
"""

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(**fast: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile on first use and keep the machine code on disk, where there is a place for it."""

    def decorate(function: Callable[..., Any]) -> Any:
        options = {"nogil": True, "error_model": "numpy", **fast}
        try:
            return njit(function, cache=True, **options)
        except RuntimeError:  # Neither the package's folder nor the user's cache can be written.
            return njit(function, **options)

    return decorate

"""How the commands print."""

import re
import sys
import time
from collections.abc import Callable

import click

from ..proto.errors import UsageError
from ..zoo.strict_json import dumps as as_json

__all__ = ["as_json", "counter", "sides", "size"]


def size(count: int) -> str:
    """Write a number of bytes as people read it: ``176.7 MB``."""
    if count < 1000:
        return f"{count} bytes"
    value = float(count)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 1000 or unit == "GB":
            break
    return f"{value:.1f} {unit}"


def counter(what: str) -> Callable[[int, int], None]:
    """Return what shows how many are done and how long the rest takes, on standard error.

    On a terminal that is one line which changes; elsewhere a line for every tenth, if that
    takes seconds.
    """
    terminal = sys.stderr.isatty()
    started = shown = time.monotonic()
    first = last = 0

    def show(done: int, total: int) -> None:
        nonlocal started, shown, first, last
        now, before = time.monotonic(), last
        last = done
        if not 0 < before < done:  # A new round; the time of the first ones is that of warming up.
            started, first = now, done
            return
        tenth = done * 10 // total > before * 10 // total
        if done < total and not (now - shown > 0.2 if terminal else tenth and now - shown > 3):
            return
        shown = now
        rate = (done - first) / max(now - started, 1e-9)
        text = f"{what} {done} of {total}, {rate:.1f}/s, {(total - done) / rate:.0f} s left"
        click.echo(f"\r{text}\033[K" if terminal else text, nl=not terminal, err=True)
        if terminal and done == total:
            click.echo("", err=True)

    return show


def sides(text: str) -> tuple[int, int]:
    """Read ``--size``: height and width."""
    found = re.fullmatch(r"\s*(\d+)\s*[,x]\s*(\d+)\s*", text)
    if found is None:
        raise UsageError(f"--size {text}: expected height and width, such as 321,481.")
    return int(found[1]), int(found[2])

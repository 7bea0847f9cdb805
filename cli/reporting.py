"""How a fetch is shown while it goes on: bars on a terminal, a few lines in a pipe, or JSON."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from ..zoo.weights.events import Event, Listener


@contextmanager
def json_lines() -> Iterator["Listener"]:
    """Print each event as one JSON object on a line of standard output."""

    def listen(event: "Event") -> None:
        fields = {"event": event.kind, "file": event.file, **event.detail}
        click.echo(json.dumps(fields))

    yield listen


@contextmanager
def lines() -> Iterator["Listener"]:
    """Print what a person must know on standard error."""

    def listen(event: "Event") -> None:
        if line := describe(event):
            click.echo(line, err=True)

    yield listen


@contextmanager
def bars() -> Iterator["Listener"]:
    """Show a bar for each file, with its rate and the time left, and the lines above them."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Bars(progress).listen


class _Bars:
    """One bar per file; a retry goes on with the same one."""

    def __init__(self, progress: "Progress") -> None:
        self.progress = progress
        self.tasks: dict[str, TaskID] = {}

    def listen(self, event: "Event") -> None:
        detail = event.detail
        if event.kind == "start":
            if event.file not in self.tasks:
                self.tasks[event.file] = self.progress.add_task(event.file, total=None)
            self._update(event.file, detail["offset"], detail["total"])
        elif event.kind == "progress":
            self._update(event.file, detail["done"], detail["total"])
        elif line := describe(event):
            self.progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _update(self, file: str, done: int, total: int | None) -> None:
        self.progress.update(self.tasks[file], completed=done, total=total)


def describe(event: "Event") -> str | None:
    """Say in one line what a person must know of an event; None where that is nothing."""
    detail = event.detail
    match event.kind:
        case "done":
            return f"{event.file}: {detail['words']}"
        case "retry":
            return f"{event.file}: {detail['reason']}; again in {detail['wait']} s"
        case "source" | "mismatch":
            return f"{event.file}: {detail['url']}: {detail['reason']}"
        case "waiting":
            return f"{event.file}: another process fetches it; waiting"
        case "note":
            return str(detail["text"])
    return None

"""What a fetch tells while it goes on: one small record per happening."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from requests import Response


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a file.

    ``kind`` is ``start``, ``progress``, ``retry``, ``source`` (on to the next one),
    ``waiting``, ``mismatch``, ``cached``, ``done``, ``note`` or ``result``.
    """

    kind: str
    file: str
    detail: Mapping[str, Any] = field(default_factory=dict)


Listener = Callable[[Event], None]


def silent(event: Event) -> None:
    """Listen to nothing."""


class Stop:
    """Asks downloads in other threads to end, also those that wait for a server."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._open: set[Response] = set()
        self.is_set, self.wait = self._event.is_set, self._event.wait

    def set(self) -> None:
        """End them."""
        self._event.set()
        for response in list(self._open):
            with suppress(Exception):  # It may be ending by itself at this moment.
                response.raw.shutdown()

    @contextmanager
    def reaches(self, response: "Response") -> Iterator[None]:
        """End this answer too, as long as the block lasts."""
        self._open.add(response)
        try:
            yield
        finally:
            self._open.discard(response)

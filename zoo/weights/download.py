"""One file over the network: resumed, retried, from mirror to mirror, hashed as it comes.

Enters: addresses in order, and what is known of the bytes. Leaves: a finished file in
staging with its digests, handed to ``accept``, which finds it right and takes it away, or
raises. Nothing here gives a file its final name.
"""

import hashlib
import random
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import requests

from ...converters.files import CHUNK
from ...proto.errors import IntegrityError, NetworkError, StorageError, listing
from .events import Event, Listener, Stop, silent
from .http import Answer, Refused, Retry, ask
from .schema import Claim
from .staging import Partial, claim
from .store import disk, quarantine

TICK = 0.1  # Seconds between reports of progress.


@dataclass(frozen=True, slots=True)
class Policy:
    """How patient a download is: times in seconds, ``slowest`` in bytes per second."""

    retries: int = 5
    connect: float = 10.0
    timeout: float = 30.0
    slowest: float = 1024
    backoff: float = 1.0
    longest_wait: float = 60.0


@dataclass(frozen=True, slots=True)
class Received:
    """A finished download; ``headers`` are those of the last answer."""

    path: Path
    size: int
    digests: Mapping[str, str]
    url: str
    final_url: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Job:
    """What to download and how. ``accept`` raises `IntegrityError` for wrong bytes."""

    name: str
    urls: Sequence[str]
    claim: Claim
    root: Path
    accept: Callable[[Received], None]
    session: requests.Session
    room: int = 1  # How many times its size it needs on the disk.
    policy: Policy = field(default_factory=Policy)
    listen: Listener = silent
    stop: Stop = field(default_factory=Stop)

    def tell(self, kind: str, **detail: object) -> None:
        """Report something."""
        self.listen(Event(kind, self.name, detail))

    @property
    def pinned(self) -> bool:
        """Tell whether wrong bytes cannot pass, wherever they come from."""
        return self.claim.state == "pinned"


def download(job: Job, key: str) -> None:
    """Try the addresses in order until one gives bytes that ``job.accept`` takes.

    Raises
    ------
    NetworkError
        All of them failed; each is listed with its reason.
    IntegrityError
        One gave wrong bytes, and no other the right ones.
    StorageError
        The disk is full or read-only; what has arrived is kept.

    """
    staging = job.root / "staging"
    with disk(staging):
        partial = claim(staging, key)
    failures: list[str] = []
    wrong: IntegrityError | None = None
    again: set[str] = set()
    try:
        _check_room(job, partial)
        urls = list(job.urls)
        while urls:
            url = urls.pop(0)
            try:
                resumed = False
                received, resumed = _receive(url, job, partial)
                job.accept(received)
                return
            except Refused as refusal:
                failures.append(f"{url}: {refusal}")
                job.tell("source", url=url, reason=str(refusal))
            except IntegrityError as error:
                wrong = IntegrityError(f"{error} {_put_aside(job, partial)}")
                failures.append(f"{url}: wrong bytes")
                job.tell("mismatch", url=url, reason=str(wrong))
                if resumed and url not in again:  # Pieces that do not fit: once more, whole.
                    again.add(url)
                    urls.insert(0, url)
        if wrong is not None:
            raise wrong
        raise NetworkError(f"{job.name}: no source gave it:\n{listing(failures)}")
    finally:
        with disk(staging):
            partial.release()


def _put_aside(job: Job, partial: Partial) -> str:
    if not partial.path.exists():
        return ""
    kept = quarantine(job.root, partial.path)
    partial.path.touch()
    return f"The bytes are kept in {kept}."


def _check_room(job: Job, partial: Partial) -> None:
    """Refuse a download that the disk cannot hold, before it starts."""
    if job.claim.size is None:
        return
    needed = job.room * job.claim.size - partial.path.stat().st_size
    free = shutil.disk_usage(job.root).free
    if needed > free:
        raise StorageError(
            f"{job.root}: {free:,} bytes are free, {job.name} needs {needed:,}. Free some "
            "space, or choose another place: DEEPLAB_ZOO_CACHE."
        )


def _receive(url: str, job: Job, partial: Partial) -> tuple[Received, bool]:
    """Get the whole file from one address, retrying; also tell whether it came in pieces.

    Raises
    ------
    Refused
        It is no use to ask this address again.

    """
    policy = job.policy
    transfer = _Transfer(job, partial)
    for attempt in range(policy.retries + 1):
        try:
            return transfer.attempt(url), transfer.pieces > 1
        except Retry as problem:
            if problem.restart:
                transfer.discard()
            if attempt == policy.retries:
                raise Refused(f"{problem} ({attempt + 1} attempts)") from None
            wait = policy.backoff * 2 ** min(attempt, 30) * random.uniform(0.5, 1.5)
            wait = min(wait if problem.after is None else problem.after, policy.longest_wait)
            job.tell("retry", url=url, reason=str(problem), wait=round(wait, 1))
            if job.stop.wait(wait):
                raise KeyboardInterrupt from None
    raise AssertionError  # The loop returns or raises.


class _Transfer:
    """The file as far as it has come from one address: its length and its running hashes."""

    def __init__(self, job: Job, partial: Partial) -> None:
        self.job, self.partial = job, partial
        self.pieces = 0
        self.count = 0
        self.hashes = _hashes(job.claim.algorithms)

    def attempt(self, url: str) -> Received:
        """Ask once, and take what comes until the file is whole."""
        job, policy = self.job, self.job.policy
        with disk(self.partial.path), self.partial.path.open("r+b") as file:
            known = self._resumable(file, url)
            total = job.claim.size or known.total
            if self.count and self.count == total:
                self.pieces += 1
                return self._received(url, url, {})
            timeout = (policy.connect, policy.timeout)
            with ask(
                job.session, url, offset=self.count, validator=known.validator, size=total,
                pinned=job.pinned, timeout=timeout, stop=job.stop,
            ) as answer:  # fmt: skip
                if not answer.delimited and job.claim.state == "unverified":
                    raise Refused("it does not say how long the file is, and nothing else does")
                if answer.start != self.count:
                    self._restart(file)
                self.pieces += 1
                total = job.claim.size or answer.total
                self.partial.describe(url, answer.validator, answer.total)
                job.tell("start", url=answer.url, total=total, offset=self.count)
                self._take(answer, file, total)
        self._check_length(total)
        return self._received(url, answer.url, answer.headers)

    def discard(self) -> None:
        """Begin again from nothing."""
        with disk(self.partial.path), self.partial.path.open("r+b") as file:
            self._restart(file)

    def _received(self, url: str, final_url: str, headers: Mapping[str, str]) -> Received:
        digests = {name: one.hexdigest() for name, one in self.hashes.items()}
        return Received(self.partial.path, self.count, digests, url, final_url, headers)

    def _resumable(self, file: BinaryIO, url: str) -> "_Known":
        """Go to the end of what is there already, or back to the start if it may not fit."""
        noted, validator, total = self.partial.described()
        size = file.seek(0, 2)
        whole = total if self.job.claim.size is None else self.job.claim.size
        same = noted == url and bool(validator)
        # Of pinned bytes any server may give the rest: the digest tells in the end.
        pinned = self.job.pinned and self.job.claim.size is not None
        if not size or not (same or pinned) or (whole is not None and size > whole):
            self._restart(file)
        elif size != self.count:
            self._rehash(file)
        if self.count and not self.pieces:
            self.pieces = 1
        return _Known(validator if same else "", total if same else None)

    def _restart(self, file: BinaryIO) -> None:
        file.seek(0)
        file.truncate()
        self.count, self.pieces = 0, 0
        self.hashes = _hashes(self.job.claim.algorithms)

    def _rehash(self, file: BinaryIO) -> None:
        self.count, self.hashes = 0, _hashes(self.job.claim.algorithms)
        file.seek(0)
        while block := file.read(CHUNK):
            self._add(block)

    def _add(self, block: bytes) -> None:
        for one in self.hashes.values():
            one.update(block)
        self.count += len(block)

    def _take(self, answer: Answer, file: BinaryIO, total: int | None) -> None:
        job, policy = self.job, self.job.policy
        told = watched = time.monotonic()
        at = self.count
        while block := answer.read():
            if job.stop.is_set():
                raise KeyboardInterrupt
            file.write(block)
            self._add(block)
            if total is not None and self.count > total:
                break
            now = time.monotonic()
            if now - told >= TICK:
                told = now
                job.tell("progress", done=self.count, total=total)
            if now - watched >= policy.timeout:
                if self.count - at < policy.slowest * (now - watched):
                    raise Retry(f"stalled: {self.count - at} bytes in {now - watched:.0f} s")
                watched, at = now, self.count
        job.tell("progress", done=self.count, total=total)

    def _check_length(self, total: int | None) -> None:
        if total is not None and self.count < total:
            raise Retry(f"ended after {self.count} of {total} bytes")
        if total is not None and self.count > total:
            raise IntegrityError(f"{self.job.name}: longer than the {total} bytes it should have.")


@dataclass(frozen=True, slots=True)
class _Known:
    validator: str
    total: int | None


def _hashes(algorithms: Iterable[str]) -> "dict[str, hashlib._Hash]":
    return {name: hashlib.new(name) for name in ("sha256", *algorithms)}

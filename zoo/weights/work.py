"""One artifact of an entry: found in the store, or brought there, judged and locked."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from shlex import quote as quoted
from shutil import rmtree
from urllib.parse import quote

from ... import __version__
from ...proto.errors import (
    IntegrityError,
    LicenceError,
    NetworkError,
    OfflineError,
    UsageError,
)
from . import archives, store
from .download import Job, Policy, Received, download
from .events import Event, Listener, Stop
from .guard import guarded
from .http import new_session
from .judge import Verdict, check_trust, judge
from .lock import Record, add_records, lock_path, read_lock
from .names import stem
from .registry import SHIPPED
from .schema import Archive, Artifact, Claim, Entry
from .sources import resolve
from .staging import scratch
from .store import Stamp


@dataclass(frozen=True, slots=True)
class Options:
    """How to fetch; see `fetch`. ``guard_wait``: seconds to wait for who fetches the same."""

    from_file: Path | None = None
    offline: bool = False
    mirrors: tuple[str, ...] = ()
    trust: bool = False
    locked: bool = False
    accept_license: bool = False
    policy: Policy = field(default_factory=Policy)
    lock: Path = field(default_factory=lock_path)
    guard_wait: float = 600.0


@dataclass(frozen=True, slots=True)
class Work:
    """One artifact to have in one store."""

    entry: Entry
    artifact: Artifact
    options: Options
    listen: Listener
    root: Path
    stop: Stop

    @property
    def folder(self) -> Path:
        """Say where its files lie."""
        return self.root / "files" / self.entry.owner

    @property
    def records(self) -> dict[str, Record]:
        """Return the locked records of its files, by file name."""
        known = read_lock(self.options.lock)
        names = {name: f"{self.entry.owner}/{name}" for name in self.artifact.stored}
        return {name: known[key] for name, key in names.items() if key in known}

    def tell(self, kind: str, file: str, **detail: object) -> None:
        """Report something."""
        self.listen(Event(kind, file, detail))

    def is_cached(self) -> bool:
        """Tell whether its files are here and right; what is wrong goes to quarantine."""
        records = self.records
        found = []
        for filename, (claim, archive) in self.artifact.stored.items():
            stamp = self._known(filename, claim)
            if stamp is None:
                return False
            try:
                place = f"{self.entry.owner}/{filename}"
                verdict = judge(place, stamp, claim, archive, records.get(filename))
            except IntegrityError as error:
                return self._reject(filename, str(error))
            found.append((stamp, verdict))
        for stamp, verdict in found:
            self._trust(verdict.state, recorded=stamp.filename in records)
        for stamp, verdict in found:
            self._settle(stamp, verdict, "cached")
        return True

    def _known(self, filename: str, claim: Claim) -> Stamp | None:
        """Return what a stored file is, hashing it again where its stamp does not tell."""
        path = self.folder / filename
        stamp = store.find(self.root, self.entry.owner, filename)
        if stamp is not None and set(claim.algorithms) <= set(stamp.digests):
            return stamp
        old = store.read_stamp(self.root, self.entry.owner, filename)
        if old is None or not path.exists():
            return None
        digests = store.digests_of(path, claim.algorithms)
        if old.digests["sha256"] != digests["sha256"]:
            self._reject(filename, f"{path}: has changed since it was fetched.")
            return None
        fresh = replace(old, size=store.size_of(path), digests=digests)
        if self.root == store.cache_folder() and os.access(self.root, os.W_OK):
            store.restamp(self.root, self.entry.owner, fresh)
        return fresh

    def _reject(self, filename: str, reason: str) -> bool:
        if self.root == store.cache_folder():
            kept = store.quarantine(self.root, self.folder / filename)
            self.tell("note", filename, text=f"{reason} It is now in {kept}.")
        return False

    def _trust(self, state: str, *, recorded: bool) -> None:
        options = self.options
        place = f"{self.entry.name}: {self.artifact.filename}"
        check_trust(place, state, locked=options.locked, trust=options.trust, recorded=recorded)

    def _settle(self, stamp: Stamp, verdict: Verdict, kind: str) -> None:
        """Lock a file that has been judged, and tell."""
        record = Record(
            sha256=stamp.digests["sha256"],
            size=stamp.size,
            url=stamp.url,
            final_url=stamp.final_url,
            etag=stamp.etag,
            last_modified=stamp.last_modified,
            fetched_at=stamp.fetched_at,
            tool_version=__version__,
            state_at_lock=verdict.state,
        )
        key = f"{self.entry.owner}/{stamp.filename}"
        add_records(self.options.lock, {key: record}, store.cache_folder() / "guards")
        self.tell(
            kind,
            stamp.filename,
            path=str(self.folder / stamp.filename),
            size=stamp.size,
            sha256=record.sha256,
            state=verdict.state,
            words=verdict.words,
        )

    def bring(self) -> None:
        """Get it: one process at a time, if the file system knows how."""
        name = self.artifact.filename
        key = f"{self.entry.owner}/{name}"
        wait = self.options.guard_wait
        waiting = partial(self.tell, "waiting", name)
        with guarded(self.root / "guards", key, wait, waiting):
            if self._is_brought() or not self.is_cached():
                self._download(hashlib.sha256(key.encode()).hexdigest()[:32])

    def _is_brought(self) -> bool:
        """Tell whether there is a file to check; a folder may have some of several files."""
        given = self.options.from_file
        some = given is not None and given.is_dir() and len(self.entry.artifacts) > 1
        return given is not None and (not some or (given / self.artifact.filename).exists())

    def _download(self, key: str) -> None:
        artifact, options, records = self.artifact, self.options, self.records
        urls = self._urls()
        recorded = set(records) == set(artifact.stored)
        self._trust(artifact.state, recorded=recorded)
        licence = self.entry.license
        if licence.accept_required and not options.accept_license:
            raise LicenceError(
                f"{self.entry.name}: its licence ({licence.spdx} {licence.url}) must be "
                "accepted first: read it, then --accept-license."
            )
        if options.offline:
            known, urls = urls, tuple(one for one in urls if one.startswith("file:"))
            if not urls:
                raise OfflineError(
                    f"{self.entry.name}: not here (expected at "
                    f"{self.folder / next(iter(artifact.stored))}), and this is offline mode. "
                    f"{self._by_hand(known)}"
                )
        if not urls:
            raise NetworkError(f"{self.entry.name}: no address to fetch it from. {self._by_hand()}")
        claim = artifact.claim
        if recorded and artifact.archive is None and claim.state != "pinned":
            locked = records[artifact.filename]
            claim = replace(
                claim, size=locked.size, digests={**claim.digests, "sha256": locked.sha256}
            )
        with store.disk(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        with new_session() as session:
            job = Job(
                name=artifact.filename,
                urls=urls,
                claim=claim,
                root=self.root,
                accept=self._accept,
                session=session,
                room=2 if artifact.archive else 1,
                policy=options.policy,
                listen=self.listen,
                stop=self.stop,
            )
            try:
                download(job, f"{key}{'-file' if options.from_file else ''}")
            except NetworkError as error:
                raise NetworkError(f"{error}\n{self._by_hand()}") from None

    def _urls(self) -> tuple[str, ...]:
        """Return the addresses to try, in order."""
        artifact, brought = self.artifact, self.options.from_file
        if brought is not None:
            path = brought / artifact.filename if brought.is_dir() else brought
            if len(self.entry.artifacts) > 1 and not brought.is_dir():
                names = ", ".join(one.filename for one in self.entry.artifacts)
                raise UsageError(f"{brought}: expected the folder that has {names}.")
            if not path.is_file():
                raise UsageError(f"{path}: no such file, expected {artifact.filename}.")
            return (path.resolve().as_uri(),)
        mirrors = [
            f"{one.rstrip('/')}/{self.entry.owner}/{quote(artifact.filename)}"
            for one in self.options.mirrors
        ]
        return (*mirrors, *(resolve(one.url, self.entry.place) for one in artifact.places))

    def _by_hand(self, urls: Sequence[str] = ()) -> str:
        """Say how a person brings the file."""
        entry, artifact, claim = self.entry, self.artifact, self.artifact.claim
        own = "" if entry.place == str(SHIPPED.resolve()) else f" --registry {quoted(entry.place)}"
        path = "PATH" if len(entry.artifacts) == 1 else "FOLDER"
        places = [one for one in (artifact.manual, *urls) if one]
        facts = [f"{claim.size} bytes"] if claim.size else []
        facts += [f"{name} {digest}" for name, digest in claim.digests.items()]
        return (
            f"Get {artifact.filename} by hand"
            + (f" from {' or '.join(places)}" if places else "")
            + (f" ({', '.join(facts)})" if facts else "")
            + f", then: deeplab-zoo fetch {entry.name}{own} --from-file {path}"
        )

    def _accept(self, received: Received) -> None:
        """Judge what has come, and publish it if it is right."""
        headers = received.headers
        stamp = Stamp(
            self.artifact.filename,
            received.size,
            received.digests,
            url=received.url,
            final_url=received.final_url,
            etag=headers.get("ETag", ""),
            last_modified=headers.get("Last-Modified", ""),
            content_type=headers.get("Content-Type", ""),
            fetched_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        if self.artifact.archive is None:
            self._publish([(received.path, stamp)])
            return
        judge(stamp.filename, stamp, self.artifact.claim)
        into = scratch(self.root / "staging", received.path.name.split(".")[0])
        try:
            files = archives.unpack(received.path, self.artifact.archive, into)
            self._publish(_stamped(files, stamp, self.artifact.archive, into))
        finally:
            rmtree(into, ignore_errors=True)
        received.path.unlink(missing_ok=True)

    def _publish(self, files: Sequence[tuple[Path, Stamp]]) -> None:
        records = self.records
        verdicts = []
        for _, stamp in files:
            claim, archive = self.artifact.stored[stamp.filename]
            place = f"{self.entry.owner}/{stamp.filename}"
            verdicts.append(judge(place, stamp, claim, archive, records.get(stamp.filename)))
        for (path, stamp), verdict in zip(files, verdicts, strict=True):
            store.publish(self.root, self.entry.owner, path, stamp)
            self._settle(stamp, verdict, "done")


def _stamped(
    files: Sequence[archives.Unpacked], whole: Stamp, archive: Archive, into: Path
) -> list[tuple[Path, Stamp]]:
    """Return the stamps of what came out of an archive: its members, or the folder."""
    origin = replace(whole, archive=whole.digests, archive_size=whole.size)
    if archive.members:
        return [
            (one.path, replace(origin, filename=one.path.name, size=one.size, digests=one.digests))
            for one in files
        ]
    digest = store.tree_digest(
        {one.path.relative_to(into).as_posix(): one.digests["sha256"] for one in files}
    )
    size = sum(one.size for one in files)
    return [
        (
            into,
            replace(origin, filename=stem(whole.filename), size=size, digests={"sha256": digest}),
        )
    ]

"""Whether a file's bytes are the right ones, by the registry and by the lock; in exact words.

Only a full sha256 or sha384 is called verified. Of an archive's member, the archive's digest
speaks too.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ...proto.errors import IntegrityError, UnverifiedError
from .lock import Record
from .schema import CHECKED_PREFIX, STRONG, Claim, State
from .store import Stamp


@dataclass(frozen=True, slots=True)
class Verdict:
    """How well a file is known, and the words for it; ``state`` may be ``locked``."""

    state: State | str
    words: str


def judge(
    place: str,
    stamp: Stamp,
    claim: Claim,
    archive: Claim = Claim(),  # noqa: B008 - frozen
    record: Record | None = None,
) -> Verdict:
    """Hold what a file is against what it should be.

    Raises
    ------
    IntegrityError
        It is something else than the registry, or the lock, says.

    """
    problems = [*_against(claim, stamp.digests, stamp.size, place)]
    problems += _against(archive, stamp.archive, stamp.archive_size, f"the archive of {place}")
    found = stamp.digests["sha256"]
    if record is not None and record.sha256 != found:
        problems.append(
            f"{place}: sha256 {found}, expected {record.sha256}, as locked on {record.fetched_at}"
        )
    if problems:
        where = stamp.final_url or stamp.url
        raise IntegrityError(
            f"{'; '.join(problems)}. {stamp.size} bytes"
            + (f" from {where}" if where else "")
            + (f" ({stamp.content_type})" if stamp.content_type else "")
            + ". It is not the file that was meant."
        )
    for one in (claim, archive):
        strong = [name for name in STRONG if name in one.digests]
        if strong:
            return Verdict("pinned", f"verified {strong[0]}{_of(one, claim)}")
    if record is not None:
        return Verdict("locked", f"matches the lock of {record.fetched_at}")
    for one in (claim, archive):
        if one.digests:
            return Verdict("weak", f"matches {max(one.digests)}{_of(one, claim)}; sha256 locked")
        if one.state == "prefix" and one.prefix:
            digits = len(one.prefix.hex)
            return Verdict(
                "prefix",
                f"matches an {digits}-hex prefix only ({4 * digits} bits){_of(one, claim)}; "
                "sha256 locked",
            )
    return Verdict("unverified", "UNVERIFIED, recorded on first use")


def check_trust(place: str, state: str, *, locked: bool, trust: bool, recorded: bool) -> None:
    """Refuse what nobody vouches for, and with ``locked`` what the lock does not have.

    Raises
    ------
    UnverifiedError

    """
    if locked and not recorded:
        raise UnverifiedError(f"{place}: is not in the lock file, and --locked takes nothing else.")
    if state == "unverified" and not trust and not recorded:
        raise UnverifiedError(
            f"{place}: no checksum of it is known, so nothing tells whether what comes is "
            "what was meant. To trust it once, and have its sha256 recorded in "
            "deeplab-zoo.lock: --trust-on-first-use."
        )


def _of(one: Claim, own: Claim) -> str:
    return "" if one is own else " of the archive"


def _against(claim: Claim, digests: Mapping[str, str], size: int | None, place: str) -> list[str]:
    problems = [
        f"{place}: {name} {digests.get(name, 'not known')}, expected {digest}"
        for name, digest in claim.digests.items()
        if digests.get(name) != digest
    ]
    prefix = claim.prefix
    if prefix is not None and len(prefix.hex) >= CHECKED_PREFIX:
        found = digests.get(prefix.algorithm, "not known")
        if not found.startswith(prefix.hex):
            problems.append(f"{place}: {prefix.algorithm} {found}, expected {prefix.hex}...")
    if claim.size is not None and size != claim.size:
        problems.append(f"{place}: {size} bytes, expected {claim.size}")
    return problems

"""Every error a user can cause, and the exit code the command line gives it.

A message reads ``place: what was found, what was expected``, then what to do. Anything that
is not a `ZooError` is a bug and keeps its traceback.
"""

from collections.abc import Iterable


class ZooError(Exception):
    """Something the user can act on."""

    exit_code = 1


class UsageError(ZooError):
    """An argument or name that does not exist."""

    exit_code = 2


class FormatError(ZooError):
    """A file that is damaged, malformed, or not what its name says."""

    exit_code = 3


class MissingShardError(FormatError):
    """One of several files that belong together, and that is not there."""


class IntegrityError(ZooError):
    """Bytes that are not the ones that were promised."""

    exit_code = 3


class UnverifiedError(ZooError):
    """Bytes that nobody vouches for, and no leave to trust them."""

    exit_code = 4


class NetworkError(ZooError):
    """Every source of a file failed."""

    exit_code = 5


class MismatchError(ZooError):
    """Files that are sound but do not belong together, or not to this model."""


class MissingDependencyError(ZooError):
    """An optional package that the request needs."""


class StorageError(ZooError):
    """A disk that is full, read-only, or not permitted."""

    exit_code = 6


class OfflineError(ZooError):
    """A file that is not here, and no leave to fetch it."""

    exit_code = 7


class LicenceError(ZooError):
    """A licence that must be accepted first."""

    exit_code = 8


class ParityError(ZooError):
    """Two engines, or two files, that should agree and do not."""

    exit_code = 9


def listing(problems: Iterable[str], limit: int = 20) -> str:
    """Return the problems as indented lines, at most ``limit`` of them."""
    lines = list(problems)
    shown = [f"  {line}" for line in lines[:limit]]
    if len(lines) > limit:
        shown.append(f"  ... and {len(lines) - limit} more")
    return "\n".join(shown)

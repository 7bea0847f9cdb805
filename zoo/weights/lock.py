"""``deeplab-zoo.lock``: what was fetched, so that the next fetch gets the same bytes.

JSON, one record per stored file, sorted, meant to be committed. It lies in the working folder
if it is there already (``touch deeplab-zoo.lock`` starts one), else among the user's settings.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import platformdirs

from ...converters.files import folder_for, write_text
from ...proto.errors import FormatError, StorageError
from .guard import guarded

FILENAME = "deeplab-zoo.lock"
VARIABLE = "DEEPLAB_ZOO_LOCK"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Record:
    """What a file was when it was fetched first; ``sha256`` of a folder is its tree digest."""

    sha256: str
    size: int
    url: str
    final_url: str
    etag: str
    last_modified: str
    fetched_at: str
    tool_version: str
    state_at_lock: str


def lock_path() -> Path:
    """Return the lock file in force."""
    own = os.environ.get(VARIABLE)
    if own:
        return Path(own).expanduser()
    here = Path.cwd() / FILENAME
    return here if here.exists() else Path(platformdirs.user_config_dir("deeplab-zoo")) / FILENAME


def read_lock(path: Path) -> dict[str, Record]:
    """Read the records by ``name/filename``; none where there is no file, or an empty one."""
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror}).") from error
    if not text.strip():
        return {}
    try:
        found = json.loads(text)
        if found["version"] != VERSION:
            raise FormatError(f"{path}: version {found['version']!r}, expected {VERSION}.")
        return {name: Record(**fields) for name, fields in found["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(
            f"{path}: is not a lock file of deeplab-zoo ({error}). Restore it from your history."
        ) from None


def add_records(path: Path, new: Mapping[str, Record], guards: Path) -> None:
    """Add records that are not there yet; what is locked stays as it is."""
    if not set(new) - set(read_lock(path)):
        return
    try:
        folder_for(path.parent)
    except StorageError as error:
        raise StorageError(f"{error} The lock may lie elsewhere: {VARIABLE}.") from None
    # Without the guard two writers at once would each keep their own record only.
    with guarded(guards, f"lock-{path.resolve()}", wait=10):
        files = {**new, **read_lock(path)}
        text = {"version": VERSION, "files": {k: asdict(one) for k, one in files.items()}}
        # A link leads to the project's own lock, and is to stay one.
        write_text(path.resolve(), json.dumps(text, indent=1, sort_keys=True) + "\n")

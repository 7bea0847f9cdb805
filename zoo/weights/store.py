"""The files on disk: content-addressed, published whole, with a note of what they were.

    blobs/sha256/ab/<hex>      the bytes
    files/<entry>/<file>       the same under their name (a hard link, else a copy)
    stamps/<entry>/<file>.json digests, origin, and the file's size, time and inode
    staging/                   downloads under way, on the same file system
    quarantine/                bytes that were not the promised ones
    guards/                    locks of processes that fetch the same
    converted/<entry>/         models made of the files

A stamp whose size, time and inode are still the file's saves hashing it again.
"""

import errno
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import platformdirs

from ...converters.files import CHUNK, write_text
from ...proto.errors import StorageError

VARIABLE = "DEEPLAB_ZOO_CACHE"
EXTRA = "DEEPLAB_ZOO_EXTRA_ROOTS"


def cache_folder() -> Path:
    """Return where downloads are kept: ``DEEPLAB_ZOO_CACHE``, or the user's cache folder."""
    own = os.environ.get(VARIABLE)
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    if shared:
        return Path(shared) / "deeplab-zoo"
    return Path(platformdirs.user_cache_dir("deeplab-zoo", appauthor=False))


def extra_roots() -> tuple[Path, ...]:
    """Return read-only stores that are looked into first, such as a cluster's shared one."""
    own = os.environ.get(EXTRA, "").split(os.pathsep)
    return tuple(Path(one).expanduser() for one in own if one)


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a stored file, or folder, was when it was published.

    ``digests["sha256"]`` of a folder is its tree digest. ``archive`` are the digests of the
    archive that it came out of, if it did.
    """

    filename: str
    size: int
    digests: Mapping[str, str]
    archive: Mapping[str, str] = field(default_factory=dict)
    archive_size: int | None = None
    url: str = ""
    final_url: str = ""
    etag: str = ""
    last_modified: str = ""
    content_type: str = ""
    fetched_at: str = ""
    identity: tuple[int, ...] = ()


@contextmanager
def disk(path: Path) -> Iterator[None]:
    """Turn trouble with the disk into an error that says where and what to do."""
    try:
        yield
    except OSError as error:
        full = error.errno == errno.ENOSPC
        cause = "the disk is full" if full else error.strerror or str(error)
        cure = "Free some space" if full else "Make it writable"
        raise StorageError(
            f"{path}: cannot be written: {cause}. {cure}, or choose another place: {VARIABLE}."
        ) from error


def file_of(root: Path, owner: str, filename: str) -> Path:
    """Return where a stored file lies."""
    return root / "files" / owner / filename


def blob_of(root: Path, digest: str) -> Path:
    """Return where the bytes of a sha256 lie."""
    return root / "blobs" / "sha256" / digest[:2] / digest


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files of a folder."""
    return identity(path)[1] if path.is_dir() else path.stat().st_size


def find(root: Path, owner: str, filename: str) -> Stamp | None:
    """Return the stamp of a stored file that is as it was; None for a missing or changed one."""
    stamp = read_stamp(root, owner, filename)
    with suppress(OSError):  # Also of a shared store that is not readable.
        if stamp and identity(file_of(root, owner, filename)) == stamp.identity:
            return stamp
    return None


def read_stamp(root: Path, owner: str, filename: str) -> Stamp | None:
    """Read a stored file's stamp; None where there is none, or a damaged one."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        found = json.loads(_stamp_path(root, owner, filename).read_text("utf-8"))
        digests = {"sha256": found["digests"]["sha256"], **found["digests"]}
        return Stamp(**{**found, "digests": digests, "identity": tuple(found["identity"])})
    return None


def publish(root: Path, owner: str, staged: Path, stamp: Stamp) -> Path:
    """Give verified bytes their name. Whoever comes second puts the same bytes there again."""
    path = file_of(root, owner, stamp.filename)
    with disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if staged.is_dir():
            _move_folder(staged, path)
        else:
            blob = blob_of(root, stamp.digests["sha256"])
            blob.parent.mkdir(parents=True, exist_ok=True)
            _sync(staged)
            link(staged, path)  # First: a blob without a name may be pruned.
            staged.replace(blob)
            _sync(blob.parent)
    restamp(root, owner, stamp)
    return path


def restamp(root: Path, owner: str, stamp: Stamp) -> None:
    """Note that the stored file has just been found to be what the stamp says."""
    place = _stamp_path(root, owner, stamp.filename)
    with disk(place):
        known = replace(stamp, identity=identity(file_of(root, owner, stamp.filename)))
        place.parent.mkdir(parents=True, exist_ok=True)
    write_text(place, json.dumps(asdict(known)))


def link(file: Path, path: Path) -> None:
    """Put a file under another name at once: a hard link, or a copy where there are none."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        try:
            os.link(file, temporary)
        except OSError:
            shutil.copyfile(file, temporary)
            _sync(temporary)
        temporary.replace(path)
        temporary.unlink(missing_ok=True)  # Renaming a link to itself leaves both names.
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def quarantine(root: Path, bad: Path) -> Path:
    """Put bytes aside that are not what they should be, for somebody to look at."""
    place = root / "quarantine" / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
    kept = place / bad.name.split(".partial")[0]
    with disk(kept):
        place.mkdir(parents=True)
        with suppress(FileNotFoundError):  # Another process was quicker.
            bad.replace(kept)
    return kept


def identity(path: Path) -> tuple[int, ...]:
    """Return what changes when a file changes; of a folder, how many files and bytes it has."""
    if path.is_dir():
        sizes = [one.stat().st_size for one in path.rglob("*") if one.is_file()]
        return len(sizes), sum(sizes)
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def digests_of(path: Path, algorithms: Iterable[str]) -> dict[str, str]:
    """Hash a file with several algorithms in one reading; a folder by its tree digest."""
    if path.is_dir():
        files = (one for one in path.rglob("*") if one.is_file())
        names = {one.relative_to(path).as_posix(): one for one in files}
        return {
            "sha256": tree_digest(
                {name: digests_of(one, ["sha256"])["sha256"] for name, one in names.items()}
            )
        }
    hashes = {name: hashlib.new(name) for name in {"sha256", *algorithms}}
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            for one in hashes.values():
                one.update(block)
    return {name: one.hexdigest() for name, one in hashes.items()}


def tree_digest(files: Mapping[str, str]) -> str:
    """Return the digest of a folder: that of its sorted lines ``<sha256>  <path>``."""
    lines = "".join(f"{files[name]}  {name}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def _stamp_path(root: Path, owner: str, filename: str) -> Path:
    return root / "stamps" / owner / f"{filename}.json"


def _move_folder(staged: Path, path: Path) -> None:
    try:
        staged.rename(path)
    except OSError:
        if not path.is_dir():
            raise
        # Somebody was quicker, or it was changed: what is there makes room.
        path.rename(staged.with_name(f"{staged.name}.old"))
        staged.rename(path)
        shutil.rmtree(staged.with_name(f"{staged.name}.old"))


def _sync(path: Path) -> None:
    """Bring a file's bytes, or a folder's names, to the disk."""
    with suppress(PermissionError):  # Windows does not open folders.
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

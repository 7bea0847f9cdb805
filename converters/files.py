"""Write files whole or not at all."""

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..proto.errors import StorageError, UsageError, ZooError

CHUNK = 1 << 20


def _umask() -> int:
    """Return the process's file mask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


UMASK = _umask()  # Once, before there are threads that would create files meanwhile.


@contextmanager
def replacing(path: Path, size: int = 0) -> Iterator[Path]:
    """Give a temporary path to write to, which becomes ``path`` when the block ends well.

    ``size`` is how many bytes are coming, where it is known: a disk without that much space
    is full before anything is written.

    The data are on the disk before the name changes. On any error, Ctrl-C included, the
    temporary file is removed and what ``path`` held before is untouched.

    Raises
    ------
    StorageError
        The folder is missing or read-only, or the disk is full.

    """
    folder = path.parent
    temporary = None
    try:
        if path.is_dir():
            raise ZooError(f"{path}: is a folder, expected the name of a file to write.")
        if path.exists() and not path.is_file():  # Root could put a file in /dev/null's place.
            raise ZooError(f"{path}: is a device or a pipe, expected the name of a file to write.")
        if folder.exists() and not folder.is_dir():
            raise StorageError(f"{path}: {folder} is a file, expected a folder.")
        if not folder.is_dir():
            raise StorageError(f"{path}: the folder {folder} does not exist. Create it first.")
        if size > shutil.disk_usage(folder).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=folder)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        _sync(temporary)
        temporary.chmod(0o666 & ~UMASK)
        temporary.replace(path)
        _sync(folder)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {_cause(error)}.") from error
    finally:
        if temporary is not None:
            with suppress(FileNotFoundError):
                temporary.unlink()


def check_apart(inputs: Iterable[Path], outputs: Iterable[Path]) -> None:
    """Refuse to write over what is read, or one output over another; raise `UsageError`."""
    seen = {path.resolve() for path in inputs}
    for path in outputs:
        if path.resolve() in seen:
            raise UsageError(f"{path}: is read or written already, expected a name of its own.")
        seen.add(path.resolve())


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all; raise `StorageError` as `replacing` does.

    Bytes of file names that are not UTF-8 become ``\\udce9`` and such.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def folder_for(path: Path) -> Path:
    """Make a folder that files can be written into, or find it; raise `StorageError` if not."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise StorageError(f"{path}: no folder to write into: {_cause(error)}.") from None
    return path


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


def _cause(error: OSError) -> str:
    # HDF5 reports the system's error number inside its text.
    text = f"{error.strerror or ''} {error}"
    if error.errno == errno.ENOSPC or "No space left" in text or f"errno = {errno.ENOSPC}" in text:
        return "the disk is full"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{error.strerror} (is the folder read-only?)"
    return error.strerror or str(error)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""Archives are unpacked by streaming, into an empty folder, and only if all of them is safe.

Enters: a zip or tar. Leaves: files with their digests. Links, devices, paths that leave the
folder, names that come twice and bombs are refused, by name, whether or not they are wanted.
"""

import bz2
import gzip
import hashlib
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, Protocol

from ...converters.files import CHUNK
from ...proto.errors import IntegrityError, listing
from .names import unsafe
from .schema import LENGTHS, Archive
from .store import disk

MAX_FILES = 200_000
MAX_RATIO = 200
SMALL = 10 << 20  # Whatever its ratio, this much harms nobody.
DECOMPRESS: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open,
}  # fmt: skip
# What the readers raise on bytes that are no archive, or not all of one.
DAMAGE = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError,
    IndexError, OverflowError, struct.error,
)  # fmt: skip


class Unpacked(NamedTuple):
    """A file out of an archive; ``path`` where it lies, ``name`` as the archive has it."""

    path: Path
    name: str
    size: int
    digests: dict[str, str]


class Readable(Protocol):
    """What has bytes to read."""

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` of them."""
        ...


class _Item(NamedTuple):
    name: str
    problem: str | None
    size: int
    open: Readable | None


def unpack(path: Path, archive: Archive, into: Path) -> list[Unpacked]:
    """Unpack the members that ``archive`` lists, or everything, into ``into``.

    Raises
    ------
    IntegrityError
        The archive is damaged, unsafe, or lacks a member; ``into`` is to be thrown away.

    """
    limit = max(MAX_RATIO * path.stat().st_size, SMALL)
    wanted = {member.path: member.filename for member in archive.members}
    found: list[Unpacked] = []
    problems: list[str] = []
    names: set[str] = set()
    total = 0
    try:
        for count, item in enumerate(_items(path, archive)):
            total += item.size
            if count >= MAX_FILES or total > limit:
                raise IntegrityError(
                    f"{path.name}: archive refused at {item.name!r}: {count + 1} files, {total} "
                    f"bytes of {path.stat().st_size}, expected at most {MAX_FILES} files and "
                    f"{MAX_RATIO} times its size. It looks like a bomb."
                )
            problem = item.problem or unsafe(item.name, folders=True)
            if item.name.lower() in names:
                problem = problem or "is in there twice"
            names.add(item.name.lower())
            if problem:
                problems.append(f"{item.name!r}: {problem}")
            elif item.open is not None:
                target = _target(item.name, wanted)
                if target and not problems:
                    found.append(_write(item, into / target))
    except DAMAGE as error:
        raise IntegrityError(f"{path.name}: a damaged archive ({error}).") from None
    except (RuntimeError, NotImplementedError) as error:  # A password, a method not known.
        raise IntegrityError(f"{path.name}: cannot be unpacked ({error}).") from None
    for wish in wanted:
        count = sum(_matches(one.name, wish) for one in found)
        if count != 1 and not problems:
            problems.append(f"{wish!r}: is in there {count} times, expected once")
    if not found and not problems:
        raise IntegrityError(f"{path.name}: an archive without files.")
    if problems:
        raise IntegrityError(
            f"{path.name}: archive refused, {len(problems)} names:\n{listing(problems)}"
        )
    return found


def _target(name: str, wanted: dict[str, str]) -> str | None:
    if not wanted:
        return name
    return next((target for wish, target in wanted.items() if _matches(name, wish)), None)


def _matches(name: str, wish: str) -> bool:
    """Tell whether a member is the one wished for; see `Member`."""
    path = PurePosixPath(name)
    if "__MACOSX" in path.parts:
        return False
    return path == PurePosixPath(wish) or ("/" not in wish and path.name == wish)


def _write(item: _Item, path: Path) -> Unpacked:
    hashes = {name: hashlib.new(name) for name in LENGTHS}
    size = 0
    with disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            raise IntegrityError(f"{item.name!r}: two members want its place.")
        with path.open("wb") as file:
            while item.open is not None and (block := _read(item.open)):
                size += len(block)
                file.write(block)
                for one in hashes.values():
                    one.update(block)
    return Unpacked(path, item.name, size, {k: one.hexdigest() for k, one in hashes.items()})


def _read(file: Readable) -> bytes:
    try:
        return file.read(CHUNK)
    except OSError as error:  # gzip and bzip2 call damage trouble with the disk.
        raise EOFError(str(error)) from None


def _items(path: Path, archive: Archive) -> Iterator[_Item]:
    return _of_zip(path) if archive.type == "zip" else _of_tar(path)


def _of_zip(path: Path) -> Iterator[_Item]:
    with zipfile.ZipFile(path) as file:
        for info in file.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            problem = None
            if stat.S_ISLNK(kind):
                problem = "is a link"
            elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                problem = "is a device or the like"
            if info.is_dir() or problem:
                yield _Item(info.filename.rstrip("/"), problem, 0, None)
                continue
            with file.open(info) as member:
                yield _Item(info.filename, None, info.file_size, member)


class _Bounded:
    """A tar's bytes, of which a name's may not take all memory: they are read in one piece."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int, /) -> bytes:
        """Read at most ``size`` bytes, as tarfile asks for them."""
        if size > CHUNK:
            raise EOFError(f"a header of {size} bytes, which looks like a bomb")
        return self.file.read(size)


def _decompressed(path: Path) -> Any:
    with path.open("rb") as file:
        start = file.read(6)
    found = (one for magic, one in DECOMPRESS.items() if start.startswith(magic))
    return next(found, open)(path, "rb")


def _of_tar(path: Path) -> Iterator[_Item]:
    with _decompressed(path) as whole:
        bounded: Any = _Bounded(whole)
        with tarfile.open(fileobj=bounded, mode="r:") as file:
            yield from _of_members(file)
        # What compresses a tar keeps its checksum at the end, which tarfile does not reach.
        while _read(whole):
            pass


def _of_members(file: tarfile.TarFile) -> Iterator[_Item]:
    for info in file:
        problem = None
        if info.issym() or info.islnk():
            problem = f"is a link to {info.linkname!r}"
        elif not (info.isfile() or info.isdir()):
            problem = "is a device or the like"
        if info.isdir() or problem:
            if info.name not in (".", ""):
                yield _Item(info.name, problem, 0, None)
            continue
        size = info.size + info.offset_data - info.offset  # Its headers take room too.
        yield _Item(info.name, None, size, file.extractfile(info))

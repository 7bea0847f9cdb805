"""Open a file to read it: what it is by its content, and mapped rather than copied.

A user's file is often not what its name says (a web page saved by a failed download, a
git-LFS pointer, a text prototxt). `sniff` tells by the first bytes; `mapped` refuses what
the caller did not ask for, in words that say what to do.
"""

import mmap
import os
from pathlib import Path

from .errors import FormatError, StorageError, ZooError

HEAD = 1024

_MAGIC = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"PK\x03\x04", "a zip archive (PyTorch's .pth is one)"),
    (b"\x80\x02", "a pickle"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"%PDF", "a PDF document"),
    (b"version https://git-lfs.github.com/spec/", "a git-LFS pointer"),
)
_CURE = {
    "a web page": "The download failed and saved the server's page instead: fetch it again.",
    "a git-LFS pointer": "The real file was not fetched: run `git lfs pull`.",
    "a zip archive (PyTorch's .pth is one)": "Unpack it first, if it is no .pth.",
    "a gzip archive": "Unpack it first.",
    "a bzip2 archive": "Unpack it first.",
    "an xz archive": "Unpack it first.",
    "a 7-Zip archive": "Unpack it first.",
    "a RAR archive": "Unpack it first.",
}


def head(path: Path) -> bytes:
    """Read the first bytes of ``path``; raise for a missing, empty or unreadable file."""
    try:
        if path.is_dir():
            raise ZooError(f"{path}: is a folder, expected a file.")
        if path.exists() and not path.is_file():  # It could be read once only, and from its start.
            raise ZooError(f"{path}: is a device or a pipe, expected a file. Save it as one first.")
        with path.open("rb") as file:
            start = file.read(HEAD)
    except FileNotFoundError:
        raise ZooError(f"{path}: no such file (looked from {Path.cwd()}).") from None
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror}).") from error
    if not start:
        raise FormatError(
            f"{path}: the file is empty (0 bytes). If it was downloaded, fetch it again."
        )
    return start


def sniff(start: bytes) -> str:
    """Say what a file is by its first bytes: ``an HDF5 file``, ``a web page``, ... .

    ``text`` and ``binary`` are the answers for content without a signature.
    """
    for magic, kind in _MAGIC:
        if start.startswith(magic):
            return kind
    if _looks_like_safetensors(start):
        return "a safetensors file"
    stripped = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if stripped.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--")):
        return "a web page"
    control = any(byte < 32 and byte not in b"\t\n\r\f" for byte in start)
    return "binary" if control else "text"


def read_text(path: Path, expected: str) -> str:
    """Read a text file that should be ``expected``; a byte order mark is passed over.

    Raises
    ------
    ZooError
        The file is missing, a folder, empty, recognisably something else, or not UTF-8.

    """
    kind = sniff(head(path))
    if kind != "text":
        raise FormatError(wrong_kind(path, kind, expected))
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(
            f"{path}: byte {error.start} is not UTF-8, expected {expected}."
        ) from None


def mapped(path: Path, expected: str, kind: str = "binary") -> memoryview:
    """Map a file that should be ``expected``, by its content (``kind``, see `sniff`).

    Raises
    ------
    ZooError
        The file is missing, a folder, empty, or recognisably something else.

    """
    found = sniff(head(path))
    if found != kind:
        raise FormatError(wrong_kind(path, found, expected))
    return mapped_file(path)


def mapped_file(path: Path) -> memoryview:
    """Map any file, whatever it holds; an empty one is an empty view."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return memoryview(b"")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror}).") from error


def wrong_kind(path: Path, kind: str, expected: str) -> str:
    """Compose the message for a file that is something else than expected."""
    found = "a text file" if kind == "text" else kind
    cure = _CURE.get(kind, "")
    if kind == "text" and "caffemodel" in expected:
        cure = "Were the prototxt and the caffemodel given in the other order?"
    if kind == "binary":
        found = "a binary file"
    return f"{path}: is {found}, expected {expected}. {cure}".rstrip()


def _looks_like_safetensors(start: bytes) -> bool:
    return len(start) > 9 and int.from_bytes(start[:8], "little") < 2**40 and start[8:9] == b"{"

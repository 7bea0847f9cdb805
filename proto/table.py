"""The sorted table under both TensorFlow checkpoint formats: a file becomes keys and values.

Enters: a path. Leaves: a `Table`, mapped, whose blocks are verified and unpacked when asked
for. Blocks may be raw or snappy, in one file; each carries a masked crc32c.
Format: https://github.com/google/leveldb/blob/main/doc/table_format.md
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import cramjam
import google_crc32c
import numpy as np
from numpy.typing import NDArray

from .errors import FormatError
from .source import HEAD, head, mapped_file, sniff, wrong_kind
from .wire import varint

FOOTER = 48
MAGIC = 0xDB4775248B80FB57
TRAILER = 5  # Of a block: its type and a crc32c.
RAW, SNAPPY = 0, 1

# A snappy copy of 3 bytes makes at most 64, so that no honest block grows more.
SNAPPY_GROWTH = 64 / 3
# Keys share prefixes, so a small table can spell gigabytes of them. Names of a million
# variables fit into this.
KEYS_BEYOND_FILE = 8 << 20

Entry: TypeAlias = tuple[bytes, memoryview]

CURE = "The file is damaged: copy or download it again."


@dataclass(frozen=True, slots=True)
class Block:
    """Where a block lies. Its keys are at most ``last``, which need not be one of them."""

    last: bytes
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose index block is read; ``buffer`` is the whole file."""

    path: Path
    buffer: memoryview = field(repr=False)
    blocks: tuple[Block, ...]


@contextmanager
def placed(place: str) -> Iterator[None]:
    """Begin the complaints of the block with ``place``."""
    try:
        yield
    except FormatError as error:
        raise type(error)(f"{place}: {error}") from None


def octets(view: memoryview) -> NDArray[np.uint8]:
    """See a read-only view as bytes in an array, which google-crc32c reads without a copy."""
    return np.frombuffer(view, np.uint8)


def crc32c(*parts: NDArray[Any] | bytes) -> int:
    """Compute the crc32c of the parts, one after the other."""
    crc = 0
    for part in parts:
        crc = google_crc32c.extend(crc, part)
    return crc


def masked(crc: int) -> int:
    """Mask a crc as tables store it, so that data holding their own crc stay checkable."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFF_FFFF


def open_table(path: Path) -> Table:
    """Map a table and read its index block; the data blocks are not touched.

    Raises
    ------
    ZooError
        The file is missing, not a table, or damaged; the byte is named.

    """
    start = head(path)
    buffer = mapped_file(path)
    if int.from_bytes(buffer[-8:], "little") != MAGIC or len(buffer) < FOOTER:
        raise FormatError(_not_a_table(path, start, len(buffer)))
    at = len(buffer) - FOOTER
    with placed(f"{path}: footer"):
        for _ in range(2):  # The handle of the meta index, which is empty, then the index's.
            offset, at = varint(buffer, at, len(buffer) - 8)
            size, at = varint(buffer, at, len(buffer) - 8)
    index = _unpacked(path, buffer, offset, size)
    with placed(f"{path}: index block at byte {offset}"):
        blocks = tuple(_handles(index))
    return Table(path, buffer, blocks)


def _not_a_table(path: Path, start: bytes, size: int) -> str:
    kind = sniff(start[:HEAD])
    if kind != "binary":
        return wrong_kind(path, kind, "a TensorFlow checkpoint")
    return (
        f"{path}: the last 8 of {size} bytes are not a table's signature, expected a TensorFlow "
        "checkpoint (V1, or the .index of V2). The file is cut short, damaged or something else."
    )


def _handles(index: memoryview) -> Iterator[Block]:
    """Read the index block: where each data block is, in the order of keys and of bytes."""
    before = Block(b"", 0, 0)
    for key, value in _records(index):
        offset, at = varint(value, 0, len(value))
        size, _ = varint(value, at, len(value))
        if key < before.last or offset < before.offset + before.size:
            raise FormatError(f"the block at byte {offset} is out of order, expected it sorted")
        before = Block(key, offset, size)
        yield before


def entries(table: Table, blocks: Iterable[int] | None = None) -> Iterator[Entry]:
    """Yield the keys and values of some blocks, or of all, in the order of the file.

    Each block is verified before its first entry is given out.
    """
    budget = len(table.buffer) + KEYS_BEYOND_FILE
    for number in range(len(table.blocks)) if blocks is None else blocks:
        block = table.blocks[number]
        data = _unpacked(table.path, table.buffer, block.offset, block.size)
        with placed(f"{table.path}: block at byte {block.offset}"):
            for key, value in _records(data):
                budget -= len(key)
                if budget < 0:
                    raise FormatError(f"the keys are longer than the whole file. {CURE}")
                yield key, value


def block_of(table: Table, key: bytes) -> int | None:
    """Return the number of the only block that can hold ``key``."""
    number = bisect_left(table.blocks, key, key=lambda block: block.last)
    return number if number < len(table.blocks) else None


def _unpacked(path: Path, buffer: memoryview, offset: int, size: int) -> memoryview:
    """Verify a block and return its content; a raw one stays a view of the file."""
    end, room = offset + size, len(buffer) - FOOTER
    place = f"{path}: block at byte {offset}"
    if end + TRAILER > room:
        raise FormatError(
            f"{place}: needs {size + TRAILER} bytes, {max(room - offset, 0)} are left. {CURE}"
        )
    stored = int.from_bytes(buffer[end + 1 : end + TRAILER], "little")
    found = masked(crc32c(octets(buffer[offset : end + 1])))
    if found != stored:
        raise FormatError(f"{place}: crc32c {found:#010x}, expected {stored:#010x}. {CURE}")
    kind = buffer[end]
    if kind == RAW:
        return buffer[offset:end]
    if kind != SNAPPY:
        raise FormatError(f"{place}: compression {kind}, expected 0 (none) or 1 (snappy). {CURE}")
    with placed(place):
        return _decompressed(buffer[offset:end])


def _decompressed(packed: memoryview) -> memoryview:
    size, _ = varint(packed, 0, len(packed))
    if size > SNAPPY_GROWTH * len(packed):
        raise FormatError(
            f"{len(packed)} bytes of snappy claim to hold {size}, which they cannot. {CURE}"
        )
    plain = bytearray(size)
    try:
        cramjam.snappy.decompress_raw_into(packed, plain)
    except cramjam.DecompressionError as error:
        raise FormatError(f"{error}. {CURE}") from None
    return memoryview(plain).toreadonly()


def _records(block: memoryview) -> Iterator[Entry]:
    """Walk a block: each key is given by what it shares with the one before, and the rest.

    Every restart point must be the start of a record that shares nothing: TensorFlow jumps
    to them, and a reader that does not must see the same records.
    """
    count = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 - 4 * count
    if len(block) < 4 or end < 0:
        raise FormatError(f"{len(block)} bytes cannot hold {count} restart points. {CURE}")
    restarts = np.frombuffer(block, "<u4", count, end)
    at, passed, key = 0, 0, b""
    while at < end:
        begin = at
        shared, at = varint(block, at, end)
        unshared, at = varint(block, at, end)
        size, at = varint(block, at, end)
        if passed < count and restarts[passed] == begin:
            passed += 1
            key = b""
        if shared > len(key) or at + unshared + size > end:
            raise FormatError(f"byte {begin} of it: a record that does not fit. {CURE}")
        key = key[:shared] + bytes(block[at : at + unshared])
        at += unshared + size
        yield key, block[at - size : at]
    if passed < count and not (end == 0 and count == 1 and restarts[0] == 0):
        raise FormatError(f"restart point {passed} is not the start of a record. {CURE}")


def is_table(path: Path) -> bool:
    """Tell a table by the last eight bytes of its file."""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - 8, 0))
        return int.from_bytes(file.read(8), "little") == MAGIC

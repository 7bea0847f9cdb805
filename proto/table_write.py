"""Write a sorted table: keys and values, in the order of the keys, become a file.

The blocks are raw, as TensorFlow writes them, and cut where TensorFlow cuts them: equal
entries give an equal file, byte for byte, theirs included.
Format: https://github.com/google/leveldb/blob/main/doc/table_format.md
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import BinaryIO

from .table import FOOTER, MAGIC, RAW, crc32c, masked
from .wire import encode_varint

BLOCK_SIZE = 1 << 18  # A block ends with the entry that reaches it; a long value may exceed it.
RESTART_INTERVAL = 16


@dataclass(slots=True)
class _Building:
    """A block being written: records, and where keys are spelt out."""

    interval: int = RESTART_INTERVAL
    data: bytearray = field(default_factory=bytearray)
    restarts: list[int] = field(default_factory=lambda: [0])
    since: int = 0
    last: bytes = b""

    def add(self, key: bytes, value: bytes) -> None:
        shared = 0
        if self.since < self.interval:
            shared = _shared(self.last, key)
        else:
            self.restarts.append(len(self.data))
            self.since = 0
        for number in (shared, len(key) - shared, len(value)):
            self.data += encode_varint(number)
        self.data += key[shared:]
        self.data += value
        self.last = key
        self.since += 1

    def size(self) -> int:
        return len(self.data) + 4 * len(self.restarts) + 4

    def finished(self) -> bytearray:
        for number in (*self.restarts, len(self.restarts)):
            self.data += number.to_bytes(4, "little")
        return self.data


@dataclass(slots=True)
class _Output:
    file: BinaryIO
    written: int = 0

    def block(self, building: _Building) -> bytes:
        """Write a block; return its handle."""
        data = building.finished()
        handle = encode_varint(self.written) + encode_varint(len(data))
        data.append(RAW)
        data += masked(crc32c(bytes(data))).to_bytes(4, "little")
        self.file.write(data)
        self.written += len(data)
        return handle


def write_table(entries: Iterable[tuple[bytes, bytes]], file: BinaryIO) -> None:
    """Write a table; one block at a time is in memory. The keys must ascend."""
    output = _Output(file)
    index = _Building(interval=1)
    block = _Building()
    pending: tuple[bytes, bytes] | None = None  # The last key of a written block, its handle.
    for key, value in entries:
        if pending is not None:
            index.add(_between(pending[0], key), pending[1])
            pending = None
        if block.data and key <= block.last:
            raise ValueError(f"key {key!r} after {block.last!r}, expected ascending keys")
        block.add(key, value)
        if block.size() >= BLOCK_SIZE:
            pending = block.last, output.block(block)
            block = _Building()
    if block.data:
        pending = block.last, output.block(block)
    if pending is not None:
        index.add(_after(pending[0]), pending[1])
    meta_index = output.block(_Building())
    footer = meta_index + output.block(index)
    file.write(footer.ljust(FOOTER - 8, b"\0") + MAGIC.to_bytes(8, "little"))


def _between(last: bytes, following: bytes) -> bytes:
    """Return a short key from ``last`` on and before ``following``, as LevelDB shortens."""
    shared = _shared(last, following)
    if shared < min(len(last), len(following)) and last[shared] + 1 < following[shared]:
        return last[:shared] + bytes((last[shared] + 1,))
    return last


def _shared(first: bytes, second: bytes) -> int:
    """Count the bytes at which two keys begin alike."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(first), len(second)))


def _after(last: bytes) -> bytes:
    """Return a short key from ``last`` on."""
    for place, byte in enumerate(last):
        if byte < 0xFF:
            return last[:place] + bytes((byte + 1,))
    return last

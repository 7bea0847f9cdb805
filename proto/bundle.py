"""The index of a V2 checkpoint, TensorFlow's tensor bundle: a table becomes a `Bundle`.

There is one entry per variable or slice of one: type, shape, shard, offset, size and a
crc32c of the stored bytes. The empty key holds the header. What is wrong with one entry
only is not said here but when its variable is read.
Format: tensorflow/core/protobuf/tensor_bundle.proto
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from google.protobuf.message import DecodeError

from .checkpoint_records import check_version, shape_of, text
from .checkpoint_slices import Slice, slice_of, sliced_name
from .errors import FormatError
from .source import mapped_file
from .table import CURE, Table, entries, placed
from .tensorflow_pb2 import BundleEntry, BundleHeader

HEADER_KEY = b""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a tensor, or a slice of one, is stored and what it should be."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int
    slices: tuple[Slice, ...]
    problem: str = ""  # Why it cannot be read, whatever the data.


@dataclass(frozen=True, slots=True)
class Bundle:
    """All entries by key, and the shards that exist by number."""

    index: Path
    header: BundleHeader
    entries: Mapping[bytes, Entry]
    shards: Mapping[int, memoryview] = field(repr=False)

    @property
    def prefix(self) -> str:
        """The name of the checkpoint, with which all its files begin."""
        return str(self.index).removesuffix(".index")

    @property
    def swapped(self) -> bool:
        """Whether the data are big-endian."""
        return self.header.endianness == 1

    def shard(self, number: int) -> Path:
        """Return the path of a data shard."""
        return Path(f"{self.prefix}.data-{number:05d}-of-{self.header.num_shards:05d}")


def read_index(table: Table) -> tuple[Bundle, list[str]]:
    """Parse an index and map the shards it speaks of; return also what is odd about it.

    Raises
    ------
    FormatError
        A damaged block, no header, an entry that does not parse or has an impossible shape,
        or a version that needs a newer reader.

    """
    header: BundleHeader | None = None
    found: dict[bytes, Entry] = {}
    notes: list[str] = []
    highest = b""
    for key, value in entries(table):
        place = f"{table.path}: {named(key)}"
        if header is None:
            header = _header(key, value, str(table.path))
        elif key in found:
            notes.append(f"{named(key)}: stored twice, the first counts")
        else:
            # TensorFlow seeks, and so does not find a key that stands behind a higher one.
            problem = "its key is out of order" if key < highest else ""
            with placed(place):
                found[key] = _entry(value, problem)
            highest = max(highest, key)
    if header is None:
        raise FormatError(f"{table.path}: holds no entry, expected a header. {CURE}")
    bare = Bundle(table.path, header, found, {})
    numbers = sorted({entry.shard for entry in found.values()})
    paths = {n: bare.shard(n) for n in numbers if 0 <= n < header.num_shards}
    shards = {n: mapped_file(path) for n, path in paths.items() if path.is_file()}
    return replace(bare, shards=shards), notes


def _header(key: bytes, value: memoryview, place: str) -> BundleHeader:
    header = BundleHeader()
    try:
        header.ParseFromString(bytes(value))
    except DecodeError:
        raise FormatError(f"{place}: the header does not parse. {CURE}") from None
    with placed(f"{place}: header"):
        if key != HEADER_KEY:  # TensorFlow takes any first entry for it.
            raise FormatError(f"missing, the first entry is {named(key)}. {CURE}")
        check_version(header.version)
        if header.num_shards < 1 or header.endianness not in (0, 1):
            raise FormatError(
                f"{header.num_shards} shards, byte order {header.endianness}, expected at least "
                f"1 shard and byte order 0 or 1. {CURE}"
            )
    return header


def _entry(value: memoryview, problem: str) -> Entry:
    message = BundleEntry()
    try:
        message.ParseFromString(bytes(value))
    except DecodeError:
        raise FormatError(f"the entry does not parse. {CURE}") from None
    if message.shape.unknown_rank:
        problem = "its shape is unknown"
    return Entry(
        message.dtype,
        shape_of(message.shape),
        message.shard_id,
        message.offset,
        message.size,
        message.crc32c,
        tuple(slice_of(extents) for extents in message.slices),
        problem,
    )


def named(key: bytes) -> str:
    """Name what a key stands for, for a message."""
    name = sliced_name(key)
    return f"variable {text(key)!r}" if name is None else f"a slice of variable {text(name)!r}"

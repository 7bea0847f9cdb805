"""TensorFlow's V1 checkpoints: one or more tables become a `Checkpoint`.

The empty key of each table holds the names, shapes, types and slices; every other key is a
slice of a variable and holds its numbers in a protobuf field of their type. Floats are read
as views of the mapped file. Only the blocks carry a crc32c, so it is the block that is
verified when one of its variables is read.
Format: tensorflow/core/util/saved_tensor_slice.proto
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from math import prod
from pathlib import Path
from typing import Any, TypeAlias

from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from .checkpoint_records import Checkpoint, Variable, check_version, dtype_of, shape_of, text
from .checkpoint_slices import Slice, assemble, check_cover, slice_key, slice_of, slice_shape
from .errors import FormatError
from .table import CURE, Table, block_of, entries, placed
from .tensorflow_pb2 import SavedTensorSliceMeta, SavedTensorSlices
from .v1_values import read_values
from .wire import LEN, fields

BLOCKS_KEPT = 4  # Unpacked blocks per table; a raw one is a view and costs nothing.
_DATA = 2  # SavedTensorSlices.data
_NAME, _VALUES = 1, 3  # SavedSlice.name, SavedSlice.data

Blocks: TypeAlias = Callable[[int], Mapping[bytes, memoryview]]


@dataclass(frozen=True, slots=True)
class Shard:
    """A table and its blocks, by number, as keys and values."""

    table: Table
    blocks: Blocks


@dataclass(frozen=True, slots=True)
class Stored:
    """What the metadata at ``path`` say of a variable, and which table has which slice."""

    path: Path
    shape: tuple[int, ...]
    dtype: int
    slices: tuple[tuple[Shard, Slice], ...] = ()


def read_tables(tables: Sequence[Table], path: Path, notes: Sequence[str]) -> Checkpoint:
    """List the variables of a V1 checkpoint; of each table only the metadata are read.

    Raises
    ------
    FormatError
        A table's metadata are damaged, need a newer reader, or contradict another table's.

    """
    stored: dict[bytes, Stored] = {}
    for table in tables:
        shard = Shard(table, lru_cache(BLOCKS_KEPT)(partial(_block, table)))
        meta = _metadata(table)
        with placed(f"{table.path}: metadata"):
            for name, found in _listed(meta, shard):
                stored[name] = _merged(stored.get(name), found, name)
    variables = (_variable(name, stored) for name in stored)
    return Checkpoint(
        path=path,
        format="V1",
        variables={variable.name: variable for variable in variables},
        files=tuple(table.path for table in tables),
        notes=tuple(notes),
    )


def _metadata(table: Table) -> SavedTensorSliceMeta:
    key, value = next(entries(table), (b"", memoryview(b"")))
    message = SavedTensorSlices()
    with placed(f"{table.path}: metadata"):
        try:
            message.ParseFromString(bytes(value) if key == b"" else b"")
        except DecodeError:
            raise FormatError(f"do not parse. {CURE}") from None
        if not message.HasField("meta"):
            raise FormatError(f"missing, expected them as the first entry. {CURE}")
        check_version(message.meta.versions)
    return message.meta


def _listed(meta: SavedTensorSliceMeta, shard: Shard) -> Iterator[tuple[bytes, Stored]]:
    for item in meta.tensor:
        with placed(f"variable {text(item.name)!r}"):
            shape = shape_of(item.shape)
        slices = tuple((shard, slice_of(extents)) for extents in item.slice)
        yield item.name, Stored(shard.table.path, shape, item.type, slices)


def _merged(known: Stored | None, found: Stored, name: bytes) -> Stored:
    """Add the slices that another table has of the same variable."""
    if known is None:
        return found
    if (known.shape, known.dtype) != (found.shape, found.dtype):
        raise FormatError(
            f"variable {text(name)!r} is {dtype_of(found.dtype).name} {list(found.shape)}, "
            f"another shard says {dtype_of(known.dtype).name} {list(known.shape)}"
        )
    return replace(known, slices=known.slices + found.slices)


def _block(table: Table, number: int) -> dict[bytes, memoryview]:
    """Read a block's entries; a key behind a higher one does not exist, nor a second one."""
    found: dict[bytes, memoryview] = {}
    highest = b""
    for key, value in entries(table, (number,)):
        if key > highest:
            found[key] = value
            highest = key
    return found


def _variable(name: bytes, listed: Mapping[bytes, Stored]) -> Variable:
    stored = listed[name]
    read = partial(_read, name, listed)
    return Variable(text(name), stored.shape, dtype_of(stored.dtype).name, read)


def _read(name: bytes, listed: Mapping[bytes, Stored]) -> NDArray[Any]:
    stored = listed[name]
    with placed(f"{stored.path}: variable {text(name)!r}"):
        extents = [part for _, part in stored.slices]
        check_cover(extents, stored.shape)
        parts = [_part(name, listed, *place) for place in stored.slices]
        return assemble(extents, parts, stored.shape)


def _part(
    name: bytes, listed: Mapping[bytes, Stored], shard: Shard, extents: Slice
) -> NDArray[Any]:
    """Read the numbers of one slice."""
    stored = listed[name]
    key = slice_key(name, extents)
    number = block_of(shard.table, key)
    value = None if number is None else shard.blocks(number).get(key)
    if value is None:
        raise FormatError(f"listed, but its data are not in {shard.table.path}. {CURE}")
    count = prod(slice_shape(extents, stored.shape))
    start = shard.table.blocks[number or 0].offset
    with placed(f"{shard.table.path}: block at byte {start}"):
        for said in map(bytes, _saved(value, _NAME)):
            # The key decides, as in TensorFlow; but these would be another's numbers.
            if said != name and said in listed:
                raise FormatError(f"its data say they are of {text(said)!r}. {CURE}")
        return read_values(_saved(value, _VALUES), dtype_of(stored.dtype), count)


def _saved(value: memoryview, number: int) -> Iterator[memoryview]:
    """Yield a field of the SavedSlice in a SavedTensorSlices; protobuf joins repeated ones."""
    for outer in fields(value, 0, len(value)):
        if outer.number == _DATA and outer.kind == LEN:
            for inner in fields(value, outer.start, outer.stop):
                if inner.number == number and inner.kind == LEN:
                    yield value[inner.start : inner.stop]

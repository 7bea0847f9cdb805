"""TensorFlow's V2 checkpoints: an index table and data shards become a `Checkpoint`.

Everything but strings, booleans and big-endian data is read as a view of the mapped shard,
verified by the entry's crc32c. What is wrong with one entry is said when it is read.
Format: tensorflow/core/util/tensor_bundle/tensor_bundle.cc
"""

from collections.abc import Iterator
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle, Entry, named, read_index
from .bundle_checks import check_byte_order, oddities
from .checkpoint_records import Checkpoint, DType, Variable, dtype_of, text, widened
from .checkpoint_slices import assemble, check_cover, slice_key, slice_shape
from .errors import FormatError, MissingShardError
from .table import CURE, Table, crc32c, masked, octets, placed
from .wire import varint


def read_bundle(table: Table) -> Checkpoint:
    """List the variables of a V2 index; the shards are mapped, not read.

    Raises
    ------
    FormatError
        The index is damaged, has no header or needs a newer reader, or its byte order
        cannot be that of the data.

    """
    bundle, notes = read_index(table)
    check_byte_order(bundle)
    names = [key for key in bundle.entries if not key.startswith(b"\0")]
    variables = (_variable(bundle, key, bundle.entries[key]) for key in names)
    return Checkpoint(
        path=Path(bundle.prefix),
        format="V2",
        variables={variable.name: variable for variable in variables},
        files=(table.path, *(bundle.shard(number) for number in bundle.shards)),
        notes=(*notes, *oddities(bundle)),
    )


def _variable(bundle: Bundle, key: bytes, entry: Entry) -> Variable:
    read = partial(_read, bundle, key, entry)
    return Variable(text(key), entry.shape, dtype_of(entry.dtype).name, read)


def _read(bundle: Bundle, key: bytes, entry: Entry) -> NDArray[Any]:
    with placed(f"{bundle.index}: {named(key)}"):
        if entry.problem:
            raise FormatError(f"{entry.problem}. {CURE}")
        if not entry.slices:
            return _tensor(bundle, entry)
        parts = list(_parts(bundle, key, entry))
        return assemble(entry.slices, parts, entry.shape)


def _parts(bundle: Bundle, key: bytes, entry: Entry) -> Iterator[NDArray[Any]]:
    """Read the slices, once it is sure that they can be what the full entry says."""
    check_cover(entry.slices, entry.shape)
    stored = []
    for extents in entry.slices:
        part = bundle.entries.get(slice_key(key, extents))
        if part is None:
            raise FormatError(f"the entry of slice {list(extents)} is missing")
        expected = entry.dtype, slice_shape(extents, entry.shape)
        if (part.dtype, part.shape) != expected:
            raise FormatError(
                f"slice {list(extents)} is {dtype_of(part.dtype).name} {list(part.shape)}, "
                f"expected {dtype_of(entry.dtype).name} {list(expected[1])}"
            )
        if part.problem:
            raise FormatError(f"slice {list(extents)}: {part.problem}. {CURE}")
        stored.append(part)
    if sum(part.size for part in stored) > sum(map(len, bundle.shards.values())):
        raise FormatError("its slices are larger than the data files that exist")
    yield from (_tensor(bundle, part) for part in stored)


def _tensor(bundle: Bundle, entry: Entry) -> NDArray[Any]:
    """Read and verify what one entry points at."""
    dtype = dtype_of(entry.dtype)
    if dtype.name == "string":
        data = _stored(bundle, entry)
        with placed(_place(bundle, entry)):
            strings = _strings(data, prod(entry.shape), entry.crc, swapped=bundle.swapped)
        return strings.reshape(entry.shape)
    if dtype.code is None:
        raise FormatError(f"is of {dtype.name}, expected numbers or strings")
    expected = prod(entry.shape) * np.dtype(dtype.code).itemsize
    if entry.size != expected:
        raise FormatError(
            f"{entry.size} bytes, {dtype.name} {list(entry.shape)} needs {expected}. {CURE}"
        )
    data = _stored(bundle, entry)
    found = masked(crc32c(octets(data)))
    if found != entry.crc:
        raise FormatError(
            f"{_place(bundle, entry)}: crc32c {found:#010x}, expected {entry.crc:#010x}. {CURE} "
            "If it has several shards, were they swapped or taken from another save?"
        )
    return _numbers(data, dtype, swapped=bundle.swapped).reshape(entry.shape)


def _numbers(data: memoryview, dtype: DType, *, swapped: bool) -> NDArray[Any]:
    """View stored numbers as what they are; only what must change is copied."""
    if dtype.name == "bool":
        return np.not_equal(octets(data), 0)
    stored: NDArray[Any] = np.frombuffer(data, dtype.code)
    numbers = stored.byteswap() if swapped else stored
    return widened(numbers) if dtype.name == "bfloat16" else numbers


def _stored(bundle: Bundle, entry: Entry) -> memoryview:
    """Return the bytes an entry points at; they exist."""
    if not 0 <= entry.shard < bundle.header.num_shards:
        raise FormatError(
            f"shard {entry.shard}, expected 0 to {bundle.header.num_shards - 1}. {CURE}"
        )
    shard = bundle.shards.get(entry.shard)
    if shard is None:
        raise MissingShardError(
            f"its data file {bundle.shard(entry.shard)} is missing. A checkpoint is the .index "
            "and all .data files together."
        )
    if entry.offset < 0 or entry.size < 0 or entry.offset + entry.size > len(shard):
        raise FormatError(
            f"{bundle.shard(entry.shard)}: {entry.size} bytes at byte {entry.offset}, "
            f"the file has {len(shard)}. {CURE}"
        )
    return shard[entry.offset : entry.offset + entry.size]


def _place(bundle: Bundle, entry: Entry) -> str:
    return f"{bundle.shard(entry.shard)}: bytes {entry.offset} to {entry.offset + entry.size}"


def _strings(data: memoryview, count: int, crc: int, *, swapped: bool) -> NDArray[Any]:
    """Read strings: their lengths as varints, a masked crc32c of the lengths, their bytes.

    Both crcs, this one and the entry's, cover the lengths as fixed numbers of 4 bytes (8 from
    2^32), in the file's byte order.
    """
    lengths, at = [], 0
    if count > len(data):
        raise FormatError(f"{len(data)} bytes cannot hold {count} strings. {CURE}")
    for _ in range(count):
        length, at = varint(data, at, len(data))
        lengths.append(length)
    order: Literal["big", "little"] = "big" if swapped else "little"
    fixed = b"".join(length.to_bytes(4 if length < 2**32 else 8, order) for length in lengths)
    stored, start = bytes(data[at : at + 4]), at + 4
    if int.from_bytes(stored, order) != masked(crc32c(fixed)):
        raise FormatError(f"the crc32c of the strings' lengths does not match. {CURE}")
    if start + sum(lengths) != len(data):
        raise FormatError(
            f"strings of {sum(lengths)} bytes, {len(data) - start} bytes are stored. {CURE}"
        )
    if masked(crc32c(fixed, stored, octets(data[start:]))) != crc:
        raise FormatError(f"the crc32c of the strings does not match. {CURE}")
    strings = np.empty(count, object)
    for number, length in enumerate(lengths):
        strings[number] = bytes(data[start : start + length])
        start += length
    return strings

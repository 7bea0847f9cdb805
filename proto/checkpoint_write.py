"""Write variables as a TensorFlow checkpoint, V2 or V1, that TensorFlow reads.

Enters: a mapping from variable name to array. Leaves: bytes in files that the caller opened,
so that it decides how they come to their names. One variable at a time is in memory, and
equal variables give equal files, those that ``tf.train.Saver`` writes.
"""

from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .checkpoint_records import DTYPES, OUR_VERSION
from .checkpoint_slices import WHOLE, slice_key
from .errors import FormatError
from .table import crc32c, masked
from .table_write import write_table
from .tensorflow_pb2 import (
    BundleEntry,
    BundleHeader,
    SavedSlice,
    SavedTensorSlices,
    TensorShape,
    TensorSlice,
    Version,
)
from .v1_values import FIELDS
from .wire import I32, I64, LEN, encode_varint, tag

LARGEST_V1 = 2**31 - 1  # protobuf's limit for one message, in which V1 stores a variable.
PIECE = 1 << 16  # Integers encoded at once.

_NUMBERS = {name: number for number, (name, _) in DTYPES.items()}


def write_v2(variables: Mapping[str, NDArray[Any]], index: BinaryIO, data: BinaryIO) -> None:
    """Write a V2 checkpoint: ``PREFIX.index`` and ``PREFIX.data-00000-of-00001``.

    Raises
    ------
    FormatError
        A type that TensorFlow does not have, or an empty name; before anything is written
        of that variable.

    """
    header = BundleHeader(num_shards=1, version=Version(producer=OUR_VERSION))
    entries = [(b"", header.SerializeToString())]
    offset = 0
    for key, name in _sorted(variables):
        array = variables[name]
        number = _number(name, array)
        chunks, crc = _bundled(array)
        size = sum(len(chunk) for chunk in chunks)
        for chunk in chunks:
            data.write(chunk)
        entry = BundleEntry(dtype=number, shape=_shape(array), size=size, crc32c=masked(crc))
        if offset:  # As proto3 writes it: no zeros.
            entry.offset = offset
        entries.append((key, entry.SerializeToString()))
        offset += size
    write_table(entries, index)


def write_v1(variables: Mapping[str, NDArray[Any]], file: BinaryIO) -> None:
    """Write a V1 checkpoint: one file, as ``Saver(write_version=V1)`` and npy2ckpt wrote.

    Every variable is taken from the mapping twice: its shape comes before all data.

    Raises
    ------
    FormatError
        A type that V1 cannot hold, a variable of more than 2 GB, or an empty name.

    """
    write_table(_v1_entries(variables), file)


def _v1_entries(variables: Mapping[str, NDArray[Any]]) -> Iterator[tuple[bytes, bytes]]:
    message = SavedTensorSlices()
    message.meta.versions.producer = OUR_VERSION
    keys: list[tuple[bytes, str]] = []
    for encoded, name in _sorted(variables):
        array = variables[name]
        extents = TensorSlice(extent=[TensorSlice.Extent()] * array.ndim)
        message.meta.tensor.add(
            name=encoded, shape=_shape(array), type=_number(name, array), slice=[extents]
        )
        if _type(array) not in FIELDS:
            raise FormatError(f"{name}: numbers of type {_type(array)}, V1 cannot hold them.")
        keys.append((slice_key(encoded, ((0, WHOLE),) * array.ndim), name))
    yield b"", message.SerializeToString()
    for key, name in sorted(keys):
        array = variables[name]
        values = _typed(array)
        if len(values) > LARGEST_V1:
            raise FormatError(f"{name}: {len(values)} bytes, a V1 checkpoint holds {LARGEST_V1}.")
        extents = TensorSlice(extent=[TensorSlice.Extent()] * array.ndim)
        saved = SavedSlice(name=name.encode(), slice=extents, data=values)
        yield key, SavedTensorSlices(data=saved).SerializeToString()


def _sorted(variables: Mapping[str, NDArray[Any]]) -> list[tuple[bytes, str]]:
    """Return the names in the order of their bytes, which is that of a table."""
    if "" in variables or any(name.startswith("\0") for name in variables):
        raise FormatError("a variable has an empty name or one that begins with a zero byte")
    return sorted((name.encode(), name) for name in variables)


def _number(name: str, array: NDArray[Any]) -> int:
    known = _type(array)
    if known not in _NUMBERS:
        raise FormatError(f"{name}: numbers of type {known}, expected one of TensorFlow's.")
    return _NUMBERS[known]


def _type(array: NDArray[Any]) -> str:
    return "string" if array.dtype == object else array.dtype.name


def _shape(array: NDArray[Any]) -> TensorShape:
    # As proto3 writes it: a size of zero is an empty dimension.
    return TensorShape(
        dim=[TensorShape.Dim(size=size) if size else TensorShape.Dim() for size in array.shape]
    )


def _little(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array flat, C-ordered and little-endian."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1)


def _bundled(array: NDArray[Any]) -> tuple[list[bytes | memoryview], int]:
    """Encode a tensor as V2 stores it; return its pieces and its crc32c."""
    if array.dtype != object:
        octet = _little(array).view(np.uint8)
        return [octet.data], crc32c(octet)
    strings = [bytes(value) for value in array.reshape(-1)]
    sizes = [len(value) for value in strings]
    fixed = b"".join(size.to_bytes(4 if size < 2**32 else 8, "little") for size in sizes)
    check = masked(crc32c(fixed)).to_bytes(4, "little")
    chunks = [b"".join(map(encode_varint, sizes)), check, *strings]
    return list(chunks), crc32c(fixed, *chunks[1:])


def _typed(array: NDArray[Any]) -> bytes:
    """Encode a tensor as V1 stores it: a TensorProto with nothing but the type's field."""
    number, kind = FIELDS[_type(array)]
    if kind == LEN:
        strings = [bytes(value) for value in array.reshape(-1)]
        return b"".join(tag(number, LEN) + encode_varint(len(s)) + s for s in strings)
    flat = _little(array)
    if kind in (I32, I64):
        values = flat.tobytes()
    else:  # VARINT
        values = b"".join(_varints(flat[at : at + PIECE]) for at in range(0, flat.size, PIECE))
    return tag(number, LEN) + encode_varint(len(values)) + values if values else b""


def _varints(numbers: NDArray[Any]) -> bytes:
    """Encode integers (halves by their bits) as varints, negative ones in 10 bytes."""
    if numbers.dtype.kind == "f":
        numbers = numbers.view(np.uint16)
    values = numbers.astype(np.int64).view(np.uint64) if numbers.dtype.kind == "i" else numbers
    values = values.astype(np.uint64)[:, None] >> np.arange(0, 70, 7, dtype=np.uint64)
    follows = np.concatenate((values[:, 1:] != 0, np.zeros((len(values), 1), np.bool_)), axis=1)
    used = np.concatenate((np.ones((len(values), 1), np.bool_), follows[:, :-1]), axis=1)
    octet: NDArray[Any] = (values & 0x7F).astype(np.uint8) | follows.astype(np.uint8) << 7
    encoded: bytes = octet[used].tobytes()
    return encoded

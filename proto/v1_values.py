"""The numbers of a TensorProto, in a V1 checkpoint or a graph: typed fields become an array.

Every type has its field (``float_val``, ``int_val`` ...) and is stored there in full, packed.
Floats are viewed; integers are varints and are decoded.
Fields: tensorflow/core/framework/tensor.proto
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .checkpoint_records import DType
from .errors import FormatError
from .table import CURE, octets
from .wire import I32, I64, LEN, VARINT, fields

PIECE = 1 << 16  # Bytes of varints decoded at once: the work arrays are eight times as large.


class Values(NamedTuple):
    """Where a type's numbers are: the field, and what one number is on the wire."""

    field: int
    kind: int


FIELDS = {
    "float32": Values(5, I32),
    "float64": Values(6, I64),
    "int32": Values(7, VARINT),
    "uint8": Values(7, VARINT),
    "int16": Values(7, VARINT),
    "int8": Values(7, VARINT),
    "uint16": Values(7, VARINT),
    "qint8": Values(7, VARINT),
    "quint8": Values(7, VARINT),
    "qint32": Values(7, VARINT),
    "qint16": Values(7, VARINT),
    "quint16": Values(7, VARINT),
    "string": Values(8, LEN),
    "complex64": Values(9, I32),
    "int64": Values(10, VARINT),
    "bool": Values(11, VARINT),
    "complex128": Values(12, I64),
    "float16": Values(13, VARINT),
    "uint32": Values(16, VARINT),
    "uint64": Values(17, VARINT),
}


def read_values(
    tensors: Iterable[memoryview], dtype: DType, count: int, *, repeat: bool = False
) -> NDArray[Any]:
    """Read exactly ``count`` numbers or strings from a TensorProto, flat.

    ``repeat``: one number may stand for all, as in the constants of a graph.
    """
    place = FIELDS.get(dtype.name)
    if place is None:
        raise FormatError(f"is of {dtype.name}, which a V1 checkpoint cannot hold")
    found = [part for tensor in tensors for part in _payloads(tensor, place)]
    if place.kind == LEN:
        return _strings(found, count)
    data = found[0] if len(found) == 1 else memoryview(b"".join(found))
    array = _integers(data, dtype) if place.kind == VARINT else _floats(data, dtype)
    if repeat and array.size == 1:
        return np.repeat(array, count)
    if array.size != count:
        raise FormatError(f"{array.size} numbers of {dtype.name}, the shape needs {count}. {CURE}")
    return array


def _payloads(tensor: memoryview, place: Values) -> Iterator[memoryview]:
    """Yield what the field holds: packed numbers, or single ones without their tags."""
    for item in fields(tensor, 0, len(tensor)):
        if item.number == place.field:
            if item.kind not in (LEN, place.kind):
                raise FormatError(f"byte {item.begin} of it: wire type {item.kind}. {CURE}")
            yield tensor[item.start : item.stop]


def _floats(data: memoryview, dtype: DType) -> NDArray[Any]:
    code = np.dtype(dtype.code)
    if len(data) % code.itemsize:
        raise FormatError(f"{len(data)} bytes of {dtype.name}. {CURE}")
    return np.frombuffer(data, code)


def _strings(found: list[memoryview], count: int) -> NDArray[Any]:
    if len(found) != count:
        raise FormatError(f"{len(found)} strings, the shape needs {count}. {CURE}")
    strings = np.empty(count, object)
    for number, part in enumerate(found):
        strings[number] = bytes(part)
    return strings


def _integers(data: memoryview, dtype: DType) -> NDArray[Any]:
    """Decode varints: negative ones are 64-bit two's complement, halves are bit patterns."""
    octet = octets(data)
    if data and data[-1] >= 0x80:
        raise FormatError(f"the data end inside a number of {dtype.name}. {CURE}")
    code = np.dtype(dtype.code)
    bits = np.dtype(f"<u{code.itemsize}")
    out = np.empty(int(np.count_nonzero(octet < 0x80)), bits)
    at = done = 0
    while at < len(data):
        piece = octet[at : at + PIECE]
        last = np.flatnonzero(piece < 0x80)
        if not last.size:
            raise FormatError(f"a number of more than 10 bytes. {CURE}")
        piece = piece[: last[-1] + 1]
        out[done : done + last.size] = _decoded(piece, last).astype(bits)
        at += piece.size
        done += last.size
    return out != 0 if dtype.name == "bool" else out.view(code)


def _decoded(octet: NDArray[np.uint8], last: NDArray[np.intp]) -> NDArray[np.uint64]:
    """Decode whole varints; ``last`` is where each one's last byte is."""
    first = np.concatenate(([0], last[:-1] + 1))
    lengths = last - first + 1
    if lengths.max() > 10:
        raise FormatError(f"a number of more than 10 bytes. {CURE}")
    place = np.arange(octet.size) - np.repeat(first, lengths)
    shifted = (octet & 0x7F).astype(np.uint64) << (7 * place).astype(np.uint64)
    return np.add.reduceat(shifted, first)

"""Walk protobuf's wire format over a mapped buffer, without copying the payload.

Enters: a buffer and a range. Leaves: one `Field` per field, with the place of its payload.
Encoding: https://protobuf.dev/programming-guides/encoding/
"""

from collections.abc import Iterator
from typing import NamedTuple

from .errors import FormatError

VARINT, I64, LEN, I32 = 0, 1, 2, 5
_FIXED = {I64: 8, I32: 4}


class Field(NamedTuple):
    """One field: ``begin`` is where its tag starts, ``start:stop`` is its payload."""

    number: int
    kind: int
    begin: int
    start: int
    stop: int
    value: int  # of a VARINT, else 0


def varint(buffer: memoryview, at: int, end: int) -> tuple[int, int]:
    """Read one varint; return its value and where the next byte is."""
    value = shift = 0
    while True:
        if at >= end:
            raise FormatError(f"byte {at}: the data end inside a number")
        byte = buffer[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7
        if shift > 63:
            raise FormatError(f"byte {at}: a number of more than 10 bytes")


def encode_varint(value: int) -> bytes:
    """Encode a non-negative number."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def tag(number: int, kind: int) -> bytes:
    """Encode the tag that stands before a field."""
    return encode_varint(number << 3 | kind)


def fields(buffer: memoryview, start: int, end: int) -> Iterator[Field]:
    """Yield the fields of the message in ``buffer[start:end]`` in order.

    Raises
    ------
    FormatError
        A tag, length or payload that does not fit the range; the byte is named.

    """
    at = start
    while at < end:
        begin = at
        key, at = varint(buffer, at, end)
        number, kind = key >> 3, key & 7
        value = 0
        if number == 0 or number >= 2**29:
            raise FormatError(f"byte {begin}: field number {number}, expected 1 to 2^29 - 1")
        first = at
        if kind == VARINT:
            value, at = varint(buffer, at, end)
        elif kind == LEN:
            size, first = varint(buffer, at, end)
            at = first + size
        elif kind in _FIXED:
            at += _FIXED[kind]
        else:
            raise FormatError(
                f"byte {begin}: field {number} has wire type {kind}, expected 0, 1, 2 or 5"
            )
        if at > end:
            raise FormatError(
                f"byte {begin}: field {number} needs {at - first} bytes, "
                f"{end - first} are left (cut short?)"
            )
        yield Field(number, kind, begin, first, at, value)

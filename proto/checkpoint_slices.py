"""Partitioned variables: where a slice is stored, and one array from many slices."""

import re
from collections.abc import Sequence
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .errors import FormatError
from .tensorflow_pb2 import TensorSlice

WHOLE = -1  # The length of an extent that spans its dimension.
Slice: TypeAlias = tuple[tuple[int, int], ...]  # (start, length) per dimension

_ESCAPED = {b"\0": b"\0\xff", b"\xff": b"\xff\0"}
_SLICED = re.compile(rb"\x00((?:[^\x00\xff]|\x00\xff|\xff\x00)*)\x00\x01")


def slice_of(message: TensorSlice) -> Slice:
    """Return the extents of a stored slice."""
    return tuple(
        (extent.start, extent.length if extent.HasField("length") else WHOLE)
        for extent in message.extent
    )


def slice_key(name: bytes, extents: Slice) -> bytes:
    """Return the key under which both formats store a slice of a variable.

    It is in OrderedCode (TensorFlow's ``lib/strings/ordered_code.h``), in which byte order is
    the order of the values: 0, the name, the rank, and start and length of each dimension.
    """
    escaped = re.sub(rb"[\x00\xff]", lambda found: _ESCAPED[found[0]], name)
    numbers = (number for extent in extents for number in extent)
    return b"\0" + escaped + b"\0\1" + _unsigned(len(extents)) + b"".join(map(_signed, numbers))


def sliced_name(key: bytes) -> bytes | None:
    """Return the name in a `slice_key`, or None where ``key`` is not one."""
    found = _SLICED.match(key)
    return re.sub(rb"\x00\xff|\xff\x00", lambda pair: pair[0][:1], found[1]) if found else None


def _unsigned(number: int) -> bytes:
    digits = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return bytes((len(digits),)) + digits


def _signed(number: int) -> bytes:
    """Encode 7 bits per byte; as many ones as bytes stand before, flipped if negative."""
    magnitude = ~number if number < 0 else number
    length = magnitude.bit_length() // 7 + 1
    header = ((1 << length) - 1) << 7 * length
    return ((number & (1 << 8 * length) - 1) ^ header).to_bytes(length, "big")


def whole(extents: Slice, shape: tuple[int, ...]) -> bool:
    """Tell whether a slice is the entire variable."""
    return len(extents) == len(shape) and all(
        start == 0 and length in (WHOLE, size)
        for (start, length), size in zip(extents, shape, strict=True)
    )


def slice_shape(extents: Slice, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a slice's shape; raise where it does not lie within ``shape``."""
    if len(extents) != len(shape):
        raise FormatError(f"a slice of {len(extents)} dimensions, expected {len(shape)}")
    sizes = []
    for (start, length), size in zip(extents, shape, strict=True):
        stop = size if length == WHOLE else start + length
        if not 0 <= start <= stop <= size:
            raise FormatError(f"a slice spans {start} to {stop}, expected within 0 to {size}")
        sizes.append(stop - start)
    return tuple(sizes)


def check_cover(slices: Sequence[Slice], shape: tuple[int, ...]) -> None:
    """Raise unless the slices hold as many numbers as the variable."""
    stored = sum(prod(slice_shape(extents, shape)) for extents in slices)
    if not slices or stored != prod(shape):
        raise FormatError(
            f"{len(slices)} slices hold {stored} numbers, shape {list(shape)} needs {prod(shape)}"
        )


def assemble(
    slices: Sequence[Slice], parts: Sequence[NDArray[Any]], shape: tuple[int, ...]
) -> NDArray[Any]:
    """Put the parts of a variable together; they must cover it, each place once."""
    check_cover(slices, shape)
    if len(parts) == 1:
        return parts[0].reshape(shape)
    array = np.empty(shape, parts[0].dtype)
    filled = np.zeros(shape, np.bool_)
    for extents, part in zip(slices, parts, strict=True):
        sizes = slice_shape(extents, shape)
        place = tuple(
            slice(start, start + size) for (start, _), size in zip(extents, sizes, strict=True)
        )
        if filled[place].any():
            raise FormatError(f"slice {list(extents)} overlaps another")
        array[place] = part.reshape(sizes)
        filled[place] = True
    return array

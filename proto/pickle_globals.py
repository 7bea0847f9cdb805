"""What a pickle of NumPy arrays may name, and what stands for it: nothing is imported or called.

Enters: a module and a name, then arguments. Leaves: the row of `GLOBALS` for it, and arrays as
read-only views of the bytes. What arrays hold: NumPy's ``ndarray.__reduce__``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, NamedTuple

import numpy as np

from .errors import FormatError

LONGEST_NAME = 255
LARGEST_RANK = 32

_NUMBERS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
_OBJECTS = ("O", "O4", "O8")

Arguments = tuple[Any, ...]


@dataclass(slots=True)
class Dtype:
    """A type of numbers; a pickle names it first and sets its byte order later."""

    name: str
    order: str = "<"


@dataclass(slots=True)
class Array:
    """An array; a pickle begins it empty (None) and fills it later."""

    value: Any = None


class Global(NamedTuple):
    """What the machine does in place of calling a named function."""

    name: str
    call: Callable[[Arguments], Any] | None


def name_of(value: Any) -> str:
    """Return a name in a pickle as text, whichever Python wrote it."""
    if not isinstance(value, str | bytes | memoryview) or len(value) > LONGEST_NAME:
        raise FormatError(
            f"a name is {kind_of(value)}, expected text of at most {LONGEST_NAME} characters"
        )
    return value if isinstance(value, str) else str(value, "latin-1")


def kind_of(value: Any) -> str:
    """Say what a value is, for a message."""
    return value.name if isinstance(value, Global) else type(value).__name__.lstrip("_").lower()


def content(dtype: Any, data: Any, shape: Any, order: Literal["C", "F"]) -> Any:
    """Return the array, or the one object in an object array without dimensions."""
    if not isinstance(dtype, Dtype):
        raise FormatError(f"an array's type is {kind_of(dtype)}, expected a numpy.dtype")
    if not isinstance(shape, tuple) or len(shape) > LARGEST_RANK:
        raise FormatError(f"an array's shape is not a tuple of at most {LARGEST_RANK} sizes")
    if dtype.name in _OBJECTS:
        if shape or not isinstance(data, list) or len(data) != 1:
            raise FormatError("an array of Python objects, expected one of numbers")
        return data[0]
    if any(type(size) is not int or size < 1 for size in shape):
        raise FormatError("an array's shape has a size that is not a positive integer")
    if not isinstance(data, bytes | memoryview):
        raise FormatError(f"an array's data are {kind_of(data)}, expected bytes")
    numbers = np.dtype(dtype.order + dtype.name)
    if prod(shape) * numbers.itemsize != len(data):
        raise FormatError(f"an array's data are {len(data)} bytes, its shape needs another number")
    return np.frombuffer(data, numbers).reshape(shape, order=order)


def byte_order(order: Any) -> str:
    """Return a byte order of NumPy's, checked."""
    name = name_of(order)
    if name not in ("<", ">", "|"):
        raise FormatError(f"byte order {name!r}, expected '<', '>' or '|'")
    return name


def _array(arguments: Arguments) -> Array:
    match arguments:
        case (Global(name="numpy.ndarray"), (int() as size,), _) if size == 0:
            return Array()
    raise FormatError("begins an array that is not an empty numpy.ndarray")


def _dtype(arguments: Arguments) -> Dtype:
    name = name_of(arguments[0]) if len(arguments) == 3 else ""
    if name not in _NUMBERS + _OBJECTS:
        raise FormatError(f"the type {name!r}, expected numbers: {', '.join(_NUMBERS)}")
    return Dtype(name)


def _from_buffer(arguments: Arguments) -> Array:
    match arguments:
        case (data, dtype, shape, str() as order) if order in ("C", "F"):
            return Array(content(dtype, data, shape, "F" if order == "F" else "C"))
    raise FormatError("an array from a buffer without type, shape and order")


def _scalar(arguments: Arguments) -> Array:
    match arguments:
        case (dtype, data):
            return Array(content(dtype, data, (), "C"))
    raise FormatError("a NumPy scalar without type and bytes")


def _encoded(arguments: Arguments) -> bytes:
    """Return bytes that Python 3 wrote for Python 2 (protocol 2): as text, one character each."""
    match arguments:
        case (str() as text, str() as name) if name == "latin1" and max(text, default="") <= "\xff":
            return text.encode("latin-1")
    raise FormatError("encodes something, expected text that stands for bytes (latin1)")


def _ordered(arguments: Arguments) -> dict[str, Any]:
    """Return an OrderedDict as Python 3 begins it, empty."""
    if arguments:
        raise FormatError("an OrderedDict of Python 2, expected a plain dictionary")
    return {}


GLOBALS = {
    ("numpy", "ndarray"): Global("numpy.ndarray", None),
    ("numpy", "dtype"): Global("numpy.dtype", _dtype),
    ("numpy.core.multiarray", "_reconstruct"): Global("_reconstruct", _array),
    ("numpy._core.multiarray", "_reconstruct"): Global("_reconstruct", _array),
    ("numpy.core.multiarray", "scalar"): Global("scalar", _scalar),
    ("numpy._core.multiarray", "scalar"): Global("scalar", _scalar),
    ("numpy.core.numeric", "_frombuffer"): Global("_frombuffer", _from_buffer),
    ("numpy._core.numeric", "_frombuffer"): Global("_frombuffer", _from_buffer),
    ("_codecs", "encode"): Global("_codecs.encode", _encoded),
    ("collections", "OrderedDict"): Global("OrderedDict", _ordered),
}

"""Read a pickle of NumPy arrays without unpickling it: bytes enter, plain data leave.

`pickle` calls what a file names, and under a restricted ``find_class`` a file can still ask for
a memo of gigabytes, an array of any shape, or the hash of a tuple nested in itself. So this is
a small machine for the opcodes that carry data, and it imports and calls nothing: a global is a
row of `_GLOBALS`, an array is a read-only view of the bytes, and what is built is bounded by
them. Python 2 strings and bytes are alike; a dictionary's keys leave as ``str``.

Opcodes: CPython's ``pickletools``. What arrays hold: NumPy's ``ndarray.__reduce__``.
"""

import pickle as code
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal, NamedTuple

import numpy as np

from .errors import FormatError

MOST_OPERATIONS = 2**18  # An array takes about 25, and a network with its momentum has 1100.
LONGEST_NAME = 255
LARGEST_RANK = 32

_NUMBERS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
_OBJECTS = ("O", "O4", "O8")

_Arguments = tuple[Any, ...]


def load(data: memoryview, place: str) -> Any:
    """Return the dictionaries, lists, tuples, strings, numbers and arrays of a pickle.

    ``place`` begins every complaint, followed by the byte of ``data``. Arrays are read-only
    and may be unaligned; Python 2 strings that are not keys are views of bytes.

    Raises
    ------
    FormatError
        The pickle is damaged, or names anything but arrays of numbers.

    """
    machine = _Machine(data)
    try:
        return _run(machine)
    except FormatError as error:
        raise FormatError(f"{place}: byte {machine.begin}: {error}") from None


@dataclass(slots=True)
class _Machine:
    """Where the machine stands; ``begin`` is the byte of the current opcode."""

    data: memoryview
    at: int = 0
    begin: int = 0
    given: int = 0
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)


@dataclass(slots=True)
class _Dtype:
    """A type of numbers; a pickle names it first and sets its byte order later."""

    name: str
    order: str = "<"


@dataclass(slots=True)
class _Array:
    """An array; a pickle begins it empty (None) and fills it later."""

    value: Any = None


class _Global(NamedTuple):
    """What the machine does in place of calling a named function."""

    name: str
    call: Callable[[_Arguments], Any] | None


def _run(machine: _Machine) -> Any:
    for _ in range(MOST_OPERATIONS):
        machine.begin = machine.at
        opcode = bytes(_take(machine, 1))
        if opcode in _PUSHES:
            machine.stack.append(_PUSHES[opcode](machine))
        elif opcode in _OTHERS:
            _OTHERS[opcode](machine)
        elif opcode == code.STOP:
            return _finish(machine)
        else:
            raise FormatError(f"opcode {opcode!r}, expected one that carries data")
    raise FormatError(f"more than {MOST_OPERATIONS} operations, expected a dictionary of arrays")


def _finish(machine: _Machine) -> Any:
    value = _pop_tuple(machine, 1)[0]
    unused = len(machine.stack) + len(machine.marks), len(machine.data) - machine.at
    if any(unused):
        raise FormatError(f"the pickle stops with {unused[0]} values and {unused[1]} bytes unused")
    return value


# The bytes and the stack.


def _take(machine: _Machine, count: int) -> memoryview:
    start, stop = machine.at, machine.at + count
    if stop > len(machine.data):
        raise FormatError(f"expected {count} bytes from byte {start}, {len(machine.data)} in all")
    machine.at = stop
    return machine.data[start:stop]


def _number(machine: _Machine, size: int, *, signed: bool = False) -> int:
    return int.from_bytes(_take(machine, size), "little", signed=signed)


def _text(machine: _Machine, size: int) -> str:
    try:
        return str(_take(machine, size), "utf-8")
    except UnicodeDecodeError:
        raise FormatError("text that is not UTF-8") from None


def _line(machine: _Machine) -> str:
    line, _, _ = bytes(machine.data[machine.at :][: LONGEST_NAME + 1]).partition(b"\n")
    _take(machine, len(line) + 1)
    return str(line, "latin-1")


def _pop(machine: _Machine) -> Any:
    if len(machine.stack) <= (machine.marks[-1] if machine.marks else 0):
        raise FormatError("takes a value that is not there")
    return machine.stack.pop()


def _pop_tuple(machine: _Machine, count: int) -> _Arguments:
    return tuple(_settled(machine, _pop(machine)) for _ in range(count))[::-1]


def _pop_marked(machine: _Machine) -> _Arguments:
    if not machine.marks:
        raise FormatError("takes values back to a mark that is not there")
    items = _pop_tuple(machine, len(machine.stack) - machine.marks[-1])
    machine.marks.pop()
    return items


def _settled(machine: _Machine, value: Any) -> Any:
    """Exchange an array of the machine for NumPy's, once it is complete."""
    if not isinstance(value, _Array):
        return value
    if value.value is None:
        raise FormatError("an array without its content")
    if isinstance(value.value, np.ndarray):
        _charge(machine, value.value.nbytes)
    return value.value


def _charge(machine: _Machine, size: int) -> None:
    """Refuse to give the same bytes over and over: twice is once as text, once as an array."""
    machine.given += size
    if machine.given > 2 * len(machine.data):
        raise FormatError(f"arrays of more bytes than the {len(machine.data)} of the pickle")


def _string(value: Any) -> str:
    if not isinstance(value, str | bytes | memoryview) or len(value) > LONGEST_NAME:
        raise FormatError(
            f"a name is {_kind(value)}, expected text of at most {LONGEST_NAME} characters"
        )
    return value if isinstance(value, str) else str(value, "latin-1")


def _kind(value: Any) -> str:
    return value.name if isinstance(value, _Global) else type(value).__name__.lstrip("_").lower()


# What the opcodes do; most push what they return.


def _protocol(machine: _Machine) -> None:
    version = _number(machine, 1)
    if not 2 <= version <= 5:
        raise FormatError(f"pickle protocol {version}, expected 2 to 5")


def _frame(machine: _Machine) -> None:
    size, left = _number(machine, 8), len(machine.data) - machine.at
    if size > left:
        raise FormatError(f"a frame of {size} bytes, {left} are left")


def _memorized(machine: _Machine, index: int) -> Any:
    machine.memo[index] = value = _pop(machine)
    return value


def _recalled(machine: _Machine, index: int) -> Any:
    if index not in machine.memo:
        raise FormatError(f"recalls memo {index}, which was not stored")
    return machine.memo[index]


def _extended(machine: _Machine, items: _Arguments) -> list[Any]:
    target = _pop(machine)
    if not isinstance(target, list):
        raise FormatError(f"appends to {_kind(target)}, expected a list")
    target.extend(items)
    return target


def _updated(machine: _Machine, items: _Arguments) -> dict[str, Any]:
    target = _pop(machine)
    if not isinstance(target, dict) or len(items) % 2:
        raise FormatError(f"sets {len(items)} keys and values of {_kind(target)}")
    return _filled(target, zip(items[::2], items[1::2], strict=True))


def _filled(target: dict[str, Any], pairs: Iterable[Any]) -> dict[str, Any]:
    for key, value in pairs:
        name = _string(key)
        if name in target:
            raise FormatError(f"the name {name!r} twice in one dictionary")
        target[name] = value
    return target


def _named(name: Any, module: Any) -> _Global:
    known = _GLOBALS.get((_string(module), _string(name)))
    if known is None:
        raise FormatError(
            f"names {_string(module) + '.' + _string(name)!r}, expected NumPy arrays only. "
            "Another program that loads this file may run code from it."
        )
    return known


def _called(arguments: Any, function: Any, machine: _Machine) -> Any:
    if not isinstance(function, _Global) or not function.call or not isinstance(arguments, tuple):
        raise FormatError(f"calls {_kind(function)} with {_kind(arguments)}")
    result = function.call(arguments)
    if isinstance(result, bytes):
        _charge(machine, len(result))
    return result


def _built(state: Any, target: Any) -> _Dtype | _Array:
    match target, state:
        case _Dtype(), (_, order, None, None, None, *_):
            target.order = _byte_order(order)
        case _Array(value=None), (_, shape, dtype, fortran, data):
            target.value = _content(dtype, data, shape, "F" if fortran is True else "C")
        case _:
            raise FormatError(f"sets the state of {_kind(target)}, expected that of an array")
    return target  # type: ignore[no-any-return]


_PUSHES: dict[bytes, Callable[[_Machine], Any]] = {
    code.NONE: lambda _: None,
    code.NEWTRUE: lambda _: True,
    code.NEWFALSE: lambda _: False,
    code.BININT: lambda m: _number(m, 4, signed=True),
    code.BININT1: lambda m: _number(m, 1),
    code.BININT2: lambda m: _number(m, 2),
    code.LONG1: lambda m: _number(m, _number(m, 1), signed=True),
    code.BINFLOAT: lambda m: struct.unpack(">d", _take(m, 8))[0],
    code.SHORT_BINSTRING: lambda m: _take(m, _number(m, 1)),
    code.BINSTRING: lambda m: _take(m, _number(m, 4)),
    code.SHORT_BINBYTES: lambda m: _take(m, _number(m, 1)),
    code.BINBYTES: lambda m: _take(m, _number(m, 4)),
    code.BINBYTES8: lambda m: _take(m, _number(m, 8)),
    code.BYTEARRAY8: lambda m: _take(m, _number(m, 8)),
    code.SHORT_BINUNICODE: lambda m: _text(m, _number(m, 1)),
    code.BINUNICODE: lambda m: _text(m, _number(m, 4)),
    code.BINUNICODE8: lambda m: _text(m, _number(m, 8)),
    code.EMPTY_TUPLE: lambda _: (),
    code.EMPTY_LIST: lambda _: [],
    code.EMPTY_DICT: lambda _: {},
    code.TUPLE: _pop_marked,
    code.TUPLE1: lambda m: _pop_tuple(m, 1),
    code.TUPLE2: lambda m: _pop_tuple(m, 2),
    code.TUPLE3: lambda m: _pop_tuple(m, 3),
    code.APPEND: lambda m: _extended(m, _pop_tuple(m, 1)),
    code.APPENDS: lambda m: _extended(m, _pop_marked(m)),
    code.SETITEM: lambda m: _updated(m, _pop_tuple(m, 2)),
    code.SETITEMS: lambda m: _updated(m, _pop_marked(m)),
    code.BINPUT: lambda m: _memorized(m, _number(m, 1)),
    code.LONG_BINPUT: lambda m: _memorized(m, _number(m, 4)),
    code.MEMOIZE: lambda m: _memorized(m, len(m.memo)),
    code.BINGET: lambda m: _recalled(m, _number(m, 1)),
    code.LONG_BINGET: lambda m: _recalled(m, _number(m, 4)),
    code.GLOBAL: lambda m: _named(module=_line(m), name=_line(m)),
    code.STACK_GLOBAL: lambda m: _named(_pop(m), _pop(m)),
    code.REDUCE: lambda m: _called(_pop(m), _pop(m), m),
    code.BUILD: lambda m: _built(_pop(m), _pop(m)),
}
_OTHERS: dict[bytes, Callable[[_Machine], None]] = {
    code.PROTO: _protocol,
    code.FRAME: _frame,
    code.MARK: lambda m: m.marks.append(len(m.stack)),
}


# What the globals mean.


def _content(dtype: Any, data: Any, shape: Any, order: Literal["C", "F"]) -> Any:
    """Return the array, or the one object in an object array without dimensions."""
    if not isinstance(dtype, _Dtype):
        raise FormatError(f"an array's type is {_kind(dtype)}, expected a numpy.dtype")
    if not isinstance(shape, tuple) or len(shape) > LARGEST_RANK:
        raise FormatError(f"an array's shape is not a tuple of at most {LARGEST_RANK} sizes")
    if dtype.name in _OBJECTS:
        if shape or not isinstance(data, list) or len(data) != 1:
            raise FormatError("an array of Python objects, expected one of numbers")
        return data[0]
    if any(type(size) is not int or size < 1 for size in shape):
        raise FormatError("an array's shape has a size that is not a positive integer")
    if not isinstance(data, bytes | memoryview):
        raise FormatError(f"an array's data are {_kind(data)}, expected bytes")
    numbers = np.dtype(dtype.order + dtype.name)
    if prod(shape) * numbers.itemsize != len(data):
        raise FormatError(f"an array's data are {len(data)} bytes, its shape needs another number")
    return np.frombuffer(data, numbers).reshape(shape, order=order)


def _byte_order(order: Any) -> str:
    name = _string(order)
    if name not in ("<", ">", "|"):
        raise FormatError(f"byte order {name!r}, expected '<', '>' or '|'")
    return name


def _array(arguments: _Arguments) -> _Array:
    match arguments:
        case (_Global(name="numpy.ndarray"), (int() as size,), _) if size == 0:
            return _Array()
    raise FormatError("begins an array that is not an empty numpy.ndarray")


def _dtype(arguments: _Arguments) -> _Dtype:
    name = _string(arguments[0]) if len(arguments) == 3 else ""
    if name not in _NUMBERS + _OBJECTS:
        raise FormatError(f"the type {name!r}, expected numbers: {', '.join(_NUMBERS)}")
    return _Dtype(name)


def _from_buffer(arguments: _Arguments) -> _Array:
    match arguments:
        case (data, dtype, shape, str() as order) if order in ("C", "F"):
            return _Array(_content(dtype, data, shape, "F" if order == "F" else "C"))
    raise FormatError("an array from a buffer without type, shape and order")


def _scalar(arguments: _Arguments) -> _Array:
    match arguments:
        case (dtype, data):
            return _Array(_content(dtype, data, (), "C"))
    raise FormatError("a NumPy scalar without type and bytes")


def _encoded(arguments: _Arguments) -> bytes:
    """Return bytes that Python 3 wrote for Python 2 (protocol 2): as text, one character each."""
    match arguments:
        case (str() as text, str() as name) if name == "latin1" and max(text, default="") <= "\xff":
            return text.encode("latin-1")
    raise FormatError("encodes something, expected text that stands for bytes (latin1)")


def _ordered(arguments: _Arguments) -> dict[str, Any]:
    """Return an OrderedDict as Python 3 begins it, empty."""
    if arguments:
        raise FormatError("an OrderedDict of Python 2, expected a plain dictionary")
    return {}


_GLOBALS = {
    ("numpy", "ndarray"): _Global("numpy.ndarray", None),
    ("numpy", "dtype"): _Global("numpy.dtype", _dtype),
    ("numpy.core.multiarray", "_reconstruct"): _Global("_reconstruct", _array),
    ("numpy._core.multiarray", "_reconstruct"): _Global("_reconstruct", _array),
    ("numpy.core.multiarray", "scalar"): _Global("scalar", _scalar),
    ("numpy._core.multiarray", "scalar"): _Global("scalar", _scalar),
    ("numpy.core.numeric", "_frombuffer"): _Global("_frombuffer", _from_buffer),
    ("numpy._core.numeric", "_frombuffer"): _Global("_frombuffer", _from_buffer),
    ("_codecs", "encode"): _Global("_codecs.encode", _encoded),
    ("collections", "OrderedDict"): _Global("OrderedDict", _ordered),
}

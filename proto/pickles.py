"""Read a pickle of NumPy arrays without unpickling it: bytes enter, plain data leave.

`pickle` calls what a file names, and under a restricted ``find_class`` a file can still ask for
a memo of gigabytes, an array of any shape, or the hash of a tuple nested in itself. So this is
a small machine for the opcodes that carry data, and it imports and calls nothing: a global is a
row of `pickle_globals`, an array is a read-only view of the bytes, and what is built is bounded by
them. Python 2 strings and bytes are alike; a dictionary's keys leave as ``str``.

Opcodes: CPython's ``pickletools``.
"""

import pickle as code
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .errors import FormatError
from .pickle_globals import (
    GLOBALS,
    LONGEST_NAME,
    Arguments,
    Array,
    Dtype,
    Global,
    byte_order,
    content,
    kind_of,
    name_of,
)

MOST_OPERATIONS = 2**18  # An array takes about 25, and a network with its momentum has 1100.


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


def _pop_tuple(machine: _Machine, count: int) -> Arguments:
    return tuple(_settled(machine, _pop(machine)) for _ in range(count))[::-1]


def _pop_marked(machine: _Machine) -> Arguments:
    if not machine.marks:
        raise FormatError("takes values back to a mark that is not there")
    items = _pop_tuple(machine, len(machine.stack) - machine.marks[-1])
    machine.marks.pop()
    return items


def _settled(machine: _Machine, value: Any) -> Any:
    """Exchange an array of the machine for NumPy's, once it is complete."""
    if not isinstance(value, Array):
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


def _extended(machine: _Machine, items: Arguments) -> list[Any]:
    target = _pop(machine)
    if not isinstance(target, list):
        raise FormatError(f"appends to {kind_of(target)}, expected a list")
    target.extend(items)
    return target


def _updated(machine: _Machine, items: Arguments) -> dict[str, Any]:
    target = _pop(machine)
    if not isinstance(target, dict) or len(items) % 2:
        raise FormatError(f"sets {len(items)} keys and values of {kind_of(target)}")
    return _filled(target, zip(items[::2], items[1::2], strict=True))


def _filled(target: dict[str, Any], pairs: Iterable[Any]) -> dict[str, Any]:
    for key, value in pairs:
        name = name_of(key)
        if name in target:
            raise FormatError(f"the name {name!r} twice in one dictionary")
        target[name] = value
    return target


def _named(name: Any, module: Any) -> Global:
    known = GLOBALS.get((name_of(module), name_of(name)))
    if known is None:
        raise FormatError(
            f"names {name_of(module) + '.' + name_of(name)!r}, expected NumPy arrays only. "
            "Another program that loads this file may run code from it."
        )
    return known


def _called(arguments: Any, function: Any, machine: _Machine) -> Any:
    if not isinstance(function, Global) or not function.call or not isinstance(arguments, tuple):
        raise FormatError(f"calls {kind_of(function)} with {kind_of(arguments)}")
    result = function.call(arguments)
    if isinstance(result, bytes):
        _charge(machine, len(result))
    return result


def _built(state: Any, target: Any) -> Dtype | Array:
    match target, state:
        case Dtype(), (_, order, None, None, None, *_):
            target.order = byte_order(order)
        case Array(value=None), (_, shape, dtype, fortran, data):
            target.value = content(dtype, data, shape, "F" if fortran is True else "C")
        case _:
            raise FormatError(f"sets the state of {kind_of(target)}, expected that of an array")
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

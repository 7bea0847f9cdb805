"""TensorFlow's frozen graphs (a GraphDef, ``.pb``): constants by name, and dilations.

Enters: a file. Leaves: a `FrozenGraph`, whose constants are lazy variables. The file is walked
on the wire, so that the weights stay where they are mapped.
Fields: tensorflow/core/framework/{graph,node_def,attr_value,tensor}.proto
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from .checkpoint_records import DType, Variable, dtype_of, shape_of, text, widened
from .errors import FormatError
from .source import mapped
from .table import placed
from .tensorflow_pb2 import TensorShape
from .v1_values import read_values
from .wire import LEN, VARINT, Field, fields, varint

KIND = "a frozen graph of TensorFlow (.pb)"

# GraphDef, NodeDef, the entry of a map, AttrValue with its list, TensorProto.
NODE = 1
NAME, OP, INPUT, ATTRIBUTE = 1, 2, 3, 5
KEY, VALUE = 1, 2
LIST, TENSOR, INTEGERS = 1, 8, 3
DTYPE, SHAPE, CONTENT = 1, 2, 4

_OP = re.compile(rb"[A-Z][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """An operation; its attributes are not decoded yet."""

    name: str
    op: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, memoryview] = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class FrozenGraph:
    """A graph whose variables became constants.

    Attributes
    ----------
    path
        The file.
    constants
        By name; a variable's own name is that of its constant.
    operations
        The types of operation in it.
    dilations
        The rate of each node that dilates, or that makes room for one that does
        (``SpaceToBatchND``), by the node's name.

    """

    path: Path
    constants: Mapping[str, Variable]
    operations: frozenset[str]
    dilations: Mapping[str, int]


def is_frozen_graph(start: bytes) -> bool:
    """Tell a graph by its first bytes: a node, which begins with its name and operation."""
    buffer = memoryview(start)
    try:
        if start[0] != NODE << 3 | LEN:
            return False
        _, at = varint(buffer, 1, len(buffer))
        for number in (NAME, OP):
            if start[at] != number << 3 | LEN:
                return False
            size, at = varint(buffer, at + 1, len(buffer))
            at += size
    except (IndexError, FormatError):
        return False
    return _OP.fullmatch(start[at - size : at]) is not None


def open_frozen_graph(path: Path) -> FrozenGraph:
    """List what a frozen graph holds; no weight is read.

    Raises
    ------
    FormatError
        The file is damaged or something else; the byte is named.

    """
    buffer = mapped(path, KIND)
    with placed(str(path)):
        nodes: dict[str, Node] = {}
        for node in _nodes(buffer):
            if node.name in nodes:
                raise FormatError(f"{node.name}: two nodes of this name")
            nodes[node.name] = node
        constants = {
            node.name: _constant(node, path, len(buffer))
            for node in nodes.values()
            if node.op == "Const"
        }
        rates = ((name, _rate(node, constants)) for name, node in nodes.items())
        return FrozenGraph(
            path,
            constants,
            frozenset(node.op for node in nodes.values()),
            {name: rate for name, rate in rates if rate > 1},
        )


def _nodes(buffer: memoryview) -> Iterator[Node]:
    for one in fields(buffer, 0, len(buffer)):
        if one.number != NODE or one.kind != LEN:
            continue
        parts: dict[int, list[memoryview]] = {NAME: [], OP: [], INPUT: [], ATTRIBUTE: []}
        for part in fields(buffer, one.start, one.stop):
            if part.number in parts:
                parts[part.number].append(buffer[part.start : part.stop])
        if not parts[NAME] or not parts[OP]:
            raise FormatError(f"byte {one.begin}: a node without a name or an operation")
        yield Node(
            text(bytes(parts[NAME][-1])),
            text(bytes(parts[OP][-1])),
            tuple(text(bytes(name)) for name in parts[INPUT]),
            dict(map(_entry, parts[ATTRIBUTE])),
        )


def _parts(message: memoryview) -> Iterator[Field]:
    return (part for part in fields(message, 0, len(message)))


def _last(message: memoryview, number: int) -> memoryview:
    """Return what a field of bytes holds; nothing where it is absent."""
    found = [part for part in _parts(message) if part.number == number and part.kind == LEN]
    return message[found[-1].start : found[-1].stop] if found else message[:0]


def _entry(message: memoryview) -> tuple[str, memoryview]:
    return text(bytes(_last(message, KEY))), _last(message, VALUE)


def _constant(node: Node, path: Path, size: int) -> Variable:
    with placed(node.name):
        tensor = _last(node.attributes.get("value", memoryview(b"")), TENSOR)
        numbers = [part.value for part in _parts(tensor) if part.number == DTYPE]
        dtype = dtype_of(numbers[-1] if numbers else 0)
        shape = TensorShape()
        try:
            shape.ParseFromString(bytes(_last(tensor, SHAPE)))
        except DecodeError as error:
            raise FormatError(f"its shape is damaged ({error})") from None
        sizes = shape_of(shape)
    read = partial(_read, f"{path}: {node.name}", tensor, dtype, sizes, size)
    return Variable(node.name, sizes, dtype.name, read)


def _read(
    place: str, tensor: memoryview, dtype: DType, shape: tuple[int, ...], size: int
) -> NDArray[Any]:
    """Read a constant; one number may stand for all, as long as ``size`` bytes would hold them."""
    with placed(place):
        count = prod(shape)
        content = _last(tensor, CONTENT)
        if not content or dtype.code is None:
            return read_values([tensor], dtype, count, repeat=count <= size).reshape(shape)
        code = np.dtype(dtype.code)
        if len(content) != count * code.itemsize:
            raise FormatError(
                f"{len(content)} bytes of {dtype.name}, the shape {list(shape)} needs "
                f"{count * code.itemsize}"
            )
        values = np.frombuffer(content, code).reshape(shape)
        return widened(values) if dtype.name == "bfloat16" else values


def _rate(node: Node, constants: Mapping[str, Variable]) -> int:
    """Return by how much a node dilates, 1 if not at all."""
    if node.op == "SpaceToBatchND" and len(node.inputs) > 1 and node.inputs[1] in constants:
        room = constants[node.inputs[1]]
        if room.dtype not in ("int32", "int64"):
            raise FormatError(f"{node.name}: makes room by {room.dtype}, expected whole numbers")
        rates = room.read().ravel().tolist()
    else:
        listed = _last(node.attributes.get("dilations", memoryview(b"")), LIST)
        rates = list(_integers(listed))
    return max(rates, default=1)


def _integers(listed: memoryview) -> Iterator[int]:
    """Yield a list's integers, packed or one by one."""
    for part in _parts(listed):
        if part.number == INTEGERS and part.kind == VARINT:
            yield part.value
        elif part.number == INTEGERS and part.kind == LEN:
            at = part.start
            while at < part.stop:
                value, at = varint(listed, at, part.stop)
                yield value

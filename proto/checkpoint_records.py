"""What a TensorFlow checkpoint becomes, whichever its format: `Checkpoint` and `Variable`.

Here too: TensorFlow's numbers for the types, and what a stored shape must satisfy.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from .errors import FormatError
from .tensorflow_pb2 import ObjectGraph, TensorShape, Version

OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
LARGEST_RANK = 32  # NumPy 1's; TensorFlow allows 254.
OUR_VERSION = 1  # The only one there is.


class DType(NamedTuple):
    """A type's name in TensorFlow and what stores it: a NumPy code, or none."""

    name: str
    code: str | None


DTYPES = {
    1: DType("float32", "<f4"),
    2: DType("float64", "<f8"),
    3: DType("int32", "<i4"),
    4: DType("uint8", "|u1"),
    5: DType("int16", "<i2"),
    6: DType("int8", "|i1"),
    7: DType("string", None),
    8: DType("complex64", "<c8"),
    9: DType("int64", "<i8"),
    10: DType("bool", "|b1"),
    11: DType("qint8", "|i1"),
    12: DType("quint8", "|u1"),
    13: DType("qint32", "<i4"),
    14: DType("bfloat16", "<u2"),
    15: DType("qint16", "<i2"),
    16: DType("quint16", "<u2"),
    17: DType("uint16", "<u2"),
    18: DType("complex128", "<c16"),
    19: DType("float16", "<f2"),
    20: DType("resource", None),
    21: DType("variant", None),
    22: DType("uint32", "<u4"),
    23: DType("uint64", "<u8"),
}


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable, not read yet.

    ``dtype`` is TensorFlow's name for what the file holds. ``read()`` gives the array, in
    TensorFlow's axis order: bfloat16 comes widened to float32, strings as an object array
    of ``bytes``, everything else as stored. It may be a read-only, unaligned view of the
    mapped file. It raises `FormatError` where this variable's data are damaged.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], NDArray[Any]] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint(Mapping[str, Variable]):
    """The variables of a checkpoint by name, in the order of the file.

    ``format`` is ``V1`` or ``V2``; ``files`` are those that hold it and exist. ``notes``
    name what is odd about the file without making it unreadable.
    """

    path: Path
    format: str
    variables: Mapping[str, Variable] = field(repr=False)
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Variable:
        """Return one variable; `KeyError` if there is none of this name."""
        return self.variables[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self.variables)

    def __len__(self) -> int:
        """Count the variables."""
        return len(self.variables)

    @property
    def full_names(self) -> dict[str, str]:
        """Map an object-based checkpoint's keys to the variables' own names.

        Empty for a name-based checkpoint. Several keys may have one full name.
        """
        if OBJECT_GRAPH not in self.variables:
            return {}
        graph = ObjectGraph()
        try:
            graph.ParseFromString(self.variables[OBJECT_GRAPH].read().item())
        except (DecodeError, TypeError, ValueError) as error:
            raise FormatError(f"{self.path}: {OBJECT_GRAPH} is damaged ({error}).") from None
        saved = (attribute for node in graph.nodes for attribute in node.attributes)
        return {text(item.checkpoint_key): text(item.full_name) for item in saved}


def object_path(key: str) -> tuple[str, ...]:
    """Split an object-based key into the names of the objects that lead to the variable.

    ``d/a.Sb/.ATTRIBUTES/VARIABLE_VALUE`` is ``("d", "a/b")``: TensorFlow writes ``/`` inside
    a name as ``.S`` and ``.`` as ``..``.
    """
    path = key.partition("/.ATTRIBUTES/")[0]
    return tuple(
        ".".join(part.replace(".S", "/") for part in name.split("..")) for name in path.split("/")
    )


def text(name: bytes) -> str:
    """Decode a name; bytes that are not UTF-8 show as ``\\xNN``."""
    return name.decode(errors="backslashreplace")


def dtype_of(number: int) -> DType:
    """Return the type of TensorFlow's ``DataType`` number, known or not."""
    return DTYPES.get(number) or DType(f"unknown type {number}", None)


def shape_of(shape: TensorShape) -> tuple[int, ...]:
    """Return the sizes, as long as an array could have them; an unknown rank gives ``()``.

    The sizes are compared as Python integers, so nothing is allocated for absurd ones.
    """
    sizes = tuple(dim.size for dim in shape.dim)
    if len(sizes) > LARGEST_RANK:
        raise FormatError(f"{len(sizes)} dimensions, expected at most {LARGEST_RANK}")
    if min(sizes, default=0) < 0 or prod(size or 1 for size in sizes) >= 2**59:
        raise FormatError(f"shape {list(sizes)}, expected sizes from 0 that fit into memory")
    return sizes


def check_version(version: Version) -> None:
    """Refuse a checkpoint that says it needs a newer reader."""
    if version.min_consumer > OUR_VERSION or OUR_VERSION in version.bad_consumers:
        raise FormatError(
            f"needs a reader of version {max(version.min_consumer, OUR_VERSION + 1)} or later, "
            f"this is version {OUR_VERSION}, TensorFlow's own up to 2.21"
        )


def widened(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Turn bfloat16 bit patterns into the float32 of the same value."""
    return (bits.astype(np.uint32) << 16).view(np.float32)

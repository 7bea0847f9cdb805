"""caffe-tensorflow's weights: an ``.npy`` becomes layer -> parameter -> array, and back.

kaffe saves a dictionary with `numpy.save`, which pickles it inside an object array without
dimensions. A layer is a dictionary (``weights``, ``biases``; of batch normalisation ``mean``,
``variance``, ``scale``, ``offset``), in its first versions a list of weights and biases.
Convolutions are (height, width, in, out), inner products (in, out).
Header: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

import pickle as code
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import pickles
from .errors import FormatError, listing
from .source import mapped

Array = NDArray[np.generic]

EXPECTED = "caffe-tensorflow weights (.npy)"
LONGEST_HEADER = 200
_LISTED = ("weights", "biases")
_HEADER = "{'descr': '|O', 'fortran_order': False, 'shape': (), }"
_PICKLED = re.compile(
    rb"\{'descr': '\|O[48]?', 'fortran_order': (?:False|True), 'shape': \(\),? *\}\s*"
)
_MAGIC = b"\x93NUMPY"
_ALIGNMENT = 64


def read(path: Path) -> dict[str, dict[str, Array]]:
    """Read every layer's arrays as read-only views of the mapped file.

    Raises
    ------
    FormatError
        The file is damaged, has another layout, or holds anything but arrays of numbers.

    """
    return decode(mapped(path, EXPECTED, "a NumPy array"), str(path))


def decode(data: memoryview, place: str) -> dict[str, dict[str, Array]]:
    """Read the bytes of an ``.npy``; ``place`` begins every complaint. See `read`."""
    start = _pickle_start(data, place)
    layers = pickles.load(data[start:], f"{place}: pickle at byte {start}")
    if not isinstance(layers, dict) or not layers:
        raise FormatError(f"{place}: holds no dictionary of layers, expected {EXPECTED}.")
    parameters = {layer: _named(value) for layer, value in layers.items()}
    problems = [
        f"{layer}: {problem}"
        for layer, arrays in parameters.items()
        for problem in _problems(arrays)
    ]
    if problems:
        raise FormatError(f"{place}: layers without weights, expected arrays.\n{listing(problems)}")
    return parameters


def encode(layers: Mapping[str, Mapping[str, Array]]) -> bytes:
    """Return an ``.npy`` for ``numpy.load(path, allow_pickle=True).item()`` of Python 3.

    Equal arrays in equal order give equal bytes, whichever NumPy writes them.
    """
    header = _HEADER.encode()
    header += b" " * (-(len(_MAGIC) + 5 + len(header)) % _ALIGNMENT) + b"\n"
    length = struct.pack("<H", len(header))
    return b"".join((_MAGIC, b"\1\0", length, header, *_pickled(layers)))


def _pickle_start(data: memoryview, place: str) -> int:
    version = data[len(_MAGIC)] if len(data) > len(_MAGIC) else 0
    if bytes(data[: len(_MAGIC)]) != _MAGIC or version not in (1, 2, 3):
        raise FormatError(f"{place}: .npy version {version}, expected 1 to 3 of {EXPECTED}.")
    start = 10 if version == 1 else 12
    stop = start + int.from_bytes(data[8:start], "little")
    header = bytes(data[start:stop][:LONGEST_HEADER])
    if stop - start > LONGEST_HEADER or not _PICKLED.fullmatch(header):
        raise FormatError(
            f"{place}: is an array {str(header, 'latin-1').strip()!r}, expected {_HEADER!r} "
            f"of {EXPECTED}."
        )
    return stop


def _named(layer: Any) -> Any:
    if isinstance(layer, list) and 1 <= len(layer) <= len(_LISTED):
        return dict(zip(_LISTED, layer, strict=False))
    return layer


def _problems(layer: Any) -> Iterator[str]:
    if not isinstance(layer, dict) or not layer:
        size = f" of {len(layer)}" if isinstance(layer, dict | list) else ""
        yield f"{type(layer).__name__}{size}, expected parameters by name, or weights and biases"
        return
    for name, array in layer.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
            yield f"{name} is {getattr(array, 'dtype', type(array).__name__)}, expected floats"


# Writing. An array's pickle is ``_reconstruct(ndarray, (0,), b"b")``, then its state. The old
# module's name works in every NumPy; bytes as such, not as text, need pickle protocol 3.


def _pickled(layers: Mapping[str, Mapping[str, Array]]) -> Iterator[bytes]:
    yield code.PROTO + b"\3"
    yield _BEGIN_ARRAY + code.MARK + b"K\1" + code.EMPTY_TUPLE + _dtype("O8", "|", 63)
    yield code.NEWFALSE + code.EMPTY_LIST + code.EMPTY_DICT + code.MARK
    for layer, arrays in layers.items():
        yield _text(layer) + code.EMPTY_DICT + code.MARK
        for name, array in arrays.items():
            yield _text(name)
            yield from _array(array)
        yield code.SETITEMS
    yield code.SETITEMS + code.APPEND + code.TUPLE + code.BUILD + code.STOP


def _array(array: Array) -> Iterator[bytes]:
    dtype = array.dtype.newbyteorder("<")
    if dtype.str not in ("<f2", "<f4", "<f8"):
        raise TypeError(f"an array of {dtype}, expected floats of 2, 4 or 8 bytes")
    content = np.ascontiguousarray(array, dtype).tobytes()
    yield _BEGIN_ARRAY + code.MARK + b"K\1" + code.MARK
    yield b"".join(code.BININT + struct.pack("<i", size) for size in array.shape) + code.TUPLE
    yield _dtype(dtype.str[1:], "<", 0) + code.NEWFALSE
    yield code.BINBYTES + struct.pack("<I", len(content))
    yield content
    yield code.TUPLE + code.BUILD


def _global(module: str, name: str) -> bytes:
    return code.GLOBAL + f"{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    encoded = text.encode()
    return code.BINUNICODE + struct.pack("<I", len(encoded)) + encoded


def _dtype(name: str, order: str, flags: int) -> bytes:
    made = _text(name) + code.NEWFALSE + code.NEWTRUE + code.TUPLE3 + code.REDUCE
    minus_one = code.BININT + struct.pack("<i", -1)
    state = b"K\3" + _text(order) + code.NONE * 3 + minus_one * 2 + b"K" + bytes([flags])
    return _global("numpy", "dtype") + made + code.MARK + state + code.TUPLE + code.BUILD


_BEGIN_ARRAY = (
    _global("numpy.core.multiarray", "_reconstruct")
    + _global("numpy", "ndarray")
    + b"K\0"
    + code.TUPLE1
    + code.SHORT_BINBYTES
    + b"\1b"
    + code.TUPLE3
    + code.REDUCE
)

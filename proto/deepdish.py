"""jaccardSegment's weights: a deepdish ``.h5`` becomes variable name -> array.

deepdish stores a dictionary of 256 keys or more as one pickle, the only row of the PyTables
VLArray ``/data``, and a smaller one as a node per key, its scalars as attributes. Names are
TensorFlow's, with the optimizer's ``/Momentum`` slots; ``ckpt_to_dd.py`` has already brought
convolutions to (out, in, height, width) and matrices to (out, in).
Heap: HDF5 File Format Specification 3.0, III.E.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from . import pickles
from .errors import FormatError, listing
from .hdf5 import child, floats, opened
from .source import mapped_file

Array = NDArray[np.generic]

EXPECTED = "deepdish weights of jaccardSegment (.h5)"
DEEPEST = 8
MARK = "DEEPDISH_IO_VERSION"
_BOOKKEEPING = ("CLASS", "TITLE", "VERSION", "PYTABLES_FORMAT_VERSION", "FILTERS", "DEEPDISH_IO")
_HEAP_OBJECTS = 2**16  # An index has 16 bits.


def read(path: Path) -> dict[str, Array]:
    """Read every variable; those of a pickle are read-only views of the mapped file.

    Raises
    ------
    FormatError
        The file is damaged, has another layout, or holds anything but arrays of numbers.

    """
    with opened(path, EXPECTED) as file:
        variables = _variables(file, path)
    if not variables:
        raise FormatError(f"{path}: holds no variable, expected {EXPECTED}.")
    return variables


def _variables(file: h5py.File, path: Path) -> dict[str, Array]:
    if MARK not in file.attrs:
        raise FormatError(f"{path}: has no attribute {MARK}, expected {EXPECTED}.")
    if "data" in file:
        data = child(file, "data", h5py.HLObject)
        if isinstance(data, h5py.Dataset) and h5py.check_vlen_dtype(data.dtype) == np.uint8:
            return _unpickled(data, path)
    return dict(_nodes(file, "", set()))


# One pickle. It is read from the map: libhdf5 would copy it into memory of the size that its
# row claims before it compares that with the size stored.


def _unpickled(data: h5py.Dataset, path: Path) -> dict[str, Array]:
    whole = mapped_file(path)
    place = f"{path}: {data.name}"
    variables = pickles.load(_heap_object(whole, _row(data, whole, place), place), place)
    if not isinstance(variables, dict):
        raise FormatError(f"{place}: pickled {type(variables).__name__}, expected {EXPECTED}.")
    problems = [
        f"{name}: {type(value).__name__}"
        for name, value in variables.items()
        if not _is_numeric(value)
    ]
    if problems:
        raise FormatError(f"{place}: expected arrays of numbers only.\n{listing(problems)}")
    return {name: np.asarray(value) for name, value in variables.items()}


def _is_numeric(value: Any) -> bool:
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return isinstance(value, float | np.ndarray)


def _row(data: h5py.Dataset, whole: memoryview, place: str) -> memoryview:
    """Find the row of a VLArray: the length, heap address and index of its content."""
    layout = data.id.get_create_plist()
    if data.shape != (1,) or not data.chunks or layout.get_nfilters():
        raise FormatError(f"{place}: shape {data.shape}, expected one row, not compressed.")
    if data.file.userblock_size or data.file.id.get_create_plist().get_sizes() != (8, 8):
        raise FormatError(f"{place}: addresses are not of 8 bytes from the file's start.")
    start = data.id.get_chunk_info(0).byte_offset if data.id.get_num_chunks() else None
    if start is None or start + 16 > len(whole):
        raise FormatError(f"{place}: its row lies beyond the file's {len(whole)} bytes.")
    return whole[start : start + 16]


def _heap_object(whole: memoryview, row: memoryview, place: str) -> memoryview:
    length, heap, wanted = struct.unpack("<IQI", row)
    if bytes(whole[heap : heap + 5]) != b"GCOL\1" or heap + 16 > len(whole):
        raise FormatError(f"{place}: no heap at byte {heap}. The file is damaged or truncated.")
    end = min(len(whole), heap + struct.unpack_from("<Q", whole, heap + 8)[0])
    at = heap + 16
    for _ in range(_HEAP_OBJECTS):
        if at + 16 > end:
            break
        index, size = struct.unpack_from("<H6xQ", whole, at)
        at += 16
        if index == wanted and size == length and at + size <= end:
            return whole[at : at + size]
        at += -(-size // 8) * 8
    raise FormatError(
        f"{place}: no {length} bytes in the heap at byte {heap}. The file is damaged or truncated."
    )


# A node per key.


def _nodes(group: h5py.Group, prefix: str, seen: set[int]) -> Iterator[tuple[str, Array]]:
    if prefix.count("/") > DEEPEST:
        raise FormatError(f"{group.file.filename}: {prefix}: expected at most {DEEPEST} levels.")
    yield from _scalars(group, prefix)
    for name in group:
        node = child(group, name, h5py.HLObject)
        address = h5py.h5o.get_info(node.id).addr
        if address in seen:
            raise FormatError(f"{group.file.filename}: {node.name}: is stored twice.")
        seen.add(address)
        if isinstance(node, h5py.Group):
            yield from _nodes(node, f"{prefix}{name}/", seen)
        else:
            yield prefix + name, floats(group, name)


def _scalars(group: h5py.Group, prefix: str) -> Iterator[tuple[str, Array]]:
    for name in group.attrs:
        if name.startswith(_BOOKKEEPING):
            continue
        stored = group.attrs.get_id(name)
        if stored.shape != () or stored.dtype.kind not in "biuf":
            raise FormatError(
                f"{group.file.filename}: {group.name}: attribute {name} of type {stored.dtype} and "
                f"shape {stored.shape}, expected one number."
            )
        yield prefix + name, np.asarray(group.attrs[name])

"""Read datasets of an HDF5 file somebody else wrote, without trusting it.

Links out of the file are not followed, and nothing is allocated for a dataset that claims
more numbers than the file stores.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from .errors import FormatError
from .source import head, sniff, wrong_kind

DEFLATE_AT_MOST = 1032  # How far gzip can shrink data.


@contextmanager
def opened(path: Path, expected: str) -> Iterator[h5py.File]:
    """Open ``path``, which should be ``expected``; damage becomes a `FormatError`."""
    kind = sniff(head(path))
    if kind != "an HDF5 file":
        raise FormatError(wrong_kind(path, kind, expected))
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise FormatError(f"{path}: damaged or not {expected} ({error}).") from error


def child(parent: h5py.Group, name: str, kind: type) -> Any:
    """Return a group or dataset (``kind``) that lies in this very file."""
    where = f"{parent.file.filename}: {parent.name.rstrip('/')}/{name}"
    if not isinstance(parent.get(name, getlink=True), h5py.HardLink):
        raise FormatError(f"{where}: missing, or a link to elsewhere; expected it in this file.")
    item = parent[name]
    if not isinstance(item, kind):
        raise FormatError(f"{where}: is a {type(item).__name__}, expected a {kind.__name__}.")
    return item


def floats(parent: h5py.Group, name: str) -> NDArray[Any]:
    """Read a dataset of float32 or float64, little-endian and C-ordered."""
    dataset = child(parent, name, h5py.Dataset)
    where = f"{parent.file.filename}: {dataset.name}"
    if dataset.shape is None:
        raise FormatError(f"{where}: holds no values, expected float32.")
    if dataset.dtype.kind != "f" or dataset.dtype.itemsize not in (4, 8):
        raise FormatError(f"{where}: numbers of type {dataset.dtype}, expected float32.")
    if dataset.external or dataset.is_virtual:
        raise FormatError(f"{where}: its values lie in another file; expected them in this one.")
    stored = dataset.id.get_storage_size()
    if dataset.nbytes > stored * (DEFLATE_AT_MOST if dataset.compression else 1):
        raise FormatError(
            f"{where}: shape {list(dataset.shape)} needs {dataset.nbytes} bytes, "
            f"{stored} are stored. The file is damaged."
        )
    return np.asarray(dataset[()], dataset.dtype.newbyteorder("<"))

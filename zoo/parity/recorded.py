"""Activations that were recorded elsewhere, as a reference: ``.npz`` or ``.h5`` by blob name."""

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...proto.errors import FormatError
from ...proto.hdf5 import opened
from .engine import Case, Engine

PREFIXES = ("in/", "out/")


def read(path: Path, inputs: tuple[str, ...]) -> tuple[Engine, Case]:
    """Read recorded blobs: the input among them is the case, the others are what it gave.

    Keys are blob names, ``in/`` or ``out/`` before them or not; values are float arrays of
    (batch, channels, h, w).

    Raises
    ------
    FormatError
        The file cannot be read, holds no arrays of numbers, or lacks an input.

    """
    blobs = _arrays(path)
    missing = [name for name in inputs if name not in blobs]
    if missing:
        raise FormatError(
            f"{path}: no blob {missing[0]!r}, the network's input; it has "
            f"{', '.join(list(blobs)[:8])}. Record the input beside the activations."
        )
    given = {name: blobs[name] for name in inputs}
    rest = {name: value for name, value in blobs.items() if name not in given}
    if not rest:
        raise FormatError(f"{path}: holds the input alone, expected activations too.")
    return Engine(f"recorded in {path.name}", "", lambda _: rest), Case(path.name, blobs=given)


def _arrays(path: Path) -> dict[str, NDArray[np.float32]]:
    try:
        with path.open("rb") as file:
            zipped = zipfile.is_zipfile(file)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror}).") from None
    found: dict[str, NDArray[np.generic]] = {}
    if zipped:
        try:
            with np.load(path, allow_pickle=False) as stored:
                found = {key: stored[key] for key in stored.files}
        except (ValueError, OSError, zipfile.BadZipFile) as error:
            raise FormatError(f"{path}: damaged, or no .npz of plain arrays ({error}).") from None
    else:
        import h5py

        with opened(path, "recorded activations (.npz or .h5)") as file:

            def visit(name: str, item: object) -> None:
                if isinstance(item, h5py.Dataset):
                    found[name] = item[()]

            file.visititems(visit)
    return {
        _bare(key): np.ascontiguousarray(value, np.float32)
        for key, value in found.items()
        if value.dtype.kind == "f" and value.ndim
    }


def _bare(key: str) -> str:
    for prefix in PREFIXES:
        key = key.removeprefix(prefix)
    return key

"""Activations that were recorded elsewhere, as a reference: ``.npz`` or ``.h5`` by blob name."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...proto.errors import FormatError
from ...proto.hdf5 import opened
from ...proto.source import head, sniff, wrong_kind
from .engine import Case, Engine


def read(path: Path, inputs: tuple[str, ...]) -> tuple[Engine, Case]:
    """Read recorded blobs: the input among them is the case, the others are what it gave.

    Keys are blob names, ``in/`` or ``out/`` before them or not (``out/`` tells what layers left
    in an input); values are numbers, usually (batch, channels, h, w).

    Raises
    ------
    FormatError
        The file cannot be read, holds no arrays of numbers, one blob twice, or lacks an input.

    """
    given: dict[str, NDArray[np.float32]] = {}
    rest: dict[str, NDArray[np.float32]] = {}
    for key, value in _arrays(path).items():
        name = key.removeprefix("in/").removeprefix("out/")
        blobs = given if name in inputs and not key.startswith("out/") else rest
        if name in blobs:
            raise FormatError(f"{path}: blob {name!r} is there twice, the second is {key!r}.")
        blobs[name] = value
    missing = [name for name in inputs if name not in given]
    if missing:
        raise FormatError(
            f"{path}: no blob {missing[0]!r}, the network's input; it has "
            f"{', '.join(list(rest)[:8])}. Record the input beside the activations."
        )
    if not rest:
        raise FormatError(f"{path}: holds the input alone, expected activations too.")
    return Engine(f"recorded in {path.name}", "", lambda _: rest), Case(path.name, blobs=given)


def read_npz(path: Path) -> dict[str, NDArray[np.generic]]:
    """Read the arrays of an ``.npz`` file by name; raise `FormatError` for other objects."""
    if not (start := head(path)).startswith(b"PK"):
        raise FormatError(wrong_kind(path, sniff(start), "arrays (.npz)"))
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror or error}).") from None
    except Exception as error:  # Damage can trip NumPy and zlib anywhere.
        raise FormatError(f"{path}: damaged, or no .npz of plain arrays ({error}).") from None


def _arrays(path: Path) -> dict[str, NDArray[np.float32]]:
    found: dict[str, NDArray[np.generic]] = {}
    if head(path).startswith(b"PK"):
        found = read_npz(path)
    else:
        import h5py

        with opened(path, "recorded activations (.npz or .h5)") as file:

            def visit(name: str, item: object) -> None:
                if isinstance(item, h5py.Dataset):
                    found[name] = np.asarray(item[()])

            file.visititems(visit)
    with np.errstate(over="ignore"):  # It becomes infinite, and is told as that.
        return {
            key: np.array(value, np.float32, order="C")
            for key, value in found.items()
            if value.dtype.kind in "fiub"
        }

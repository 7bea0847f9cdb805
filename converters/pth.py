"""What a ``.pth`` of PyTorch holds, without executing anything that the file says.

Enters: a path. Leaves: tensors, numbers, text, and collections of them. Objects of other
programs, such as the log that mmengine keeps beside its state dict, become `Unread`.
"""

import pickle
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile, is_zipfile

import numpy as np
from numpy.typing import NDArray

from ..proto.errors import FormatError

if TYPE_CHECKING:
    from torch import Tensor

GROWTH = 10  # How much more a file may hold than its bytes; PyTorch does not compress.


class Unread:
    """Stands where a file holds an object that is not read."""

    def __init__(self, *_: object) -> None:
        """Take what the object was made of, and leave it."""

    def __setstate__(self, _: object) -> None:
        """Leave the object's state."""


def load(path: Path) -> Any:
    """Return what the file holds.

    Raises
    ------
    FormatError
        The file is damaged, or asks for an object that nothing can stand for: PyTorch before
        1.6 wrote pickles, which do not tell beforehand what they hold.

    """
    try:
        return _load(path)
    except FormatError:
        raise
    except Exception as error:  # Of a damaged file PyTorch raises whatever it stumbles over.
        place = f"{path}: cannot be read as a state dict"
        if named := re.search(r"GLOBAL (\S+)", str(error)):
            advice = "In the program that wrote it, save its state dict alone."
            raise FormatError(f"{place} (it holds {named[1]}). {advice}") from None
        reason = str(error).rpartition("WeightsUnpickler error:")[2].strip().partition("\n")[0]
        raise FormatError(f"{place} ({reason or type(error).__name__}).") from None


def array(tensor: "Tensor", path: Path, name: str) -> NDArray[Any]:
    """Return a tensor's numbers; types of floats that NumPy does not have become float32.

    Raises
    ------
    FormatError
        It has none (quantised, without data), or claims more than the file holds.

    """
    import torch

    place = f"{path}: {name}: {tensor.dtype} {list(tensor.shape)}"
    if not tensor.is_meta and tensor.nbytes > tensor.untyped_storage().nbytes():
        raise FormatError(
            f"{place}, of which {tensor.untyped_storage().nbytes()} bytes are stored."
        )
    plain = tensor.detach()
    try:
        if plain.is_floating_point() and plain.itemsize < 3 and plain.dtype is not torch.float16:
            plain = plain.float()
        return plain.numpy()
    except (RuntimeError, TypeError) as error:
        raise FormatError(f"{place}, expected numbers ({error}).") from None


def _load(path: Path) -> Any:
    import torch
    from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

    if is_zipfile(path):
        with ZipFile(path) as file:
            held, size = sum(one.file_size for one in file.infolist()), path.stat().st_size
        if held > GROWTH * size:
            raise FormatError(f"{path}: {size} bytes that unpack to {held}, which no weights do.")
    # rloss's checkpoints hold a NumPy number, best_pred, beside the state dict; NumPy 1 called
    # its maker by another name.
    make: Any = np.float64(0).__reduce__()[0]
    old = (make, "numpy.core.multiarray.scalar")
    known: list[Any] = [np.dtype, type(np.dtype(np.float64)), make, old]
    try:
        with safe_globals(known):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        if not is_zipfile(path):
            raise
    # PyTorch's unpickler calls `Unread` in place of whatever these names would be.
    with safe_globals([(Unread, name) for name in get_unsafe_globals_in_checkpoint(path)]):
        return torch.load(path, map_location="cpu", weights_only=True)

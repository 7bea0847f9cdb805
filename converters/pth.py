"""What a ``.pth`` of PyTorch holds, without executing anything that the file says.

Enters: a path. Leaves: tensors, numbers, text, and collections of them. Objects of other
programs, such as the log that mmengine keeps beside its state dict, become `Unread`.
"""

import pickle
import re
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np

from ..proto.errors import FormatError


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
    except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError) as error:
        place = f"{path}: cannot be read as a state dict"
        if named := re.search(r"GLOBAL (\S+)", str(error)):
            advice = "In the program that wrote it, save its state dict alone."
            raise FormatError(f"{place} (it holds {named[1]}). {advice}") from None
        reason = str(error).rpartition("WeightsUnpickler error:")[2].strip().partition("\n")[0]
        raise FormatError(f"{place} ({reason}).") from None


def _load(path: Path) -> Any:
    import torch
    from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

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

"""Devices by their names, and float32 that they do not round."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..proto.errors import UsageError


def device_called(name: str, index: int = 0) -> torch.device:
    """Return a device that is there; ``auto`` is a GPU where there is one.

    A GPU that is named without its number is that of ``index``.

    Raises
    ------
    UsageError
        There is no such device.

    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", index)
        torch.zeros(1, device=device).item()  # Without numbers (meta) it is of no use.
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0].rstrip(".")
        raise UsageError(
            f"device {name!r} cannot be used: {reason}. Expected auto, cpu, cuda, cuda:1, ..."
        ) from None
    return device


@contextmanager
def plain_float32() -> Iterator[None]:
    """Keep a device from rounding float32 to TF32's ten bits, or bfloat16's seven."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]

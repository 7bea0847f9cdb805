"""Devices by their names, and float32 that they do not round."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from ..proto.errors import UsageError

T = TypeVar("T")


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
    """Keep float32 from being rounded to TF32 by a GPU, or to bfloat16 by a processor.

    PyTorch has two sets of switches. Its compiler reads the older one, which raises where a
    caller has moved the newer one alone; so both are set, and what could be read is restored.
    """
    backends: Any = torch.backends
    newer = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn,
             backends.mkldnn.matmul, backends.mkldnn.conv)  # fmt: skip
    before = [one.fp32_precision for one in newer]
    products = _readable(torch.get_float32_matmul_precision)
    convolutions = _readable(lambda: backends.cudnn.allow_tf32)
    torch.set_float32_matmul_precision("highest")
    backends.cudnn.allow_tf32 = False
    for one in newer:
        one.fp32_precision = "ieee"
    try:
        yield
    finally:
        if products is not None:
            torch.set_float32_matmul_precision(products)
        if convolutions is not None:
            backends.cudnn.allow_tf32 = convolutions
        for one, value in zip(newer, before, strict=True):
            one.fp32_precision = value


def _readable(switch: Callable[[], T]) -> T | None:
    try:
        return switch()
    except RuntimeError:
        return None

"""What torchrun started becomes one group of processes that share the work."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import distributed

from ...proto.errors import UsageError


@contextmanager
def together(device: str = "cpu") -> Iterator[torch.device]:
    """Join the other processes of ``torchrun`` until the block ends; give the device to use.

    Without torchrun there is nothing to join. Each process takes the GPU of its local rank;
    ``auto`` is a GPU where there is one.

    Raises
    ------
    UsageError
        There is no such device.

    """
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        if chosen.type == "cuda":
            chosen = torch.device("cuda", local if chosen.index is None else chosen.index)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device {device!r}: {reason}. Expected auto, cpu, cuda, ...") from None
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or distributed.is_initialized():
        yield chosen
        return
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)  # NCCL exchanges counts through the current one.
    distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield chosen
    finally:
        distributed.destroy_process_group()

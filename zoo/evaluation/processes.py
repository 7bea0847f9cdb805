"""What torchrun started becomes one group of processes that share the work, and its outcome."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import distributed

from ..devices import device_called

T = TypeVar("T")


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
    chosen = device_called(device, int(os.environ.get("LOCAL_RANK", "0")))
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or distributed.is_initialized():
        yield chosen
        return
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)  # NCCL exchanges counts through the current one.
    distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield chosen
    finally:
        leave()


def leave() -> None:
    """End the group of processes, once none waits for another: its threads outlive no exit."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def place() -> tuple[int, int]:
    """Return this process's rank and how many there are."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def is_first() -> bool:
    """Say whether this process is the one that writes and prints."""
    return place()[0] == 0


def everyones(mine: T) -> list[T]:
    """Return what each process has, by rank; all of them take part. Tensors are on the CPU."""
    count = place()[1]
    if count == 1:
        return [mine]
    parts = [mine] * count
    distributed.all_gather_object(parts, mine)
    return parts

"""The batches of all processes as one, for losses that are no mean over pixels."""

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from ...proto.errors import MismatchError


class _Multiplied(torch.autograd.Function):
    """Passes a tensor on, and its gradient times a number back."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, factor: int) -> Tensor:
        ctx.factor = factor
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None


def whole_batch(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scores and labels of all processes, in the order of their ranks.

    Only the own part has a gradient, times the number of processes: each process computes the
    same loss, and ``DistributedDataParallel`` takes the mean of the gradients, so that theirs is
    the gradient of the whole batch. The backward pass sends nothing. Without an initialised
    process group the tensors come back as they are.

    Raises
    ------
    MismatchError
        The processes' shapes or types differ (looked at on the CPU; elsewhere the
        collective itself fails or hangs, as with any other of unequal shapes).

    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return scores, labels
    processes, rank = dist.get_world_size(), dist.get_rank()
    if scores.device.type == "cpu":
        forms: list[str] = [""] * processes
        both = [f"{tuple(one.shape)} {one.dtype}" for one in (scores, labels)]
        dist.all_gather_object(forms, " and ".join(both))
        if len(set(forms)) > 1:
            raise MismatchError(
                f"scores and labels: {'; '.join(forms)} on the processes, expected equal ones. "
                "Drop the last, smaller batch, or crop to one size."
            )
    parts = _gathered(scores.detach(), processes)
    parts[rank] = _Multiplied.apply(scores, processes)  # type: ignore[no-untyped-call]
    return torch.cat(parts), torch.cat(_gathered(labels, processes))


def _gathered(tensor: Tensor, processes: int) -> list[Tensor]:
    tensor = tensor.contiguous()
    parts = [torch.empty_like(tensor) for _ in range(processes)]
    dist.all_gather(parts, tensor)
    return parts

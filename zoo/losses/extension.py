"""Scores and labels in, the Lovász extension of each class's Jaccard loss and its gradient out.

Of a class, a pixel is in error by ``1 - score`` where its label is that class and by
``score + margin`` elsewhere, if that is positive. With a margin of 1 that is the hinge, with 0
it is the difference between a probability and the truth. Sorting the errors gives the loss and
the gradient together (Berman, Rannen Triki and Blaschko, arXiv:1705.08790, algorithm 1), so the
forward pass computes both, and nothing of the sort is kept for the backward one.

This is one operator, ``deeplab_zoo::lovasz_extension``, so that ``torch.compile`` takes it whole.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .ranking import VOID, extensions

SORT_BYTES = 1 << 30
"""Extra memory that a batched sort may take; more classes than fit are sorted in turn."""

_BYTES_PER_KEY = 64  # As measured: errors, two sorted copies with 64-bit places, counts, steps.


# ``torch.library.custom_op`` is shorter, but its kernels import the compiler, which takes seconds.
_OPERATOR = "deeplab_zoo::lovasz_extension"
torch.library.define(
    _OPERATOR,
    "(Tensor scores, Tensor labels, int[] channels, int first, float margin, bool skip_absent)"
    " -> (Tensor, Tensor, Tensor)",
)


def lovasz_extension(
    scores: Tensor,
    labels: Tensor,
    channels: Sequence[int],
    first: int,
    margin: float,
    skip_absent: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return losses, whether they count (1 or 0), and the gradient of the losses by the scores.

    Parameters
    ----------
    scores
        (groups, images, classes, pixels), float32 or float64. The images of a group are
        ranked together.
    labels
        (groups, images, pixels), int32; ``VOID`` where a pixel does not count.
    channels
        The classes to compute; of others the loss is 0 and does not count.
    first
        The label of channel 0.
    margin
        1 for the hinge, 0 for probabilities.
    skip_absent
        Whether a class without a pixel in its group counts not.

    Returns
    -------
    losses and counts (groups, classes); gradient like the scores.

    """
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.deeplab_zoo.lovasz_extension(
        scores, labels, channels, first, margin, skip_absent
    )
    return found


@torch.library.impl(_OPERATOR, "CompositeExplicitAutograd")
def _compute(
    scores: Tensor,
    labels: Tensor,
    channels: Sequence[int],
    first: int,
    margin: float,
    skip_absent: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    _, images, _, pixels = scores.shape
    if scores.device.type == "cpu" and scores.dtype == torch.float32 and images * pixels < 2**31:
        arrays = extensions(
            scores.detach().numpy(), labels.contiguous().numpy(), list(channels), first, margin,
            skip_absent, torch.get_num_threads(),
        )  # fmt: skip
        losses, active, gradient = (torch.from_numpy(array) for array in arrays)
        return losses, active, gradient
    return batched(scores, labels, channels, first, margin, skip_absent)


def batched(
    scores: Tensor,
    labels: Tensor,
    channels: Sequence[int],
    first: int,
    margin: float,
    skip_absent: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute `lovasz_extension` by batched sorts, on any device, without reading a value."""
    groups, images, _, pixels = scores.shape
    losses = scores.new_zeros(groups, scores.shape[2])
    active = torch.zeros_like(losses)
    gradient = torch.zeros_like(scores, memory_format=torch.contiguous_format)
    fitting = max(1, SORT_BYTES // max(1, _BYTES_PER_KEY * groups * images * pixels))
    for run in _runs(channels, fitting):
        found = _sorted(scores[:, :, run], labels, first + run.start, margin)
        losses[:, run], present, gradient[:, :, run] = found
        active[:, run] = present.to(active.dtype) if skip_absent else 1
    return losses * active, active, gradient


def _runs(channels: Sequence[int], longest: int) -> Iterator[slice]:
    """Yield runs of consecutive channels: a slice asks nothing of the device, a list would."""
    start = 0
    for stop in range(1, len(channels) + 1):
        if (
            stop == len(channels)
            or stop - start == longest
            or channels[stop] != channels[stop - 1] + 1
        ):
            yield slice(channels[start], channels[stop - 1] + 1)
            start = stop


def _sorted(
    scores: Tensor, labels: Tensor, first: int, margin: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the losses, presence and gradient of all classes by one stable sort."""
    groups, images, classes, pixels = scores.shape
    ids = torch.arange(first, first + classes, dtype=labels.dtype, device=labels.device)
    foreground = labels[:, None] == ids[:, None, None]
    errors = torch.where(foreground, 1 - scores.transpose(1, 2), scores.transpose(1, 2) + margin)
    errors = errors.clamp_min(0).masked_fill((labels == VOID)[:, None], 0).flatten(2)
    foreground = foreground.flatten(2)
    errors, order = torch.sort(errors, dim=-1, descending=True, stable=True)
    hit = foreground.gather(-1, order)
    total = foreground.sum(-1, keepdim=True, dtype=torch.int32)
    intersection = total - hit.cumsum(-1, dtype=torch.int32)
    union = intersection + torch.arange(
        1, images * pixels + 1, dtype=torch.int32, device=labels.device
    )
    union = union.to(scores.dtype)
    # A union of one is the first pixel of a class with one pixel or none: the loss goes to 1.
    step = torch.where(
        hit | (union == 1), 1 / union, intersection / (union * (union - 1).clamp_min(1))
    )
    losses = (errors * step).sum(-1)
    step = torch.where(hit, -step, step).masked_fill(errors == 0, 0)
    gradient = torch.zeros_like(step).scatter(-1, order, step)
    gradient = gradient.view(groups, classes, images, pixels).transpose(1, 2)
    return losses, total.squeeze(-1) > 0, gradient


@torch.library.register_fake(_OPERATOR)  # type: ignore[untyped-decorator]
def _shapes(scores: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    losses = scores.new_empty(scores.shape[0], scores.shape[2])
    gradient = torch.empty_like(scores, memory_format=torch.contiguous_format)
    return losses, torch.empty_like(losses), gradient


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:  # noqa: ARG001
    ctx.save_for_backward(output[2])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, losses: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    (gradient,) = ctx.saved_tensors
    scores = None if losses is None else gradient * losses[:, None, :, None]
    return scores, None, None, None, None, None


torch.library.register_autograd(_OPERATOR, _backward, setup_context=_keep)

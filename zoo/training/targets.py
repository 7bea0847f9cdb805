"""Labels at the size of the scores: what each of a net's outputs is held against."""

import torch
from torch import Tensor
from torch.nn import functional

from ...converters.numerics import Numerics
from ..data.legend import VOID
from ..models.resampling import resize


def matched(
    scores: Tensor, labels: Tensor, mode: str, numerics: Numerics, classes: int
) -> tuple[Tensor, Tensor]:
    """Bring scores (batch, c, h, w) and labels (batch, H, W) to one size.

    ``nearest``: labels shrink to the scores, by the nearest pixel of the grid on which the
    profile resizes. ``interp``: as Caffe's Interp does, see `interpolated`. ``full``: scores
    grow to the labels.
    """
    size = labels.shape[-2:]
    if mode == "full":
        return resize(scores, size, numerics), labels
    if mode == "interp":
        return scores, interpolated(labels, (scores.shape[-2], scores.shape[-1]), classes)
    rows, columns = (
        nearest(full, small, numerics.resize, labels.device)
        for full, small in zip(size, scores.shape[-2:], strict=True)
    )
    return scores, labels[:, rows][:, :, columns]


def nearest(size: int, target: int, grid: str, device: torch.device | None = None) -> Tensor:
    """Return which of ``size`` pixels each of ``target`` looks at; in whole numbers."""
    place = torch.arange(target, device=device)
    if grid == "align_corners":
        steps = max(target - 1, 1)
        return (2 * place * (size - 1) + steps) // (2 * steps)
    if grid == "top_left":
        return place * size // target
    return (2 * place + 1) * size // (2 * target)


def interpolated(labels: Tensor, size: tuple[int, int], classes: int) -> Tensor:
    """Resize labels bilinearly and truncate, as Caffe's Interp and SoftmaxWithLoss do.

    Where 8 k + 1 pixels shrink to k + 1 this picks pixels. Elsewhere it blends the numbers of
    classes, and invents some in between: for reproducing what was trained that way. A blend
    with void that is no class, where Caffe reads beyond its memory, is void here.
    """
    whole = functional.interpolate(
        labels[:, None].float(), size=size, mode="bilinear", align_corners=True
    )
    found = whole[:, 0].long()
    return found.masked_fill(found >= classes, VOID)

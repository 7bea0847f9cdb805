"""Metrics: predicted and true class ids become counts, counts add up, and scores are their ratios.

All counts are whole numbers, so the order of images and the number of processes cannot change
a score. Definitions and sources are in docs/data.md.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from ...proto.errors import MismatchError
from ..data.legend import PADDING, VOID
from .processes import everyones


@dataclass(frozen=True, slots=True)
class Counts:
    """What a set of images adds up to, on the CPU: small, and float64 is not everywhere.

    Attributes
    ----------
    confusion
        (classes, classes) int64: pixels of the row's true class given the column's.
    trimap
        The same, of the pixels near a boundary; none was asked for if it is None.
    boundary
        (classes, 2) int64: intersection and union of the boundaries of both masks.
    images
        IoU of each image by its id, see `image_iou`.

    """

    confusion: Tensor
    trimap: Tensor | None = None
    boundary: Tensor | None = None
    images: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scores:
    """Ratios in 0..1; NaN is a class that neither the truth nor a prediction has.

    ``mean_iou`` is the usual mIoU: over the classes that are not NaN, of one confusion matrix
    over the whole set. ``image_iou`` is the mean over images of the IoU within each, another
    and usually larger number.
    """

    iou: tuple[float, ...]
    accuracy: tuple[float, ...]
    mean_iou: float
    pixel_accuracy: float
    mean_accuracy: float
    frequency_weighted_iou: float
    image_iou: float = math.nan
    trimap_iou: float = math.nan
    boundary_iou: float = math.nan


def confusion(predicted: Tensor, truth: Tensor, classes: int) -> Tensor:
    """Count pixels by true and predicted class, as int64 (classes, classes), rows the truth.

    Pixels whose truth is void or padding do not count.

    Raises
    ------
    MismatchError
        The shapes differ, or an id is no class.

    """
    if predicted.shape != truth.shape:
        raise MismatchError(
            f"prediction: shape {tuple(predicted.shape)}, the truth has {tuple(truth.shape)}."
        )
    judged = (truth != VOID) & (truth != PADDING)
    rows, columns = truth[judged].long(), predicted[judged].long()
    for what, ids in (("truth", rows), ("prediction", columns)):
        if ids.numel() and not 0 <= ids.min() <= ids.max() < classes:
            raise MismatchError(
                f"{what}: class ids from {ids.min()} to {ids.max()}, expected 0..{classes - 1}."
            )
    cells = torch.bincount(rows * classes + columns, minlength=classes * classes)
    return cells.view(classes, classes)


def near_boundary(truth: Tensor, width: int) -> Tensor:
    """Return which pixels (..., height, width) have another label within ``width`` pixels.

    Distance is counted along the longer axis. Void is a label here: in VOC it lines objects.
    The border of the image is no boundary.
    """
    flat = truth.reshape(-1, 1, *truth.shape[-2:]).float()
    return _mixed(flat, width).view(truth.shape)


def boundary_counts(predicted: Tensor, truth: Tensor, classes: int, width: int) -> Tensor:
    """Return intersection and union of the boundaries of each class, as int64 (classes, 2).

    The boundary of a mask (height, width) is its pixels within ``width`` of the outside; the
    image's border counts as outside. Void pixels belong to no mask. The ids are such as
    `confusion` lets pass.
    """
    judged = (truth != VOID) & (truth != PADDING)
    given, true = (ids.long().masked_fill(~judged, -1) for ids in (predicted, truth))

    def rim(ids: Tensor) -> Tensor:
        # A pixel is near the outside of its own class's mask if any other label is near, so
        # all classes are done at once.
        framed = functional.pad(ids[None, None].float(), [1] * 4, value=-1)
        return _mixed(framed, width)[0, 0, 1:-1, 1:-1] & judged

    rims = rim(given), rim(true)
    both = rims[0] & rims[1] & (given == true)
    first, second, shared = (
        torch.bincount(ids, minlength=classes)
        for ids in (given[rims[0]], true[rims[1]], true[both])
    )
    return torch.stack([shared, first + second - shared], 1)


def _mixed(labels: Tensor, width: int) -> Tensor:
    """Return where the square around a pixel of (n, 1, height, width) has several labels."""
    side = 2 * width + 1

    def highest(x: Tensor) -> Tensor:
        # A square is its two sides one after the other.
        rows = functional.max_pool2d(x, (1, side), 1, (0, width))
        return functional.max_pool2d(rows, (side, 1), 1, (width, 0))

    return highest(labels) != -highest(-labels)


def boundary_width(height: int, width: int, share: float = 0.02) -> int:
    """Return how wide boundaries are: 2 % of the diagonal, at least one pixel."""
    return max(1, round(share * math.hypot(height, width)))


def image_iou(matrix: Tensor) -> float:
    """Return one image's IoU from its confusion matrix.

    With two classes, that of class 1, and 1 where neither side has it (Berman et al.); with
    more, the mean over the classes that the truth or the prediction has.
    """
    iou = _iou(matrix)
    if len(iou) == 2:
        return 1.0 if math.isnan(iou[1]) else iou[1]
    return _mean(iou)


def count(
    predicted: Tensor,
    truth: Tensor,
    name: str,
    classes: int,
    *,
    trimap: int = 0,
    boundary: bool = False,
) -> Counts:
    """Count one image: class ids (height, width) at its original size.

    ``name`` is the image's id. ``trimap`` also counts the pixels within so many of a boundary,
    ``boundary`` what boundary IoU needs.
    """
    matrix = confusion(predicted, truth, classes).cpu()
    near = rims = None
    if trimap:
        far = ~near_boundary(truth, trimap)
        near = confusion(predicted, truth.masked_fill(far, VOID), classes).cpu()
    if boundary:
        width = boundary_width(*truth.shape)
        rims = boundary_counts(predicted, truth, classes, width).cpu()
    return Counts(matrix, near, rims, {name: image_iou(matrix)})


def total(parts: Iterable[Counts], classes: int) -> Counts:
    """Add up the counts of several sets of images, as they come; a set without images is nothing.

    Raises
    ------
    MismatchError
        An image is in two of them, or boundaries were counted in some only.

    """
    matrix = near = rims = None
    images: dict[str, float] = {}
    for part in parts:
        if both := images.keys() & part.images.keys():
            raise MismatchError(f"images counted twice: {', '.join(sorted(both)[:5])}.")
        if not part.images:
            continue
        first = not images
        matrix = _sum(matrix, part.confusion, first)
        near = _sum(near, part.trimap, first)
        rims = _sum(rims, part.boundary, first)
        images.update(part.images)
    if matrix is None:
        matrix = torch.zeros(classes, classes, dtype=torch.int64)
    return Counts(matrix, near, rims, images)


def _sum(so_far: Tensor | None, more: Tensor | None, first: bool) -> Tensor | None:
    if first:
        return more
    if so_far is None or more is None:
        if so_far is not more:
            raise MismatchError("counts: boundaries were counted in one part and not the other.")
        return None
    return so_far + more


def gather(counts: Counts) -> Counts:
    """Add up the counts of all processes of ``torch.distributed``; each gets the sum."""
    parts = everyones(counts)
    return total(parts, len(counts.confusion)) if len(parts) > 1 else counts


def scores(counts: Counts) -> Scores:
    """Return the ratios that the counts come to."""
    matrix = counts.confusion.double()
    right, truth = matrix.diagonal(), matrix.sum(1)
    iou = _iou(counts.confusion)
    accuracy = tuple((right / truth).tolist())
    total = float(truth.sum())
    shares = zip((truth / total).tolist(), iou, strict=True)
    rims = counts.boundary
    return Scores(
        iou,
        accuracy,
        _mean(iou),
        float(right.sum()) / total if total else math.nan,
        _mean(accuracy),
        math.fsum(share * one for share, one in shares if share > 0) if total else math.nan,
        _mean(tuple(counts.images.values())),
        math.nan if counts.trimap is None else _mean(_iou(counts.trimap)),
        math.nan if rims is None else _mean(tuple((rims[:, 0] / rims[:, 1]).tolist())),
    )


def _iou(matrix: Tensor) -> tuple[float, ...]:
    exact = matrix.double()
    right = exact.diagonal()
    return tuple((right / (exact.sum(0) + exact.sum(1) - right)).tolist())


def _mean(values: tuple[float, ...]) -> float:
    """Return the mean of the numbers, exact before the division: their order does not matter."""
    known = [one for one in values if not math.isnan(one)]
    return math.fsum(known) / len(known) if known else math.nan

"""Predictions and labels in, the intersection over union of each image in percent out.

The image IoU of the Lovász authors: a mean over images, for comparing losses. The IoU that is
reported for a data set counts all its pixels together and is higher or lower than this one.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...proto.errors import MismatchError


def iou_binary(
    preds: Tensor,
    labels: Tensor,
    EMPTY: float = 1.0,  # noqa: N803
    ignore: int | None = None,
    per_image: bool = True,
) -> float:
    """Return the IoU of the foreground (1) in percent.

    Parameters
    ----------
    preds
        (batch, height, width), 0 or 1.
    labels
        The same shape; 0, 1 or ``ignore``.
    EMPTY
        The IoU, 0..1, where neither has foreground; the original's name.
    ignore
        The label of void pixels.
    per_image
        The mean over images; otherwise the batch is one image.

    """
    return float(_ious(preds, labels, [1], EMPTY, ignore, per_image)[0])


def iou(
    preds: Tensor,
    labels: Tensor,
    C: int,  # noqa: N803
    EMPTY: float = 1.0,  # noqa: N803
    ignore: int | None = None,
    per_image: bool = False,
) -> Tensor:
    """Return the IoU of each of ``C`` classes in percent, but for ``ignore`` if it is one.

    Arguments are those of `iou_binary`; labels and predictions are class numbers.
    """
    classes = [label for label in range(C) if label != ignore]
    return _ious(preds, labels, classes, EMPTY, ignore, per_image)


def _ious(
    preds: Tensor,
    labels: Tensor,
    classes: Sequence[int],
    empty: float,
    ignore: int | None,
    per_image: bool,
) -> Tensor:
    if preds.shape != labels.shape:
        raise MismatchError(
            f"predictions: shape {tuple(preds.shape)}, expected that of the labels, "
            f"{tuple(labels.shape)}."
        )
    if preds.is_floating_point() and (preds != preds.floor()).any():
        raise MismatchError(
            "predictions: not whole numbers, expected classes. Take the argmax, or compare the "
            "probability or logit with its threshold."
        )
    labels = labels.reshape(len(labels) if per_image else 1, -1).long()
    preds = preds.reshape(labels.shape).long()
    valid = torch.ones_like(labels, dtype=torch.bool) if ignore is None else labels != ignore
    found = []
    for label in classes:
        truth, guess = (labels == label) & valid, (preds == label) & valid
        union = (truth | guess).sum(1)
        overlap = (truth & guess).sum(1)
        found.append(torch.where(union > 0, overlap / union.clamp_min(1), empty).mean())
    return 100 * torch.stack(found)

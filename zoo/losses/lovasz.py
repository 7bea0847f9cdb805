"""The Lovász hinge and the Lovász softmax: scores and labels in, a loss out.

Functions with the original's signatures, so that its import can be swapped, and modules on
logits. Source: Berman, Rannen Triki and Blaschko, The Lovász-Softmax loss, CVPR 2018,
arXiv:1705.08790. ``docs/losses.md`` says which loss to take, and what was mended.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...proto.errors import MismatchError, UsageError
from .binary import one_channel
from .checks import (
    check_axes,
    check_labels,
    check_numbers,
    check_probabilities,
    class_weights,
    wanted,
)
from .classes import Classes, channels_of
from .extension import lovasz_extension
from .gather import whole_batch
from .ranking import VOID

Reduction = Literal["mean", "sum", "none"]


def lovasz_hinge(
    logits: Tensor,
    labels: Tensor,
    per_image: bool = True,
    ignore: int | None = None,
    *,
    validate: bool | None = None,
) -> Tensor:
    """Return the binary Lovász hinge, a scalar.

    Parameters
    ----------
    logits
        (batch, height, width), positive for foreground; any number of axes after the
        first, or one axis of pixels.
    labels
        The same shape; 0, 1 or ``ignore``.
    per_image
        The mean of the images' losses; otherwise all pixels are one image.
    ignore
        The label of void pixels.
    validate
        See `checks`.

    Raises
    ------
    MismatchError
        Shapes differ; labels or logits are not what they should be.

    """
    losses = _hinge_losses(logits, labels, per_image, ignore, validate)
    return reduced(losses, "mean")


def lovasz_softmax(
    probas: Tensor,
    labels: Tensor,
    classes: Classes = "present",
    per_image: bool = False,
    ignore: int | None = None,
    *,
    validate: bool | None = None,
) -> Tensor:
    """Return the multi-class Lovász softmax of probabilities, a scalar.

    Parameters
    ----------
    probas
        (batch, classes, height, width), a distribution over the classes; or
        (batch, height, width), the sigmoid of one class, which ``classes=[label]`` names.
    labels
        (batch, height, width), 0 .. classes - 1 or ``ignore``.
    classes
        The classes whose losses are averaged: those present in the labels, all, or a
        list. With none present the loss is 0.
    per_image
        The mean of the images' losses; otherwise the batch is one image.
    ignore
        The label of void pixels.
    validate
        See `checks`.

    Raises
    ------
    MismatchError
        Shapes differ; labels or probabilities are not what they should be.
    UsageError
        A class that does not exist.

    """
    if probas.dim() == labels.dim():
        probas = probas.unsqueeze(1)
    if wanted(validate, probas):
        check_probabilities(probas)
    losses, active = _softmax_losses(probas, labels, classes, per_image, ignore, validate)
    return reduced(_over_classes(losses, active, None), "mean")


def _hinge_losses(
    logits: Tensor, labels: Tensor, per_image: bool, ignore: int | None, validate: bool | None
) -> Tensor:
    """Return the loss of each group of images."""
    if logits.dim() == labels.dim() == 1:
        logits, labels = logits[None], labels[None]
    logits = one_channel(logits, labels)
    if wanted(validate, logits):
        check_labels(labels, 2, ignore)
        check_numbers(logits)
    marked = _marked(labels, ignore)
    losses, _ = _losses(logits.unsqueeze(1), marked, [0], 1, 1.0, False, per_image)
    return _poisoned(losses, marked, 2)[:, 0]


def _softmax_losses(
    probas: Tensor,
    labels: Tensor,
    classes: Classes,
    per_image: bool,
    ignore: int | None,
    validate: bool | None,
) -> tuple[Tensor, Tensor]:
    """Return the losses of each group of images and class, and whether they count."""
    check_axes(probas, 3)
    count = probas.shape[1]
    _match((len(probas), *probas.shape[2:]), labels)
    channels, first = channels_of(classes, count)
    if wanted(validate, probas):  # Next to one class any label is another.
        check_labels(labels, count if count > 1 else 2**31, ignore)
    marked = _marked(labels, ignore)
    skip = isinstance(classes, str) and classes == "present"
    losses, active = _losses(probas, marked, channels, first, 0.0, skip, per_image)
    return losses if count == 1 else _poisoned(losses, marked, count), active


def _marked(labels: Tensor, ignore: int | None) -> Tensor:
    marked = labels.flatten(1).to(torch.int32)
    return marked if ignore is None else marked.masked_fill(marked == ignore, VOID)


def _poisoned(losses: Tensor, marked: Tensor, classes: int) -> Tensor:
    """Make losses of labels that do not exist not a number, which asks nothing of the device."""
    strange = (marked >= classes) | ((marked < 0) & (marked != VOID))
    return losses.masked_fill(strange.any(), torch.nan)


def _losses(
    scores: Tensor,
    marked: Tensor,
    channels: Sequence[int],
    first: int,
    margin: float,
    skip_absent: bool,
    per_image: bool,
) -> tuple[Tensor, Tensor]:
    """Bring scores (batch, classes, ...) and labels (batch, pixels) into groups and rank them."""
    scores = scores.flatten(2).to(torch.promote_types(scores.dtype, torch.float32))
    axis = 1 if per_image else 0
    losses, active, _ = lovasz_extension(
        scores.unsqueeze(axis), marked.unsqueeze(axis), channels, first, margin, skip_absent
    )
    return losses, active


def _over_classes(losses: Tensor, active: Tensor, weight: Tensor | None) -> Tensor:
    """Return the (weighted) mean over the classes that count, 0 if none does: (groups,)."""
    share = active if weight is None else active * weight.to(active)
    total = share.sum(1)
    return (losses * share).sum(1) / torch.where(total > 0, total, 1)


def _match(expected: Sequence[int], labels: Tensor) -> None:
    if tuple(expected) != tuple(labels.shape):
        raise MismatchError(
            f"labels: shape {tuple(labels.shape)}, expected {tuple(expected)}, one for each pixel "
            "of the scores. Resize the scores to the labels, not the labels to the scores."
        )


def reduced(losses: Tensor, reduction: Reduction) -> Tensor:
    """Return the losses, their sum, or their mean, which is 0 of none."""
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.sum() / max(1, len(losses))


def check_reduction(reduction: str) -> None:
    """Refuse reductions other than mean, sum and none."""
    if reduction not in ("mean", "sum", "none"):
        raise UsageError(f"reduction: {reduction!r}, expected 'mean', 'sum' or 'none'.")


class LovaszHingeLoss(nn.Module):
    """The Lovász hinge of logits (batch, height, width) or (batch, 1, height, width).

    Parameters
    ----------
    per_image
        Rank each image by itself; otherwise the batch is one image.
    ignore_index
        The label of void pixels, or None.
    reduction
        ``"mean"`` or ``"sum"`` over the images, or ``"none"``: (batch,), or (1,)
        where the batch is one image.
    distributed
        The batch is that of all processes (`gather.whole_batch`).
    validate
        See `checks`.

    """

    def __init__(
        self,
        per_image: bool = True,
        ignore_index: int | None = 255,
        reduction: Reduction = "mean",
        distributed: bool = False,
        validate: bool | None = None,
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        self.per_image = per_image
        self.ignore_index = ignore_index
        self.reduction = reduction
        self.distributed = distributed
        self.validate = validate

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss; labels are 0, 1 or void, (batch, height, width)."""
        if self.distributed:
            logits, labels = whole_batch(logits, labels)
        losses = _hinge_losses(logits, labels, self.per_image, self.ignore_index, self.validate)
        return reduced(losses, self.reduction)


class LovaszSoftmaxLoss(nn.Module):
    """The Lovász softmax of logits (batch, classes, height, width); the softmax is inside.

    Parameters
    ----------
    classes
        ``"present"`` in the labels, ``"all"``, or a list.
    per_image
        Rank each image by itself; otherwise the batch is one image.
    ignore_index
        The label of void pixels, or None.
    weight
        (classes,); the loss is the weighted mean over the classes that count.
    reduction
        ``"mean"`` or ``"sum"`` over the images of the mean over classes, or
        ``"none"``: (batch, classes), or (1, classes) where the batch is one image; classes
        that do not count are 0, and ``weight`` is left out.
    distributed
        The batch is that of all processes (`gather.whole_batch`).
    validate
        See `checks`.

    """

    weight: Tensor | None

    def __init__(
        self,
        classes: Classes = "present",
        per_image: bool = False,
        ignore_index: int | None = 255,
        weight: Tensor | Sequence[float] | None = None,
        reduction: Reduction = "mean",
        distributed: bool = False,
        validate: bool | None = None,
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        self.classes = classes
        self.per_image = per_image
        self.ignore_index = ignore_index
        self.register_buffer("weight", class_weights(weight), persistent=False)
        self.reduction = reduction
        self.distributed = distributed
        self.validate = validate

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss; labels are class numbers or void, (batch, height, width)."""
        if self.distributed:
            logits, labels = whole_batch(logits, labels)
        check_axes(logits, 3)
        if logits.shape[1] == 1:
            raise MismatchError(
                f"logits: shape {tuple(logits.shape)}, whose softmax is 1 everywhere. Take "
                "LovaszHingeLoss, or lovasz_softmax of a sigmoid with classes=[label]."
            )
        if self.weight is not None and len(self.weight) != logits.shape[1]:
            raise MismatchError(
                f"weight: {len(self.weight)} values, expected {logits.shape[1]}, one per class."
            )
        if wanted(self.validate, logits):
            check_numbers(logits)
        wide = torch.promote_types(logits.dtype, torch.float32)
        losses, active = _softmax_losses(
            functional.softmax(logits, 1, dtype=wide), labels, self.classes, self.per_image,
            self.ignore_index, self.validate,
        )  # fmt: skip
        if self.reduction == "none":
            return losses
        return reduced(_over_classes(losses, active, self.weight), self.reduction)

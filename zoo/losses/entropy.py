"""Losses of many classes and of each pixel alone: cross entropy, of scribbles, and focal.

Logits are (batch, classes, height, width), labels (batch, height, width). The mean is over the
pixels that count, weighted by their classes; without one it is a zero that has a gradient.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...proto.errors import MismatchError
from .checks import check_axes, check_labels, check_numbers, class_weights, wanted


class CrossEntropyLoss(nn.Module):
    """Cross entropy; a label that is neither class nor void makes it not a number.

    Parameters
    ----------
    ignore_index
        The label of void pixels, or None.
    weight
        (classes,).
    validate
        See `checks`.

    """

    weight: Tensor | None

    def __init__(
        self,
        ignore_index: int | None = 255,
        weight: Tensor | Sequence[float] | None = None,
        validate: bool | None = None,
    ) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.register_buffer("weight", class_weights(weight), persistent=False)
        self.validate = validate

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss."""
        losses, share = self._losses(logits, labels)
        return self._mean(losses, share)

    def _losses(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the entropy of each pixel and its share in the mean: (batch, ...)."""
        check_axes(logits, 2)
        classes = logits.shape[1]
        if (len(logits), *logits.shape[2:]) != tuple(labels.shape):
            raise MismatchError(
                f"labels: shape {tuple(labels.shape)}, expected "
                f"{(len(logits), *logits.shape[2:])}, one for each pixel of the logits."
            )
        if self.weight is not None and len(self.weight) != classes:
            raise MismatchError(f"weight: {len(self.weight)} values, expected {classes}.")
        if wanted(self.validate, logits):
            check_labels(labels, classes, self.ignore_index)
            check_numbers(logits)
        labels = labels.long()
        void = torch.zeros_like(labels, dtype=torch.bool)
        if self.ignore_index is not None:
            void = labels == self.ignore_index
        strange = ~void & ((labels < 0) | (labels >= classes))
        # The library's kernel stops the device at labels that do not exist.
        labels = labels.masked_fill(void | strange, 0)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        losses = functional.cross_entropy(logits, labels, reduction="none")
        share = torch.ones_like(losses) if self.weight is None else self.weight.to(losses)[labels]
        losses = losses.masked_fill(strange, torch.nan).masked_fill(void, 0)
        return losses, share.masked_fill(void, 0)

    @staticmethod
    def _mean(losses: Tensor, share: Tensor) -> Tensor:
        total = share.sum()
        return (losses * share).sum() / torch.where(total > 0, total, 1)


class PartialCrossEntropyLoss(CrossEntropyLoss):
    """Cross entropy of the labelled pixels of scribbles, the mean over these.

    Parameters
    ----------
    unlabelled
        The labels of all others; rloss marks what has no scribble with 255 and
        padding with 254.
    weight
        (classes,).
    validate
        See `checks`.

    """

    def __init__(
        self,
        unlabelled: Sequence[int] = (255, 254),
        weight: Tensor | Sequence[float] | None = None,
        validate: bool | None = None,
    ) -> None:
        super().__init__(unlabelled[0] if unlabelled else None, weight, validate)
        self.unlabelled = tuple(unlabelled)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss."""
        if not labels.is_floating_point():
            labels = labels.long()  # An int8 holds no 254.
        for other in self.unlabelled[1:]:
            labels = labels.masked_fill(labels == other, self.unlabelled[0])
        return super().forward(logits, labels)


class FocalLoss(CrossEntropyLoss):
    """Cross entropy times ``alpha (1 - p) ** gamma`` of each pixel (Lin et al., arXiv:1708.02002).

    Parameters
    ----------
    ignore_index
        The label of void pixels, or None.
    weight
        (classes,).
    gamma
        How little a pixel weighs that is nearly right; 0 is cross entropy.
    alpha
        A factor; rloss has 0.5.
    validate
        See `checks`.

    """

    def __init__(
        self,
        ignore_index: int | None = 255,
        weight: Tensor | Sequence[float] | None = None,
        gamma: float = 2.0,
        alpha: float = 1.0,
        validate: bool | None = None,
    ) -> None:
        super().__init__(ignore_index, weight, validate)
        self.gamma = gamma
        self.alpha = alpha

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss."""
        losses, share = self._losses(logits, labels)
        # 1 - exp(-loss), exact near zero; a power of exactly zero has no slope below gamma 1.
        wrong = -torch.expm1(-losses)
        factor = wrong.clamp_min(torch.finfo(wrong.dtype).tiny) ** self.gamma
        return self._mean(self.alpha * factor * losses, share)

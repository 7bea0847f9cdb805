"""Losses of two classes: logits and labels 0, 1 or void in, the mean over the pixels out.

Logits are (batch, height, width) or (batch, 1, height, width). Without a pixel that counts each
loss is a zero that has a gradient.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...proto.errors import MismatchError
from .checks import check_labels, check_numbers, wanted


class _Binary(nn.Module):
    """What the losses share: void pixels, shapes and checks."""

    def __init__(self, ignore_index: int | None = 255, validate: bool | None = None) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.validate = validate

    def _prepared(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, truth (0 or 1) and validity (0 or 1), each (batch, pixels), float."""
        logits = one_channel(logits, labels)
        if wanted(self.validate, logits):
            check_labels(labels, 2, self.ignore_index)
            check_numbers(logits)
        logits = logits.flatten(1).to(torch.promote_types(logits.dtype, torch.float32))
        labels = labels.flatten(1).long()
        valid = torch.ones_like(labels, dtype=torch.bool)
        if self.ignore_index is not None:
            valid = labels != self.ignore_index
        # A void logit may be anything, but times zero what is not a number stays that.
        logits = logits.masked_fill(~valid, 0)
        logits = logits.masked_fill(valid & (labels != 0) & (labels != 1), torch.nan)
        return logits, (labels == 1).to(logits.dtype), valid.to(logits.dtype)


def one_channel(logits: Tensor, labels: Tensor) -> Tensor:
    """Return logits (batch, ...) or (batch, 1, ...) in the shape of their labels."""
    if logits.dim() == labels.dim() + 1 and logits.dim() > 2 and logits.shape[1] == 1:
        logits = logits.squeeze(1)
    if logits.dim() < 2:
        raise MismatchError(f"logits: shape {tuple(logits.shape)}, expected (batch, height, width)")
    if logits.shape != labels.shape:
        raise MismatchError(
            f"labels: shape {tuple(labels.shape)}, expected {tuple(logits.shape)}, one for each "
            "logit. Resize the logits to the labels, not the labels to the logits."
        )
    return logits


def _mean(values: Tensor, valid: Tensor) -> Tensor:
    return (values * valid).sum() / valid.sum().clamp_min(1)


class HingeLoss(_Binary):
    """``max(0, 1 - logit * (2 label - 1))``, the mean over the pixels."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss."""
        logits, truth, valid = self._prepared(logits, labels)
        return _mean((1 - logits * (2 * truth - 1)).clamp_min(0), valid)


class BinaryCrossEntropyLoss(_Binary):
    """The logistic loss, stable at any logit: ``log(1 + exp(-x))`` with the sign of the label."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss."""
        logits, truth, valid = self._prepared(logits, labels)
        return _mean(-functional.logsigmoid(logits * (2 * truth - 1)), valid)


class SoftJaccardLoss(_Binary):
    """The naive relaxation: 1 - IoU with probabilities in place of decisions, mean over images.

    Images without a pixel that counts are left out of the mean.
    """

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss."""
        logits, truth, valid = self._prepared(logits, labels)
        probability = torch.sigmoid(logits) * valid
        truth = truth * valid
        overlap = (probability * truth).sum(1)
        union = probability.sum(1) + truth.sum(1) - overlap
        tiny = torch.finfo(union.dtype).tiny
        return _mean(1 - overlap / union.clamp_min(tiny), valid.any(1).to(valid))

"""Tensors that a loss is given are refused here by name and place, or nothing happens.

A check reads a number back, for which a GPU must finish what it was told before. So losses check
what lies on the CPU by themselves, outside of ``torch.compile``, and anything when told to with
``validate=True``; on a GPU call these functions once per data set, or on the loader's batches.
Unchecked labels outside of the classes make a
loss not a number, which asks nothing of the device and stops none.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...proto.errors import MismatchError, UsageError


def wanted(validate: bool | None, tensor: Tensor) -> bool:
    """Return whether to check: as told, or if it costs no synchronisation."""
    if torch.compiler.is_compiling():
        return False
    return tensor.device.type == "cpu" if validate is None else validate


def check_labels(labels: Tensor, classes: int, ignore: int | None) -> None:
    """Refuse labels other than ``0 .. classes - 1`` and the ignored one.

    Raises
    ------
    MismatchError
        Naming the first such label, its place, and how many there are.

    """
    if not labels.is_floating_point():
        labels = labels.long()  # In uint8, -1 would be 255.
    wrong = ~((labels >= 0) & (labels < classes) & (labels == labels.floor()))
    if ignore is not None:
        wrong &= labels != ignore
    if wrong.any():
        aside = "" if ignore is None else f" or {ignore}, which is ignored"
        raise MismatchError(
            f"labels: {_first(labels, wrong)}, expected 0..{classes - 1}{aside}. "
            "Name the void label (ignore, ignore_index), or map the labels to the classes."
        )


def check_numbers(scores: Tensor, name: str = "logits", *, finite: bool = False) -> None:
    """Refuse scores that are not a number, or infinite.

    Minus infinity, by which a class is left out, is refused only where all have to be finite.

    Raises
    ------
    MismatchError
        Naming the place of the first.

    """
    total = scores.sum()
    if total < torch.inf and not (finite and total == -torch.inf):
        return
    wrong = ~(scores < torch.inf)
    if finite:
        wrong |= scores == -torch.inf
    if wrong.any():
        raise MismatchError(
            f"{name}: {_first(scores, wrong)}, expected numbers. "
            "Lower the learning rate, or look for the first step that gives them."
        )


def check_axes(scores: Tensor, least: int) -> None:
    """Refuse scores without the axes (batch, classes, ...)."""
    if scores.dim() < least:
        raise MismatchError(
            f"scores: shape {tuple(scores.shape)}, expected (batch, classes, height, width)."
        )


def class_weights(given: Tensor | Sequence[float] | None) -> Tensor | None:
    """Return the weights of the classes, (classes,), float32.

    Raises
    ------
    UsageError
        They are not one finite number for each class, none below 0 and one above.

    """
    if given is None:
        return None
    weights = torch.as_tensor(given, dtype=torch.float32)
    if weights.dim() != 1 or not ((weights >= 0).all() and 0 < weights.sum() < torch.inf):
        raise UsageError(
            f"weight: {weights.tolist()}, expected a number for each class, at least 0, one more."
        )
    return weights


def check_probabilities(probabilities: Tensor) -> None:
    """Refuse what is no distribution over dimension 1, if that has more than one class.

    Half precision rounds each of many classes: its sums may be off by 0.05, others by 0.01.

    Raises
    ------
    MismatchError
        Naming the place of the first value outside of 0..1, or sum other than 1.

    """
    slack = 5e-2 if probabilities.element_size() == 2 else 1e-2
    if probabilities.numel() == 0:
        return
    low, high = probabilities.aminmax()
    if not (low >= -slack and high <= 1 + slack):
        wrong = ~((probabilities >= -slack) & (probabilities <= 1 + slack))
        raise MismatchError(
            f"probabilities: {_first(probabilities, wrong)}, expected 0..1. "
            "Logits go through softmax first, or straight into LovaszSoftmaxLoss."
        )
    if probabilities.shape[1] == 1:
        return
    sums = probabilities.sum(1)
    wrong = (sums - 1).abs() > slack
    if wrong.any():
        raise MismatchError(
            f"probabilities: the classes sum to {_first(sums, wrong)}, expected 1. "
            "Use softmax over dimension 1; independent sigmoids are one class each, "
            "(batch, 1, height, width) with classes=[label]."
        )


def _first(values: Tensor, wrong: Tensor) -> str:
    """Return the first wrong value, its place, and the number of the others."""
    place = tuple(wrong.nonzero()[0].tolist())
    count = int(wrong.sum())
    return f"{values[place].item():g} at {place}" + (f" and {count - 1} more" * (count > 1))

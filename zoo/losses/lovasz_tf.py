"""The Lovász hinge and softmax for TensorFlow, eager or in a ``tf.function``.

The values and gradients are those of `lovasz`; needs the extra ``[tensorflow]`` and is imported
by this name only. Equal errors stay in the pixels' order, as ``tf.math.top_k`` keeps them.
"""

from collections.abc import Sequence
from typing import Any, Literal

from ...proto.errors import MismatchError, MissingDependencyError, UsageError
from .classes import Classes, channels_of

try:
    import tensorflow as tf
except ImportError as error:
    raise MissingDependencyError(
        "tensorflow: not installed, expected for deeplab_zoo.zoo.losses.lovasz_tf. "
        "Install it with: pip install 'deeplab-zoo[tensorflow]'"
    ) from error

Tensor = Any  # TensorFlow has no types.


def lovasz_hinge(
    logits: Tensor, labels: Tensor, per_image: bool = True, ignore: int | None = None
) -> Tensor:
    """Return the binary Lovász hinge, a scalar.

    Parameters
    ----------
    logits
        (batch, height, width) or (batch, height, width, 1), positive for foreground.
    labels
        The same shape; 0, 1 or ``ignore``.
    per_image
        The mean of the images' losses; otherwise the batch is one image.
    ignore
        The label of void pixels.

    Raises
    ------
    MismatchError
        Shapes differ, or eagerly: a label is none of these. In a graph that makes the loss
        not a number.

    """
    logits, labels = _wide(logits), tf.convert_to_tensor(labels)
    if logits.shape.rank == 4 and labels.shape.rank == 3 and logits.shape[-1] == 1:
        logits = tf.squeeze(logits, -1)
    _match(logits.shape, labels)
    wrong = _wrong(labels, 2, ignore)
    images = tf.shape(logits)[0]
    scores, labels = tf.reshape(logits, (images, -1)), tf.reshape(labels, (images, -1))
    scores, labels = _grouped(scores[:, None], labels, per_image)
    losses = _extension(scores, labels[:, None] == 1, 1.0, _valid(labels, ignore))
    return _poisoned(_mean(losses), wrong)


def lovasz_softmax(
    probas: Tensor,
    labels: Tensor,
    classes: Classes = "present",
    per_image: bool = False,
    ignore: int | None = None,
    order: Literal["BHWC", "BCHW"] = "BHWC",
) -> Tensor:
    """Return the multi-class Lovász softmax of probabilities, a scalar.

    Parameters
    ----------
    probas
        (batch, height, width, classes), or as ``order`` says; or (batch, height, width), the
        sigmoid of one class, which ``classes=[label]`` names.
    labels
        (batch, height, width), 0 .. classes - 1 or ``ignore``.
    classes
        The classes whose losses are averaged: those present in the labels, all, or a list.
        With none present the loss is 0.
    per_image
        The mean of the images' losses; otherwise the batch is one image.
    ignore
        The label of void pixels.
    order
        Where ``probas`` have their classes.

    Raises
    ------
    MismatchError
        Shapes differ or are not known, or eagerly: a label is none of these, or the
        probabilities are none. In a graph such a label makes the loss not a number.
    UsageError
        A class or order that does not exist.

    """
    if order not in ("BHWC", "BCHW"):
        raise UsageError(f"order: {order!r}, expected 'BHWC' or 'BCHW'.")
    probas, labels = _wide(probas), tf.convert_to_tensor(labels)
    if probas.shape.rank == 3:
        probas = probas[:, None]
    elif order == "BHWC":
        probas = tf.transpose(probas, (0, 3, 1, 2))
    if probas.shape.rank is None or probas.shape[1] is None:
        raise MismatchError(
            f"probas: shape {probas.shape}, expected known classes; set_shape them."
        )
    _match([probas.shape[0], *probas.shape[2:]], labels)
    count, images = probas.shape[1], tf.shape(probas)[0]
    channels, first = channels_of(classes, count)
    _check_probabilities(probas)
    wrong = _wrong(labels, count if count > 1 else 2**31, ignore)
    scores, labels = tf.reshape(probas, (images, count, -1)), tf.reshape(labels, (images, -1))
    scores, labels = _grouped(tf.gather(scores, channels, axis=1), labels, per_image)
    valid = _valid(labels, ignore)
    foreground = labels[:, None] == first + tf.constant(channels, labels.dtype)[:, None]
    losses = _extension(scores, foreground, 0.0, valid)
    active = tf.ones_like(losses)
    if isinstance(classes, str) and classes == "present":
        active = tf.cast(tf.reduce_any(foreground & valid[:, None], 2), losses.dtype)
    means = tf.math.divide_no_nan(tf.reduce_sum(losses * active, 1), tf.reduce_sum(active, 1))
    return _poisoned(_mean(means), wrong)


def _wide(scores: Tensor) -> Tensor:
    scores = tf.convert_to_tensor(scores)
    return scores if scores.dtype == tf.float64 else tf.cast(scores, tf.float32)


def _grouped(scores: Tensor, labels: Tensor, per_image: bool) -> tuple[Tensor, Tensor]:
    """Return scores (groups, classes, pixels) and labels (groups, pixels), int32."""
    labels = tf.cast(labels, tf.int32)
    if per_image:
        return scores, labels
    scores = tf.reshape(tf.transpose(scores, (1, 0, 2)), (1, scores.shape[1], -1))
    return scores, tf.reshape(labels, (1, -1))


def _valid(labels: Tensor, ignore: int | None) -> Tensor:
    return tf.ones_like(labels, tf.bool) if ignore is None else labels != ignore


def _extension(scores: Tensor, foreground: Tensor, margin: float, valid: Tensor) -> Tensor:
    """Return the loss of each row, (groups, classes), from scores and truth (..., pixels)."""
    valid = tf.broadcast_to(valid[:, None], tf.shape(scores))
    errors = tf.where(foreground, 1 - scores, margin + scores)
    errors = tf.nn.relu(tf.where(valid, errors, tf.zeros_like(errors)))
    ranked, places = tf.math.top_k(errors, tf.shape(errors)[-1])
    hit = tf.gather(foreground & valid, places, batch_dims=2)
    lost = tf.cumsum(tf.cast(hit, tf.int32), -1)
    total = lost[..., -1:]
    union = total + tf.range(1, tf.shape(errors)[-1] + 1) - lost
    overlap, union = tf.cast(total - lost, errors.dtype), tf.cast(union, errors.dtype)
    # The Jaccard loss grows by 1 / union with foreground, else by overlap / (union (union - 1)).
    growth = tf.where(hit | (union == 1), 1 / union, overlap / (union * tf.maximum(union - 1, 1)))
    return tf.reduce_sum(ranked * tf.stop_gradient(growth), -1)


def _mean(losses: Tensor) -> Tensor:
    """Return the mean over groups, 0 if there is none."""
    return tf.math.divide_no_nan(tf.reduce_sum(losses), tf.cast(tf.size(losses), losses.dtype))


def _match(expected: Sequence[int | None], labels: Tensor) -> None:
    if not labels.shape.is_compatible_with(expected):
        raise MismatchError(
            f"labels: shape {labels.shape}, expected {tf.TensorShape(expected)}, one for each "
            "pixel of the scores. Resize the scores to the labels, not the labels to the scores."
        )


def _wrong(labels: Tensor, classes: int, ignore: int | None) -> Tensor:
    """Return which labels are neither class nor void; refuse them where they can be read."""
    if not labels.dtype.is_floating:
        labels = tf.cast(labels, tf.int64)
    wrong = (labels < 0) | (labels >= classes)
    if labels.dtype.is_floating:
        wrong |= labels != tf.floor(labels)
    if ignore is not None:
        wrong &= labels != ignore
    if tf.executing_eagerly() and tf.reduce_any(wrong):
        places = tf.where(wrong)
        place = tuple(places[0].numpy().tolist())
        raise MismatchError(
            f"labels: {labels[place].numpy()} at {place} and {len(places) - 1} more, "
            f"expected 0..{classes - 1}" + ("." if ignore is None else f" or {ignore}.")
        )
    return wrong


def _poisoned(loss: Tensor, wrong: Tensor) -> Tensor:
    return tf.where(tf.reduce_any(wrong), tf.constant(float("nan"), loss.dtype), loss)


def _check_probabilities(probas: Tensor) -> None:
    """Refuse (batch, classes, ...) that are no distribution, where they can be read."""
    if not tf.executing_eagerly():
        return
    low, high = float(tf.reduce_min(probas)), float(tf.reduce_max(probas))
    if not (low >= -0.01 and high <= 1.01):
        raise MismatchError(f"probas: {low:g}..{high:g}, expected 0..1. Take the softmax first.")
    if probas.shape[1] > 1 and tf.reduce_any(abs(tf.reduce_sum(probas, 1) - 1) > 0.05):
        raise MismatchError(
            "probas: the classes do not sum to 1, expected a softmax. Sigmoids are one class each, "
            "(batch, height, width) with classes=[label]."
        )

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
        (batch, height, width), positive for foreground.
    labels
        The same shape; 0, 1 or ``ignore``.
    per_image
        The mean of the images' losses; otherwise the batch is one image.
    ignore
        The label of void pixels.

    Raises
    ------
    MismatchError
        Eagerly: shapes differ, or a label is none of these.

    """
    logits = _wide(logits)
    images = tf.shape(logits)[0]
    scores, labels = tf.reshape(logits, (images, -1)), tf.reshape(labels, (images, -1))
    _check(labels, scores.shape, 2, ignore)
    scores, labels = _grouped(scores[:, None], labels, per_image)
    foreground = labels[:, None] == 1
    errors = tf.nn.relu(tf.where(foreground, 1 - scores, 1 + scores))
    return _mean(_extension(errors, foreground, _valid(labels, ignore)))


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
        Eagerly: shapes differ, or a label is none of these.
    UsageError
        A class or order that does not exist.

    """
    if order not in ("BHWC", "BCHW"):
        raise UsageError(f"order: {order!r}, expected 'BHWC' or 'BCHW'.")
    probas = _wide(probas)
    if len(probas.shape) == 3:
        probas = probas[:, None]
    elif order == "BHWC":
        probas = tf.transpose(probas, (0, 3, 1, 2))
    count, images = probas.shape[1], tf.shape(probas)[0]
    channels, first = channels_of(classes, count)
    scores, labels = tf.reshape(probas, (images, count, -1)), tf.reshape(labels, (images, -1))
    if count > 1:
        _check(labels, (scores.shape[0], scores.shape[2]), count, ignore)
    scores, labels = _grouped(tf.gather(scores, channels, axis=1), labels, per_image)
    valid = _valid(labels, ignore)
    foreground = labels[:, None] == first + tf.constant(channels, labels.dtype)[:, None]
    errors = tf.abs(tf.cast(foreground, scores.dtype) - scores)
    losses = _extension(errors, foreground, valid)
    if not isinstance(classes, str) or classes == "all":
        return _mean(tf.reduce_mean(losses, 1))
    active = tf.cast(tf.reduce_any(foreground & valid[:, None], 2), losses.dtype)
    return _mean(tf.math.divide_no_nan(tf.reduce_sum(losses * active, 1), tf.reduce_sum(active, 1)))


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


def _extension(errors: Tensor, foreground: Tensor, valid: Tensor) -> Tensor:
    """Return the loss of each row, (groups, classes), from errors and truth (..., pixels)."""
    valid = tf.broadcast_to(valid[:, None], tf.shape(errors))
    errors = tf.where(valid, errors, tf.zeros_like(errors))
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


def _check(labels: Tensor, shape: Sequence[int | None], classes: int, ignore: int | None) -> None:
    """Refuse wrong labels where they can be read."""
    if not tf.executing_eagerly():
        return
    if tuple(labels.shape) != tuple(shape):
        raise MismatchError(f"labels: {tuple(labels.shape)} pixels, expected {tuple(shape)}.")
    labels = tf.cast(labels, tf.int64)
    wrong = (labels < 0) | (labels >= classes)
    if ignore is not None:
        wrong &= labels != ignore
    places = tf.where(wrong)
    if len(places):
        place = tuple(places[0].numpy().tolist())
        raise MismatchError(
            f"labels: {labels[place].numpy()} at (image, pixel) {place} and {len(places) - 1} "
            f"more, expected 0..{classes - 1}" + ("." if ignore is None else f" or {ignore}.")
        )

"""Losses and measures, forward only; as in Caffe a top holds the loss before its weight."""

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from ...proto.caffe_pb2 import HingeLossParameter, LossParameter
from ...proto.errors import MismatchError
from ...proto.records import Layer
from .registry import Operation, Shape, Weights, axis_of, layer, misfit, wrong
from .shaping import largest

SMALLEST = torch.finfo(torch.float32).tiny
LOG_THRESHOLD = 1e-20


def _divisor(layer: Layer, default: str, batch: int, kept: Tensor) -> Tensor | int:
    """Return what a loss is divided by; ``kept`` tells the labels that are not ignored."""
    settings = layer.params.loss_param
    mode = default
    if settings.HasField("normalization"):
        mode = LossParameter.NormalizationMode.Name(settings.normalization)
    elif settings.HasField("normalize"):
        mode = "VALID" if settings.normalize else "BATCH_SIZE"
    divisors = {"FULL": kept.numel(), "BATCH_SIZE": batch, "NONE": 1}
    return divisors[mode] if mode in divisors else kept.sum().clamp(min=1)


def _kept(labels: Tensor, settings: object) -> Tensor:
    if settings.HasField("ignore_label"):  # type: ignore[attr-defined]
        ignored: int = settings.ignore_label  # type: ignore[attr-defined]
        return labels != ignored
    return torch.ones_like(labels, dtype=torch.bool)


def _by_pixel(x: Tensor, labels: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Return scores (outer, classes, inner) and labels (outer, inner), truncated as in C."""
    at = axis % x.dim()
    outer = prod(x.shape[:at])
    scores = x.reshape(outer, x.shape[at], -1)
    return scores, labels.reshape(outer, -1).trunc().long()


def _check_labels(layer: Layer, labels: Tensor, classes: int, kept: Tensor | None = None) -> None:
    """Refuse labels beyond the classes, by value; a traced net leaves that to who runs it."""
    if torch.compiler.is_compiling():
        return
    beyond = (labels < 0) | (labels >= classes)
    if kept is not None:
        beyond = beyond & kept
    if beyond.any():
        found = sorted(set(labels[beyond].tolist()))[:5]
        raise MismatchError(
            f"{layer.place}: {layer.type} of {classes} classes: labels {found} in "
            f"{layer.bottoms[1]!r}, expected 0 to {classes - 1} or the ignore_label."
        )


def _labelled(
    layer: Layer, axis: int, tops: Callable[[Shape], Sequence[Shape]]
) -> Callable[[Sequence[Shape]], Sequence[Shape]]:
    """Return a rule of sizes: one label for each position of the scores."""

    def sizes(shapes: Sequence[Shape]) -> Sequence[Shape]:
        at = axis_of(layer, shapes, axis)
        if prod(shapes[1]) * shapes[0][at] != prod(shapes[0]):
            raise misfit(layer, shapes, f"one label for each place outside of axis {axis}")
        return tops(shapes[0])[: len(layer.tops)]

    return sizes


@layer("SoftmaxWithLoss", bottoms=2, tops=(1, 2), loss=True)
def softmax_loss(layer: Layer) -> Operation:
    """Mean of ``-log`` of the label's probability; the probabilities are a second top.

    SegNet weights each pixel by its class, and still divides by the number of pixels.
    """
    settings = layer.params.loss_param
    axis = layer.params.softmax_param.axis
    # On the wire SegNet's switch has the number of BVLC's normalization; no text has both words.
    weighted = settings.weight_by_label_freqs or settings.HasField("normalization")
    shares = torch.tensor(settings.class_weighting if weighted else [])

    def tops(shape: Shape) -> Sequence[Shape]:
        if shares.numel() not in (0, shape[axis]):
            raise misfit(layer, [shape], f"{shares.numel()} classes, as class_weighting has")
        return [(), shape]

    def run(_: Weights, bottoms: Sequence[Tensor]) -> Sequence[Tensor]:
        x = bottoms[0]
        scores, labels = _by_pixel(x, bottoms[1], axis)
        kept = _kept(labels, settings)
        _check_labels(layer, labels, scores.shape[1], kept)
        labels = labels.where(kept, 0)
        chances = functional.softmax(scores, 1)
        each = -torch.log(chances.gather(1, labels[:, None])[:, 0].clamp(min=SMALLEST))
        if shares.numel():
            each = each * shares.to(each)[labels]
        total = (each * kept).sum()
        loss = total / _divisor(layer, "VALID", scores.shape[0], kept)
        return [loss, chances.reshape(x.shape)][: len(layer.tops)]

    return Operation(_labelled(layer, axis, tops), run)


@layer("SigmoidCrossEntropyLoss", bottoms=2, loss=True)
def sigmoid_loss(layer: Layer) -> Operation:
    """Sum of the cross entropies of independent chances, divided by the batch by default."""
    settings = layer.params.loss_param

    def run(_: Weights, bottoms: Sequence[Tensor]) -> Sequence[Tensor]:
        x, target = bottoms[0], bottoms[1].reshape(bottoms[0].shape)
        kept = _kept(target.trunc(), settings)
        each = functional.binary_cross_entropy_with_logits(x, target, reduction="none")
        return [(each * kept).sum() / _divisor(layer, "BATCH_SIZE", x.shape[0], kept)]

    return Operation(_equal_counts(layer), run)


@layer("EuclideanLoss", bottoms=2, loss=True)
def euclidean_loss(layer: Layer) -> Operation:
    """Half the sum of squared differences, divided by the batch."""

    def run(_: Weights, bottoms: Sequence[Tensor]) -> Sequence[Tensor]:
        x, y = bottoms[0], bottoms[1].reshape(bottoms[0].shape)
        return [(x - y).square().sum() / x.shape[0] / 2]

    return Operation(_equal_counts(layer), run)


def _equal_counts(layer: Layer) -> Callable[[Sequence[Shape]], Sequence[Shape]]:
    def sizes(shapes: Sequence[Shape]) -> Sequence[Shape]:
        if not shapes[0] or prod(shapes[0]) != prod(shapes[1]):
            raise misfit(layer, shapes, "as many numbers in both")
        return [()]

    return sizes


@layer("HingeLoss", bottoms=2, loss=True)
def hinge_loss(layer: Layer) -> Operation:
    """Sum of what scores lack to a margin of 1, or of its squares, divided by the batch."""
    squared = HingeLossParameter.Norm.Name(layer.params.hinge_loss_param.norm) == "L2"

    def run(_: Weights, bottoms: Sequence[Tensor]) -> Sequence[Tensor]:
        scores = bottoms[0].flatten(1)
        labels = bottoms[1].reshape(-1, 1).trunc().long()
        _check_labels(layer, labels, scores.shape[1])
        signs = torch.ones_like(scores).scatter(1, labels, -1.0)
        lack = (1 + signs * scores).clamp(min=0)
        return [(lack.square() if squared else lack).sum() / scores.shape[0]]

    return Operation(_one_label_each(layer), run)


@layer("MultinomialLogisticLoss", bottoms=2, loss=True)
def multinomial_loss(layer: Layer) -> Operation:
    """Mean of ``-log`` of the label's probability, given probabilities."""

    def run(_: Weights, bottoms: Sequence[Tensor]) -> Sequence[Tensor]:
        chances = bottoms[0].flatten(1)
        labels = bottoms[1].reshape(-1, 1).trunc().long()
        _check_labels(layer, labels, chances.shape[1])
        chosen = chances.gather(1, labels).clamp(min=LOG_THRESHOLD)
        return [-torch.log(chosen).sum() / bottoms[0].shape[0]]

    return Operation(_one_label_each(layer), run)


def _one_label_each(layer: Layer) -> Callable[[Sequence[Shape]], Sequence[Shape]]:
    def sizes(shapes: Sequence[Shape]) -> Sequence[Shape]:
        if len(shapes[0]) < 2 or prod(shapes[1]) != shapes[0][0]:
            raise misfit(layer, shapes, "one label for each sample")
        return [()]

    return sizes


@layer("ContrastiveLoss", bottoms=3, loss=True)
def contrastive_loss(layer: Layer) -> Operation:
    """Half the mean of squared distances of equal pairs, and of what others lack to a margin."""
    settings = layer.params.contrastive_loss_param
    margin = settings.margin

    def sizes(shapes: Sequence[Shape]) -> Sequence[Shape]:
        if shapes[0] != shapes[1] or not shapes[0] or prod(shapes[2]) != shapes[0][0]:
            raise misfit(layer, shapes, "two equal shapes and one label for each sample")
        return [()]

    def run(_: Weights, bottoms: Sequence[Tensor]) -> Sequence[Tensor]:
        distance = (bottoms[0] - bottoms[1]).square().reshape(bottoms[0].shape[0], -1).sum(1)
        if settings.legacy_version:
            lack = (margin - distance).clamp(min=0)
        else:
            lack = (margin - distance.sqrt()).clamp(min=0).square()
        equal = bottoms[2].reshape(-1).trunc() != 0
        return [distance.where(equal, lack).sum() / bottoms[0].shape[0] / 2]

    return Operation(sizes, run)


@layer("Accuracy", bottoms=2, tops=(1, 2))
def accuracy(layer: Layer) -> Operation:
    """Share of labels among the ``top_k`` classes; each class's share as a second top.

    Of equal scores the later class comes first, as in the DeepLab fork's engine.
    """
    settings = layer.params.accuracy_param
    axis = settings.axis

    def run(_: Weights, bottoms: Sequence[Tensor]) -> Sequence[Tensor]:
        scores, labels = _by_pixel(bottoms[0], bottoms[1], axis)
        kept = _kept(labels, settings)
        _check_labels(layer, labels, scores.shape[1], kept)
        labels = labels.where(kept, 0)[:, None]
        own = scores.gather(1, labels)
        later = torch.arange(scores.shape[1], device=scores.device)[:, None] > labels
        rank = ((scores > own) | ((scores == own) & later)).sum(1)
        right = ((rank < settings.top_k) & kept).to(scores.dtype)
        total = kept.sum()
        tops = [right.sum() / total.clamp(min=1)]
        if len(layer.tops) == 2:
            sums, counts = (
                scores.new_zeros(scores.shape[1]).index_add(0, labels.flatten(), one.flatten())
                for one in (right, kept.to(scores.dtype))
            )
            tops.append(sums / counts.clamp(min=1))
        return tops

    def tops(shape: Shape) -> Sequence[Shape]:
        return [(), (shape[axis],)]

    return Operation(_labelled(layer, axis, tops), run)


@layer("SegAccuracy", bottoms=2)
def segmentation_accuracy(layer: Layer) -> Operation:
    """Pixel accuracy, mean recall and mean IoU of this batch, (1, 1, 1, 3).

    Recall is averaged over the classes that occur; IoU over all, 1 for a class that neither
    occurs nor is found.
    """
    settings = layer.params.seg_accuracy_param
    ignored = list(settings.ignore_label)
    if not settings.reset:
        raise wrong(layer, "reset: false sums over batches, expected true")

    def sizes(shapes: Sequence[Shape]) -> Sequence[Shape]:
        _labelled(layer, 1, lambda _: [()])(shapes)
        return [(1, 1, 1, 3)]

    def run(_: Weights, bottoms: Sequence[Tensor]) -> Sequence[Tensor]:
        scores, labels = _by_pixel(bottoms[0], bottoms[1], 1)
        classes = scores.shape[1]
        kept = torch.ones_like(labels, dtype=torch.bool)
        for label in ignored:
            kept = kept & (labels != label)
        _check_labels(layer, labels, classes, kept)
        found = largest(scores, 1, 1)[1][:, 0]
        cells = (labels.where(kept, 0) * classes + found).flatten()
        matrix = scores.new_zeros(classes * classes, dtype=torch.float64)
        matrix = matrix.index_add(0, cells, kept.flatten().double()).reshape(classes, classes)
        hits, rows, columns = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
        union = rows + columns - hits
        recall = (hits / rows.clamp(min=1)).sum() / (rows > 0).sum()
        iou = (hits / union.clamp(min=1)).where(union > 0, 1.0).mean()
        measures = torch.stack([hits.sum() / rows.sum(), recall, iou])
        return [measures.to(scores.dtype).reshape(1, 1, 1, 3)]

    return Operation(sizes, run)

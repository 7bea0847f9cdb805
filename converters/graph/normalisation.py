"""Layers that shift and scale: batch norms, Scale and Bias, LRN, MVN, Normalize."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ...proto.caffe_pb2 import BNParameter, LRNParameter, Phase
from ...proto.records import Layer
from .registry import (
    Operation,
    Shape,
    Wanted,
    Weights,
    axis_of,
    constant,
    layer,
    misfit,
    pointwise,
    wrong,
)

SEGNET_EPS = 1e-9


@layer("BatchNorm", in_place=True)
def batch_norm(layer: Layer) -> Operation:
    """Normalise by the stored statistics, or by the batch's own, which are then stored.

    The stored ones are divided by their factor when the weights are read. Of the batch's,
    Caffe keeps a running sum: ``sum * fraction + mean``, the variance unbiased.
    """
    settings = layer.params.batch_norm_param
    stored = layer.params.phase == Phase.Value("TEST")
    if settings.HasField("use_global_stats"):
        stored = settings.use_global_stats

    def blobs(shapes: Sequence[Shape]) -> Sequence[Wanted]:
        channels = shapes[0][1] if len(shapes[0]) > 1 else 1
        return [Wanted((size,), constant()) for size in (channels, channels, 1)]

    def run(weights: Weights, bottoms: Sequence[Tensor]) -> Sequence[Tensor]:
        x = bottoms[0] if bottoms[0].dim() > 1 else bottoms[0][:, None]
        if stored:
            y = functional.batch_norm(x, weights["mean"], weights["variance"], eps=settings.eps)
        else:
            fraction = settings.moving_average_fraction
            axes = [axis for axis in range(x.dim()) if axis != 1]
            variance, mean = torch.var_mean(x, axes, correction=0)
            y = functional.batch_norm(x, mean, variance, eps=settings.eps)
            with torch.no_grad():
                count = x.numel() // x.shape[1]
                unbiased = variance * (count / max(count - 1, 1))
                weights["mean_sum"].mul_(fraction).add_(mean)
                weights["variance_sum"].mul_(fraction).add_(unbiased)
                weights["factor"].mul_(fraction).add_(1)
        return [y.reshape(bottoms[0].shape)]

    roles = {"mean", "variance"} if stored else {"mean_sum", "variance_sum", "factor"}
    return Operation(_with_channels(layer, 1), run, blobs, roles=frozenset(roles))


@layer("BN", in_place=True)
def segnet_batch_norm(layer: Layer) -> Operation:
    """Scale and shift each channel (SegNet); in its LEARN mode after the batch's statistics."""
    settings = layer.params.bn_param
    learn = BNParameter.BNMode.Name(settings.bn_mode) == "LEARN"
    gamma = settings.scale_filler if settings.HasField("scale_filler") else constant(1)

    def sizes(shapes: Sequence[Shape]) -> Sequence[Shape]:
        if len(shapes[0]) != 4:
            raise misfit(layer, shapes, "four axes: batch, channels, height and width")
        return [shapes[0]]

    def run(weights: Weights, bottoms: Sequence[Tensor]) -> Sequence[Tensor]:
        x = bottoms[0]
        if learn:
            variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
            y = functional.batch_norm(
                x, mean, variance, weights["gamma"], weights["beta"], eps=SEGNET_EPS
            )
            return [y]
        gamma, beta = (weights[role].view(-1, 1, 1) for role in ("gamma", "beta"))
        return [torch.addcmul(beta, x, gamma)]

    def blobs(shapes: Sequence[Shape]) -> Sequence[Wanted]:
        shape = (1, shapes[0][1], 1, 1)
        return [Wanted(shape, gamma), Wanted(shape, settings.shift_filler)]

    return Operation(sizes, run, blobs)


def _covered(layer: Layer, shapes: Sequence[Shape], axis: int, count: int) -> tuple[int, Shape]:
    """Return where a Scale or Bias begins, and the shape of what it multiplies or adds."""
    begin = axis_of(layer, shapes, axis) if shapes[0] else 0
    if len(shapes) == 2:
        other = shapes[1]
        if shapes[0][begin : begin + len(other)] != other:
            raise misfit(layer, shapes, f"the second to be the first's shape from axis {axis}")
        return begin, other
    if count < -1 or begin + max(count, 0) > len(shapes[0]):
        raise misfit(layer, shapes, f"{count} axes from axis {axis}")
    return begin, shapes[0][begin:] if count == -1 else shapes[0][begin : begin + count]


def _aligned(value: Tensor, x: Tensor, axis: int) -> Tensor:
    """View a Scale's or Bias's values so that they broadcast from ``axis``."""
    begin = axis % x.dim() if x.dim() else 0
    return value.reshape(*value.shape, *[1] * (x.dim() - begin - value.dim()))


@layer("Scale", bottoms=(1, 2), in_place=True)
def scale(layer: Layer) -> Operation:
    """Multiply by gamma, or by the second bottom, from ``axis`` on; then add beta."""
    settings = layer.params.scale_param

    def sizes(shapes: Sequence[Shape]) -> Sequence[Shape]:
        _covered(layer, shapes, settings.axis, settings.num_axes)
        return [shapes[0]]

    def blobs(shapes: Sequence[Shape]) -> Sequence[Wanted]:
        shape = _covered(layer, shapes, settings.axis, settings.num_axes)[1]
        filler = settings.filler if settings.HasField("filler") else constant(1)
        wanted = [Wanted(shape, filler)] if len(shapes) == 1 else []
        if settings.bias_term:
            wanted.append(Wanted(shape, settings.bias_filler))
        return wanted

    def run(weights: Weights, bottoms: Sequence[Tensor]) -> Sequence[Tensor]:
        x = bottoms[0]
        gamma = weights["gamma"] if len(bottoms) == 1 else bottoms[1]
        gamma = _aligned(gamma, x, settings.axis)
        if not settings.bias_term:
            return [x * gamma]
        return [torch.addcmul(_aligned(weights["beta"], x, settings.axis), x, gamma)]

    return Operation(sizes, run, blobs)


@layer("Bias", bottoms=(1, 2), in_place=True)
def bias(layer: Layer) -> Operation:
    """Add a bias, or the second bottom, from ``axis`` on."""
    settings = layer.params.bias_param

    def sizes(shapes: Sequence[Shape]) -> Sequence[Shape]:
        _covered(layer, shapes, settings.axis, settings.num_axes)
        return [shapes[0]]

    def blobs(shapes: Sequence[Shape]) -> Sequence[Wanted]:
        shape = _covered(layer, shapes, settings.axis, settings.num_axes)[1]
        return [Wanted(shape, settings.filler)] if len(shapes) == 1 else []

    def run(weights: Weights, bottoms: Sequence[Tensor]) -> Sequence[Tensor]:
        added = weights["bias"] if len(bottoms) == 1 else bottoms[1]
        return [bottoms[0] + _aligned(added, bottoms[0], settings.axis)]

    return Operation(sizes, run, blobs)


@layer("LRN")
def local_response_norm(layer: Layer) -> Operation:
    """Divide by the activity of neighbouring channels, or of pixels within a channel.

    Across channels: ``k + alpha / n * sum``. Within one: ``1 + alpha * average``, where the
    padding counts and ``k`` is not used.
    """
    settings = layer.params.lrn_param
    size, alpha, beta = settings.local_size, settings.alpha, settings.beta
    if size % 2 == 0:
        raise wrong(layer, f"local_size {size}, expected an odd number")
    within = LRNParameter.NormRegion.Name(settings.norm_region) == "WITHIN_CHANNEL"

    def sizes(shapes: Sequence[Shape]) -> Sequence[Shape]:
        if len(shapes[0]) != 4:
            raise misfit(layer, shapes, "four axes: batch, channels, height and width")
        return [shapes[0]]

    def run(_: Weights, bottoms: Sequence[Tensor]) -> Sequence[Tensor]:
        x = bottoms[0]
        if not within:
            return [functional.local_response_norm(x, size, alpha, beta, settings.k)]
        average = functional.avg_pool2d(x * x, size, 1, size // 2)
        return [x * (1 + alpha * average) ** -beta]

    return Operation(sizes, run)


@layer("MVN", in_place=True)
def mean_variance_norm(layer: Layer) -> Operation:
    """Subtract the mean of each channel (or sample), divide by its deviation plus eps."""
    settings = layer.params.mvn_param

    def compute(x: Tensor) -> Tensor:
        rows = x.flatten(1 if settings.across_channels else min(2, x.dim() - 1))
        rows = rows - rows.mean(-1, keepdim=True)
        if settings.normalize_variance:
            rows = rows / ((rows * rows).mean(-1, keepdim=True).sqrt() + settings.eps)
        return rows.reshape(x.shape)

    return Operation(_with_channels(layer, 3), pointwise(compute).run)


@layer("Normalize")
def normalize(layer: Layer) -> Operation:
    """Divide by the norm over channels (and pixels), then scale each channel (SSD)."""
    settings = layer.params.norm_param
    filler = settings.scale_filler if settings.HasField("scale_filler") else constant(1)

    def blobs(shapes: Sequence[Shape]) -> Sequence[Wanted]:
        return [Wanted(() if settings.channel_shared else (shapes[0][1],), filler)]

    def run(weights: Weights, bottoms: Sequence[Tensor]) -> Sequence[Tensor]:
        x = bottoms[0]
        axes = tuple(range(1, x.dim())) if settings.across_spatial else (1,)
        norm = ((x * x).sum(axes, keepdim=True) + settings.eps).sqrt()
        scale = weights["weight"]
        return [x / norm * (scale if scale.dim() == 0 else _aligned(scale, x, 1))]

    return Operation(_with_channels(layer, 2), run, blobs)


def _with_channels(layer: Layer, rank: int) -> Callable[[Sequence[Shape]], Sequence[Shape]]:
    def sizes(shapes: Sequence[Shape]) -> Sequence[Shape]:
        if len(shapes[0]) < rank:
            raise misfit(layer, shapes, f"{rank} axes or more")
        return [shapes[0]]

    return sizes

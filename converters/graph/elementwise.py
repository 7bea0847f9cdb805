"""Layers that treat every number alike: activations, powers, sums of blobs, dropout."""

import math
from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional

from ...proto.caffe_pb2 import EltwiseParameter, Phase
from ...proto.records import Layer
from .registry import (
    MANY,
    Operation,
    Shape,
    Wanted,
    Weights,
    constant,
    layer,
    misfit,
    pointwise,
    same_sizes,
    wrong,
)


@layer("ReLU", in_place=True)
def relu(layer: Layer) -> Operation:
    """``max(x, 0) + slope * min(x, 0)``."""
    slope = layer.params.relu_param.negative_slope
    if slope == 0:
        return pointwise(functional.relu)
    return pointwise(lambda x: functional.leaky_relu(x, slope))


@layer("PReLU", in_place=True)
def prelu(layer: Layer) -> Operation:
    """ReLU with a learned slope for each channel, or one for all."""
    settings = layer.params.prelu_param
    filler = settings.filler if settings.HasField("filler") else constant(0.25)

    def sizes(shapes: Sequence[Shape]) -> Sequence[Shape]:
        if len(shapes[0]) < 2:
            raise misfit(layer, shapes, "at least two axes")
        return [shapes[0]]

    def blobs(shapes: Sequence[Shape]) -> Sequence[Wanted]:
        return [Wanted(() if settings.channel_shared else (shapes[0][1],), filler)]

    def run(weights: Weights, bottoms: Sequence[Tensor]) -> Sequence[Tensor]:
        return [functional.prelu(bottoms[0], weights["weight"].reshape(-1))]

    return Operation(sizes, run, blobs)


@layer("ELU", in_place=True)
def elu(layer: Layer) -> Operation:
    """``x`` above zero, ``alpha * (exp(x) - 1)`` below."""
    alpha = layer.params.elu_param.alpha
    return pointwise(lambda x: functional.elu(x, alpha))


@layer("Sigmoid", in_place=True)
def sigmoid(_: Layer) -> Operation:
    """``1 / (1 + exp(-x))``."""
    return pointwise(torch.sigmoid)


@layer("TanH", in_place=True)
def tanh(_: Layer) -> Operation:
    """Hyperbolic tangent."""
    return pointwise(torch.tanh)


@layer("Swish", in_place=True)
def swish(layer: Layer) -> Operation:
    """``x * sigmoid(beta * x)``."""
    beta = layer.params.swish_param.beta
    return pointwise(lambda x: x * torch.sigmoid(beta * x))


@layer("BNLL", in_place=True)
def bnll(_: Layer) -> Operation:
    """``log(1 + exp(x))``, without overflow."""
    return pointwise(lambda x: x.clamp(min=0) + torch.log1p(torch.exp(-x.abs())))


@layer("AbsVal", in_place=True)
def absval(_: Layer) -> Operation:
    """Absolute value."""
    return pointwise(torch.abs)


@layer("Clip", in_place=True)
def clip(layer: Layer) -> Operation:
    """Bring values into ``min..max``."""
    settings = layer.params.clip_param
    return pointwise(lambda x: x.clamp(settings.min, settings.max))


@layer("Threshold", in_place=True)
def threshold(layer: Layer) -> Operation:
    """1 above the threshold, 0 at it and below."""
    limit = layer.params.threshold_param.threshold
    return pointwise(lambda x: (x > limit).to(x.dtype))


@layer("Power", in_place=True)
def power(layer: Layer) -> Operation:
    """``(shift + scale * x) ** power``; all ones for power 0."""
    settings = layer.params.power_param
    exponent, scale, shift = settings.power, settings.scale, settings.shift

    def compute(x: Tensor) -> Tensor:
        if exponent == 0:
            return torch.ones_like(x)
        if scale != 1:
            x = x * scale
        if shift != 0:
            x = x + shift
        return x if exponent == 1 else x**exponent

    return pointwise(compute)


@layer("Exp", in_place=True)
def exp(layer: Layer) -> Operation:
    """Raise a base to ``shift + scale * x``; base -1 is e."""
    settings = layer.params.exp_param
    rate = _logarithm(layer, settings.base)
    inner, shift = rate * settings.scale, rate * settings.shift
    try:
        outer = math.exp(shift)
    except OverflowError:
        raise wrong(layer, f"shift {settings.shift}, whose power is beyond every number") from None
    return pointwise(lambda x: torch.exp(inner * x) * outer)


@layer("Log", in_place=True)
def log(layer: Layer) -> Operation:
    """Logarithm of ``shift + scale * x`` to a base; base -1 is e."""
    settings = layer.params.log_param
    rate = _logarithm(layer, settings.base)
    return pointwise(lambda x: torch.log(settings.scale * x + settings.shift) / rate)


def _logarithm(layer: Layer, base: float) -> float:
    if base != -1 and base <= 0:
        raise wrong(layer, f"base {base}, expected more than 0, or -1 for e")
    rate = 1.0 if base == -1 else math.log(base)
    if rate == 0:
        raise wrong(layer, "base 1, expected another")
    return rate


@layer("Dropout", in_place=True)
def dropout(layer: Layer) -> Operation:
    """Nothing in the TEST phase; in TRAIN, drop a share and scale up the rest."""
    settings = layer.params.dropout_param
    ratio = settings.dropout_ratio
    if not 0 <= ratio < 1:  # 0 is legal to Caffe but for its debug build, and switches it off.
        raise wrong(layer, f"dropout_ratio {ratio}, expected between 0 and 1")
    if settings.sample_weights_test:
        raise wrong(layer, "sample_weights_test drops at random in the TEST phase, expected false")
    if layer.params.phase == Phase.Value("TEST"):
        return pointwise(lambda x: x)
    return pointwise(lambda x: functional.dropout(x, ratio))


@layer("Split", tops=(1, MANY), in_place=True)
def split(layer: Layer) -> Operation:
    """Give the bottom to every top."""
    count = len(layer.tops)
    return Operation(lambda shapes: [shapes[0]] * count, lambda _, bottoms: [bottoms[0]] * count)


@layer("Silence", bottoms=(1, MANY), tops=0)
def silence(_: Layer) -> Operation:
    """Take blobs away from the outputs."""
    return Operation(lambda _: (), lambda _weights, _bottoms: ())


@layer("Eltwise", bottoms=(2, MANY), in_place=True)
def eltwise(layer: Layer) -> Operation:
    """Multiply, add (with coefficients) or take the maximum of equal shapes."""
    settings = layer.params.eltwise_param
    method = EltwiseParameter.EltwiseOp.Name(settings.operation)
    factors = list(settings.coeff)
    if factors and len(factors) != len(layer.bottoms):
        raise wrong(layer, f"{len(factors)} coeff for {len(layer.bottoms)} bottoms")
    if factors and method != "SUM":
        raise wrong(layer, f"coeff with {method}, expected with SUM only")
    if method == "SUM" and layer.tops[0] in layer.bottoms:
        raise wrong(layer, "a SUM in place: Caffe clears the top before it reads the bottom")
    if all(factor == 1 for factor in factors):
        factors = []

    def sizes(shapes: Sequence[Shape]) -> Sequence[Shape]:
        if any(shape != shapes[0] for shape in shapes):
            raise misfit(layer, shapes, "equal shapes")
        return same_sizes(shapes)

    def run(_: Weights, bottoms: Sequence[Tensor]) -> Sequence[Tensor]:
        if method == "MAX":
            return [reduce(torch.maximum, bottoms)]
        if method == "PROD":
            return [reduce(torch.mul, bottoms)]
        if not factors:
            return [reduce(torch.add, bottoms)]
        total = bottoms[0] * factors[0]
        for x, factor in zip(bottoms[1:], factors[1:], strict=True):
            total = torch.add(total, x, alpha=factor)
        return [total]

    return Operation(sizes, run)


@layer("Softmax", in_place=True)
def softmax(layer: Layer) -> Operation:
    """Probabilities along an axis."""
    axis = layer.params.softmax_param.axis

    def sizes(shapes: Sequence[Shape]) -> Sequence[Shape]:
        if not -len(shapes[0]) <= axis < len(shapes[0]):
            raise misfit(layer, shapes, f"an axis {axis}")
        return same_sizes(shapes)

    return Operation(sizes, lambda _, bottoms: [functional.softmax(bottoms[0], axis)])

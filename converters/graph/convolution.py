"""Layers that multiply with weights: convolutions, inner product, embedding."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from operator import ge

import torch
from torch import Tensor
from torch.nn import functional

from ...proto.caffe_pb2 import ConvolutionParameter
from ...proto.records import Layer
from ..caffe_sizes import convolved
from .registry import MANY, Operation, Shape, Wanted, Weights, axis_of, layer, misfit, wrong

_FORWARD = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}


@dataclass(frozen=True)  # No slots: cached properties need a dict.
class Window:
    """A kernel's geometry, one number for each spatial axis."""

    kernel: Shape
    stride: Shape
    pad: Shape
    dilation: Shape

    @cached_property
    def extent(self) -> Shape:
        """How many pixels the dilated kernel spans."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    @cached_property
    def least(self) -> Shape:
        """The sizes that the kernel fits into."""
        return tuple(n - 2 * p for n, p in zip(self.extent, self.pad, strict=True))


def _per_axis(layer: Layer, name: str, pair: str, rank: int, default: int) -> Shape:
    """Read a repeated setting, or its pair for height and width, for each spatial axis."""
    settings = layer.params.convolution_param
    values = list(getattr(settings, name))
    if pair and (settings.HasField(f"{pair}_h") or settings.HasField(f"{pair}_w")):
        if values or rank != 2:
            raise wrong(layer, f"{pair}_h and {pair}_w, expected them alone and for two axes")
        values = [getattr(settings, f"{pair}_h"), getattr(settings, f"{pair}_w")]
    if not values and name != "kernel_size":
        values = [default]
    if len(values) not in (1, rank):
        raise wrong(layer, f"{len(values)} values of {name}, expected 1 or {rank}")
    return tuple(values * (rank if len(values) == 1 else 1))


def _window(layer: Layer, rank: int) -> Window:
    window = Window(
        _per_axis(layer, "kernel_size", "kernel", rank, 0),
        _per_axis(layer, "stride", "stride", rank, 1),
        _per_axis(layer, "pad", "pad", rank, 0),
        _per_axis(layer, "dilation", "", rank, 1),
    )
    if 0 in (*window.kernel, *window.stride, *window.dilation):
        raise wrong(layer, "a kernel, stride or dilation of 0, expected at least 1")
    return window


def _checked(layer: Layer, shapes: Sequence[Shape], axis: int) -> None:
    settings = layer.params.convolution_param
    at = axis_of(layer, shapes, axis)
    if any(shape[: at + 1] != shapes[0][: at + 1] for shape in shapes):
        raise misfit(layer, shapes, "equal batches and channels")
    if shapes[0][at] % settings.group:
        raise misfit(layer, shapes, f"channels that {settings.group} groups divide")
    if not 1 <= len(shapes[0]) - at - 1 <= 3:
        raise misfit(layer, shapes, "one to three spatial axes")


def _settings(layer: Layer) -> ConvolutionParameter:
    settings = layer.params.convolution_param
    if not settings.num_output or not settings.group:
        raise wrong(layer, "no num_output or no group, expected at least 1")
    if settings.num_output % settings.group:
        raise wrong(layer, f"{settings.num_output} outputs, {settings.group} groups do not divide")
    if len(layer.bottoms) != len(layer.tops):
        raise wrong(layer, f"{len(layer.bottoms)} bottoms and {len(layer.tops)} tops")
    return settings


def _operation(
    layer: Layer,
    size: Callable[[int, int, int, int], int],
    weight: Callable[[int, Shape], Shape],
    compute: Callable[[Weights, Tensor, Window], Tensor],
) -> Operation:
    """Put together what both directions have in common: axes, groups, bias, many bottoms."""
    settings = _settings(layer)

    def sizes(shapes: Sequence[Shape]) -> Sequence[Shape]:
        _checked(layer, shapes, settings.axis)
        at = axis_of(layer, shapes, settings.axis)
        window = _window(layer, len(shapes[0]) - at - 1)
        each = list(zip(window.extent, window.stride, window.pad, strict=True))
        return [
            (
                *shape[:at],
                settings.num_output,
                *(size(n, *one) for n, one in zip(shape[at + 1 :], each, strict=True)),
            )
            for shape in shapes
        ]

    def blobs(shapes: Sequence[Shape]) -> Sequence[Wanted]:
        _checked(layer, shapes, settings.axis)
        at = axis_of(layer, shapes, settings.axis)
        window = _window(layer, len(shapes[0]) - at - 1)
        shape = weight(shapes[0][at], window.kernel)
        wanted = [Wanted(shape, settings.weight_filler)]
        if settings.bias_term:
            wanted.append(Wanted((settings.num_output,), settings.bias_filler))
        return wanted

    windows: dict[int, Window] = {}

    def run(weights: Weights, bottoms: Sequence[Tensor]) -> Sequence[Tensor]:
        tops = []
        for x in bottoms:
            at = settings.axis % x.dim()
            rank = x.dim() - at - 1
            if rank not in windows:
                windows[rank] = _window(layer, rank)
            batch = x if at == 1 else x.reshape(-1, *x.shape[at:])
            y = compute(weights, batch, windows[rank])
            tops.append(y if at == 1 else y.reshape(*x.shape[:at], *y.shape[1:]))
        return tops

    return Operation(sizes, run, blobs)


@layer("Convolution", bottoms=(1, MANY), tops=(1, MANY))
def convolution(layer: Layer) -> Operation:
    """Convolve; weight (out, in / group, kernel...), bias (out,)."""
    group, outputs = layer.params.convolution_param.group, layer.params.convolution_param.num_output

    def compute(weights: Weights, x: Tensor, window: Window) -> Tensor:
        if not torch.compiler.is_compiling():
            x = _completed(x, window)
        rank = len(window.kernel)
        return _FORWARD[rank](
            x,
            weights["weight"],
            weights.get("bias"),
            window.stride,
            window.pad,
            window.dilation,
            group,
        )

    return _operation(
        layer, convolved, lambda channels, kernel: (outputs, channels // group, *kernel), compute
    )


def _completed(x: Tensor, window: Window) -> Tensor:
    """Pad an input that a kernel overhangs; C's division gives it one output all the same."""
    sizes = x.shape[-len(window.pad) :]
    if all(map(ge, sizes, window.least)):
        return x
    lacks = [max(0, least - size) for size, least in zip(sizes, window.least, strict=True)]
    return functional.pad(x, [amount for lack in reversed(lacks) for amount in (0, lack)])


@layer("Deconvolution", bottoms=(1, MANY), tops=(1, MANY))
def deconvolution(layer: Layer) -> Operation:
    """Convolve backwards; weight (in, out / group, kernel...), bias (out,)."""
    group, outputs = layer.params.convolution_param.group, layer.params.convolution_param.num_output

    def compute(weights: Weights, x: Tensor, window: Window) -> Tensor:
        rank = len(window.kernel)
        return _TRANSPOSED[rank](
            x,
            weights["weight"],
            weights.get("bias"),
            window.stride,
            window.pad,
            0,
            group,
            window.dilation,
        )

    return _operation(
        layer,
        lambda n, extent, stride, pad: stride * (n - 1) + extent - 2 * pad,
        lambda channels, kernel: (channels, outputs // group, *kernel),
        compute,
    )


@layer("InnerProduct")
def inner_product(layer: Layer) -> Operation:
    """Multiply what follows ``axis`` with a matrix (out, in), or (in, out) with ``transpose``."""
    settings = layer.params.inner_product_param
    if not settings.num_output:
        raise wrong(layer, "no num_output, expected at least 1")

    def sizes(shapes: Sequence[Shape]) -> Sequence[Shape]:
        at = axis_of(layer, shapes, settings.axis)
        return [(*shapes[0][:at], settings.num_output)]

    def blobs(shapes: Sequence[Shape]) -> Sequence[Wanted]:
        inputs = prod(shapes[0][axis_of(layer, shapes, settings.axis) :])
        matrix = (settings.num_output, inputs)
        wanted = [Wanted(matrix[::-1] if settings.transpose else matrix, settings.weight_filler)]
        if settings.bias_term:
            wanted.append(Wanted((settings.num_output,), settings.bias_filler))
        return wanted

    def run(weights: Weights, bottoms: Sequence[Tensor]) -> Sequence[Tensor]:
        x = bottoms[0]
        rows = x.flatten(settings.axis % x.dim())
        return [functional.linear(rows, weights["weight"], weights.get("bias"))]

    return Operation(sizes, run, blobs)


@layer("Embed")
def embed(layer: Layer) -> Operation:
    """Look numbers up in a table (input_dim, out)."""
    settings = layer.params.embed_param
    if not settings.num_output or not settings.input_dim:
        raise wrong(layer, "no num_output or no input_dim, expected at least 1")

    def blobs(_: Sequence[Shape]) -> Sequence[Wanted]:
        wanted = [Wanted((settings.input_dim, settings.num_output), settings.weight_filler)]
        if settings.bias_term:
            wanted.append(Wanted((settings.num_output,), settings.bias_filler))
        return wanted

    def run(weights: Weights, bottoms: Sequence[Tensor]) -> Sequence[Tensor]:
        rows = functional.embedding(bottoms[0].long(), weights["weight"])
        return [rows + weights["bias"] if settings.bias_term else rows]

    return Operation(lambda shapes: [(*shapes[0], settings.num_output)], run, blobs)

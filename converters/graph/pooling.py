"""Pooling by Caffe's rules, and SegNet's Upsample, which undoes it by the masks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from ...proto.caffe_pb2 import PoolingParameter
from ...proto.records import Layer
from .registry import Operation, Shape, Weights, layer, misfit, wrong

LOWEST = torch.finfo(torch.float32).min


@dataclass(frozen=True, slots=True)
class Window:
    """The geometry of a pooling, (height, width) each."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int]
    ceil: bool

    def out(self, size: int, axis: int) -> int:
        """Return an axis' output size.

        With any padding the last window must begin before the padding at the end; without,
        nothing is clipped and a window may lie outside the input altogether.
        """
        kernel, stride, pad = self.kernel[axis], self.stride[axis], self.pad[axis]
        room = size + 2 * pad - kernel
        count = (-(-room // stride) if self.ceil else room // stride) + 1
        if any(self.pad):
            clipped = -(-(size + pad) // stride)
            return cast(int, torch.sym_min(count, clipped))  # type: ignore[no-untyped-call]
        return count

    @property
    def plain(self) -> bool:
        """Whether every engine's pooling has the same sizes: half padding, no window dropped."""
        axes = zip(self.kernel, self.stride, self.pad, strict=True)
        return all(2 * p <= k and s + p <= k for k, s, p in axes)


def _pair(layer: Layer, name: str, pair: str, *, required: bool = False) -> tuple[int, int]:
    """Read a setting that is one number, or two for height and width."""
    settings = layer.params.pooling_param
    single = settings.HasField(name)
    high, wide = settings.HasField(f"{pair}_h"), settings.HasField(f"{pair}_w")
    if high != wide or (single and high):
        raise wrong(layer, f"{name} or else {pair}_h and {pair}_w, not both nor one of them")
    if high:
        return getattr(settings, f"{pair}_h"), getattr(settings, f"{pair}_w")
    if not single and required:
        raise wrong(layer, "no kernel, expected kernel_size or kernel_h and kernel_w")
    value: int = getattr(settings, name)
    return value, value


def _window(layer: Layer) -> Window | None:
    """Read the geometry; None is global pooling."""
    settings = layer.params.pooling_param
    stride, pad = _pair(layer, "stride", "stride"), _pair(layer, "pad", "pad")
    if settings.global_pooling:
        if any(map(settings.HasField, ("kernel_size", "kernel_h", "kernel_w"))):
            raise wrong(layer, "global_pooling and a kernel, expected one of them")
        if any(pad) or stride != (1, 1):
            raise wrong(layer, "global_pooling with pad or stride, expected 0 and 1")
        return None
    kernel = _pair(layer, "kernel_size", "kernel", required=True)
    if 0 in kernel or 0 in stride:
        raise wrong(layer, "a kernel or stride of 0, expected at least 1")
    if any(p >= k for p, k in zip(pad, kernel, strict=True)):
        raise wrong(layer, f"pad {list(pad)}, expected less than the kernel {list(kernel)}")
    ceil = PoolingParameter.RoundMode.Name(settings.round_mode) == "CEIL"
    return Window(kernel, stride, pad, ceil)


@layer("Pooling", tops=(1, 2))
def pooling(layer: Layer) -> Operation:
    """Take the maximum (with its index as a second top) or the average of windows."""
    window = _window(layer)
    method = PoolingParameter.PoolMethod.Name(layer.params.pooling_param.pool)
    if method == "STOCHASTIC":
        raise wrong(layer, "STOCHASTIC pooling is random, expected MAX or AVE")
    masked = len(layer.tops) == 2
    if masked and method != "MAX":
        raise wrong(layer, "a second top, expected it of MAX pooling only")

    def sizes(shapes: Sequence[Shape]) -> Sequence[Shape]:
        if len(shapes[0]) != 4:
            raise misfit(layer, shapes, "four axes: batch, channels, height and width")
        batch, channels, height, width = shapes[0]
        out = (1, 1) if window is None else (window.out(height, 0), window.out(width, 1))
        return [(batch, channels, *out)] * len(layer.tops)

    def run(_: Weights, bottoms: Sequence[Tensor]) -> Sequence[Tensor]:
        x = bottoms[0]
        if window is None:
            return _global(x, method, masked=masked)
        if method == "AVE":
            return [_average(x, window)]
        if masked:
            return _maximum_and_mask(x, window)
        return [_maximum(x, window)]

    return Operation(sizes, run)


def _global(x: Tensor, method: str, *, masked: bool) -> Sequence[Tensor]:
    if method == "AVE":
        return [x.mean((2, 3), keepdim=True)]
    if not masked:
        return [x.amax((2, 3), keepdim=True)]
    top, index = x.flatten(2).max(2, keepdim=True)
    return [top[..., None], index[..., None].to(x.dtype)]


def _padded(x: Tensor, window: Window, value: float) -> Tensor:
    """Give every window all its pixels; those beyond the input have ``value``."""
    amounts = []
    for axis in (1, 0):
        size, begin = x.shape[2 + axis], window.pad[axis]
        covered = (window.out(size, axis) - 1) * window.stride[axis] + window.kernel[axis]
        amounts += [begin, covered - size - begin]
    return functional.pad(x, amounts, value=value)


def _maximum(x: Tensor, window: Window) -> Tensor:
    if window.plain:
        return functional.max_pool2d(
            x, window.kernel, window.stride, window.pad, ceil_mode=window.ceil
        )
    return functional.max_pool2d(_padded(x, window, _lowest(x)), window.kernel, window.stride)


def _lowest(x: Tensor) -> float:
    """Return what Caffe begins a maximum with, or the lowest that a narrower type has."""
    return max(LOWEST, torch.finfo(x.dtype).min)


def _maximum_and_mask(x: Tensor, window: Window) -> Sequence[Tensor]:
    """Return the maxima and where they are: row * width + column, of equals the first."""
    wide = _padded(x, window, _lowest(x))
    top, index = functional.max_pool2d(wide, window.kernel, window.stride, return_indices=True)
    row = index // wide.shape[3] - window.pad[0]
    column = index % wide.shape[3] - window.pad[1]
    place = row * x.shape[3] + column
    # A maximum in the padding is that of an empty window, for which Caffe writes -1.
    outside = (row < 0) | (row >= x.shape[2]) | (column < 0) | (column >= x.shape[3])
    return [top, place.masked_fill(outside, -1).to(x.dtype)]


def _average(x: Tensor, window: Window) -> Tensor:
    """Divide each sum by the window's size within the input and its padding."""
    if window.plain:
        return functional.avg_pool2d(
            x, window.kernel, window.stride, window.pad, ceil_mode=window.ceil
        )
    # Not by a divisor of torch's: its ONNX exporter drops that without a word.
    means = functional.avg_pool2d(_padded(x, window, 0), window.kernel, window.stride)
    high, wide = (_counts(x, window, axis) for axis in (0, 1))
    return means * (math.prod(window.kernel) / (high[:, None] * wide))


def _counts(x: Tensor, window: Window, axis: int) -> Tensor:
    """Return for each window along an axis how many pixels it has, by Caffe's formula.

    That is 0 or less for a window outside the input, whose sum 0 becomes NaN or -0.
    """
    size, pad = x.shape[2 + axis], window.pad[axis]
    begin = torch.arange(window.out(size, axis), device=x.device) * window.stride[axis] - pad
    end = (begin + window.kernel[axis]).clamp(max=size + pad)
    return (end - begin).to(x.dtype)


@layer("Upsample", bottoms=2)
def upsample(layer: Layer) -> Operation:
    """Put each value back where the pooling's mask says, zeros elsewhere (SegNet)."""
    settings = layer.params.upsample_param
    sized = settings.HasField("upsample_h") and settings.HasField("upsample_w")
    scales = (
        settings.scale_h if settings.HasField("scale_h") else settings.scale,
        settings.scale_w if settings.HasField("scale_w") else settings.scale,
    )
    trims = int(settings.pad_out_h), int(settings.pad_out_w)

    def out(height: int, width: int) -> tuple[int, int]:
        if sized:
            return settings.upsample_h, settings.upsample_w
        return height * scales[0] - trims[0], width * scales[1] - trims[1]

    def sizes(shapes: Sequence[Shape]) -> Sequence[Shape]:
        if len(shapes[0]) != 4 or shapes[0] != shapes[1]:
            raise misfit(layer, shapes, "four axes, and a mask of the same shape")
        return [(*shapes[0][:2], *out(*shapes[0][2:]))]

    def run(_: Weights, bottoms: Sequence[Tensor]) -> Sequence[Tensor]:
        x, mask = bottoms
        height, width = out(x.shape[2], x.shape[3])
        flat = x.new_zeros(x.shape[0], x.shape[1], height * width)
        flat = flat.scatter(2, mask.flatten(2).long(), x.flatten(2))
        return [flat.reshape(x.shape[0], x.shape[1], height, width)]

    return Operation(sizes, run)

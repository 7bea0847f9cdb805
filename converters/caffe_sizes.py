"""Caffe's rules for the height and width of a layer's output."""

from typing import Any

from ..proto.caffe_pb2 import InterpParameter, PoolingParameter
from ..proto.errors import FormatError
from ..proto.records import Layer

Size = tuple[int, int]


def output_size(layer: Layer, size: Size) -> Size:
    """Return the height and width of a layer's output, by Caffe's rules."""
    if layer.type == "Convolution":
        settings = layer.params.convolution_param
        axes = zip(
            size,
            spatial(settings, "kernel_size", 0, "kernel"),
            spatial(settings, "stride", 1, "stride"),
            spatial(settings, "pad", 0, "pad"),
            spatial(settings, "dilation", 1),
            strict=True,
        )
        height, width = (convolved(n, d * (k - 1) + 1, s, p) for n, k, s, p, d in axes)
        return height, width
    if layer.type == "Pooling":
        return _pooled(layer, size)
    if layer.type == "Interp":
        return interp_size(layer.params.interp_param, size)
    return size


def convolved(size: int, extent: int, stride: int, pad: int) -> int:
    """Return a convolution's output size for a kernel's extent."""
    return divided(size + 2 * pad - extent, stride) + 1


def divided(room: int, stride: int) -> int:
    """Divide as C does, towards zero: a kernel that overhangs by less than a stride counts."""
    return room // stride if room >= 0 else -(-room // stride)


def _pooled(layer: Layer, size: Size) -> Size:
    settings = layer.params.pooling_param
    if settings.global_pooling:
        return 1, 1
    kernel = spatial(settings, "kernel_size", 0, "kernel")
    stride = spatial(settings, "stride", 1, "stride")
    pad = spatial(settings, "pad", 0, "pad")
    floor = settings.round_mode == PoolingParameter.FLOOR
    out = []
    for n, k, s, p in zip(size, kernel, stride, pad, strict=True):
        room = n + 2 * p - k
        count = (divided(room, s) if floor else -(-room // s)) + 1
        if any(pad) and (count - 1) * s >= n + p:
            count -= 1
        out.append(count)
    return out[0], out[1]


def interp_size(settings: InterpParameter, size: Size) -> Size:
    """Return an Interp's output size; its pads are zero or negative, they crop."""
    effective = [n + settings.pad_beg + settings.pad_end for n in size]
    if sized_by_numbers(settings):
        return settings.height, settings.width
    if not (has(settings, "zoom_factor") or has(settings, "shrink_factor")):
        raise FormatError("Interp: no size and no factor, expected height and width or a factor")
    shrunk = [(n - 1) // settings.shrink_factor + 1 for n in effective]
    height, width = (n + (n - 1) * (settings.zoom_factor - 1) for n in shrunk)
    return height, width


def sized_by_numbers(settings: InterpParameter) -> bool:
    """Tell whether height and width rule: a lone factor beats them, both together do not."""
    alone = has(settings, "zoom_factor") != has(settings, "shrink_factor")
    return bool(settings.height and settings.width and not alone)


def spatial(settings: Any, name: str, default: int, pair: str = "") -> tuple[int, int]:
    """Read a setting per axis (height, width): one value, two, or ``pair_h``, ``pair_w``."""
    if pair and (has(settings, f"{pair}_h") or has(settings, f"{pair}_w")):
        return getattr(settings, f"{pair}_h"), getattr(settings, f"{pair}_w")
    value = getattr(settings, name)
    values = [value] if isinstance(value, int) else list(value)
    if isinstance(value, int) and not has(settings, name):
        values = []
    if len(values) > 2:
        raise FormatError(f"{name}: {len(values)} values, expected one or two (height, width)")
    return (values[0], values[-1]) if values else (default, default)


def has(settings: Any, name: str) -> bool:
    """Tell whether a field is set, and not merely has a default."""
    return bool(settings.HasField(name))

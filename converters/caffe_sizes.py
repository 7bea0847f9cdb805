"""Caffe's rules for the height and width of a layer's output."""

from typing import Any

from ..proto.caffe_pb2 import InterpParameter
from ..proto.errors import FormatError

Size = tuple[int, int]


def convolved(size: int, extent: int, stride: int, pad: int) -> int:
    """Return a convolution's output size for a kernel's extent."""
    return divided(size + 2 * pad - extent, stride) + 1


def divided(room: int, stride: int) -> int:
    """Divide as C does, towards zero: a kernel that overhangs by less than a stride counts."""
    return room // stride if room >= 0 else -(-room // stride)


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

"""Padding and resizing, each as the numerics profile says."""

from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor
from torch.nn import functional

from ...converters.numerics import Numerics
from ...proto.errors import MismatchError


def pad_same(x: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """Pad (batch, channels, h, w) as TensorFlow's SAME does, the larger half at the end."""
    amounts = []
    for size in reversed(x.shape[-2:]):
        # (ceil(size / stride) - 1) stride + kernel - size; short, as size may be symbolic.
        total = max(kernel - 1 - (size - 1) % stride, 0)
        amounts += [total // 2, total - total // 2]
    return functional.pad(x, amounts, value=value)


def scaled(image: Tensor, scale: float, numerics: Numerics) -> Tensor:
    """Resize an image (batch, 3, h, w) to a scale of a multi-scale net.

    Raises
    ------
    MismatchError
        Nothing is left of the image.

    """
    if scale == 1:
        return image
    factor = Fraction(scale).limit_denominator(64)
    zoom, shrink = factor.numerator, factor.denominator
    height, width = image.shape[-2:]
    if numerics.scaled_size == "interp":
        size = zoom * ((height - 1) // shrink) + 1, zoom * ((width - 1) // shrink) + 1
    else:
        size = height * zoom // shrink, width * zoom // shrink
    if min(size) < 1:
        raise MismatchError(
            f"image: {height} x {width} pixels, too small for the scale {scale} of {numerics.name}."
        )
    if numerics.resize == "half_pixel":  # Given a factor, torch uses it and not in / out.
        return functional.interpolate(
            image, scale_factor=scale, mode="bilinear", align_corners=False
        )
    return resize(image, size, numerics)


def resize(x: Tensor, size: Sequence[int], numerics: Numerics) -> Tensor:
    """Resize (batch, channels, h, w) bilinearly on the profile's grid."""
    height, width = size
    if x.shape[-2:] == torch.Size((height, width)):
        return x
    if numerics.resize != "top_left":
        corners = numerics.resize == "align_corners"
        return functional.interpolate(
            x, size=(height, width), mode="bilinear", align_corners=corners
        )
    top, bottom, down = _top_left(x.shape[-2], height, x)
    left, right, across = _top_left(x.shape[-1], width, x)
    # In TensorFlow's order: along the rows first.
    columns = torch.lerp(x[..., left], x[..., right], across)
    return torch.lerp(columns[..., top, :], columns[..., bottom, :], down[:, None])


def _top_left(size: int, target: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the two neighbours of each target pixel and the weight of the second."""
    scale = torch.full((), size / target, dtype=torch.float32, device=like.device)
    source = torch.arange(target, dtype=torch.float32, device=like.device) * scale
    low = source.floor()
    first = low.long().clamp(max=size - 1)
    return first, (first + 1).clamp(max=size - 1), (source - low).to(like.dtype)

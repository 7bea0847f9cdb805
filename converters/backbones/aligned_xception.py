"""Aligned Xception-65 of jfzhang95 (and rloss).

Source: Chen et al., "Encoder-Decoder with Atrous Separable Convolution", figure 4;
modeling/backbone/xception.py. Between the depthwise and the pointwise convolution stands a batch
norm and no ReLU. The ReLU that begins a block works in place there, so the shortcut sees its
result too.
"""

from collections.abc import Callable

from ..units import Activation, Backbone, Chain, Conv, Residual, Unit, separable

MIDDLE = 16  # Equal blocks between the three of the entry and the one of the exit.


def aligned_xception(output_stride: int, width: Callable[[int], int]) -> Backbone:
    """Return an aligned Xception-65; ``width`` tells how many channels there are of a number."""
    step, rate = (2, 1) if output_stride == 16 else (1, 2)
    low, entry, inner, outer = width(128), width(256), width(728), width(1024)
    parts: list[tuple[str, Unit]] = [
        ("stem0", Conv(3, width(32), 3, 2)),
        ("stem1", Conv(width(32), width(64), 3)),
        ("block1", _block(width(64), (low,) * 3, stride=2, first=None, last="relu")),
        ("block2", _block(low, (entry,) * 3, stride=2, first=None)),
        ("block3", _block(entry, (inner,) * 3, stride=step)),
    ]
    middle = _block(inner, (inner,) * 3, rates=(rate,) * 3)
    parts += [(f"block{index}", middle) for index in range(4, 4 + MIDDLE)]
    exit_block = _block(inner, (inner, outer, outer), rates=(rate, rate, 1), last="relu")
    parts.append((f"block{4 + MIDDLE}", exit_block))
    inputs = outer
    for index, channels in enumerate((1536, 1536, 2048), 3):
        outputs = width(channels)
        parts.append((f"exit{index}", separable(inputs, outputs, rate=2 * rate, inner=None)))
        inputs = outputs
    side = f"block{3 + MIDDLE}"
    return Backbone(Chain(tuple(parts)), "block1", low, side, inner, inputs)


def _block(
    inputs: int,
    channels: tuple[int, int, int],
    *,
    stride: int = 1,
    rates: tuple[int, int, int] = (1, 1, 1),
    first: Activation | None = "relu",
    last: Activation | None = None,
) -> Residual:
    """Return three separable convolutions, the last of them strided, and a shortcut."""
    parts = []
    before = inputs
    for index, (outputs, rate) in enumerate(zip(channels, rates, strict=True)):
        step = stride if index == 2 else 1
        outer: Activation | None = None if index == 2 else "relu"
        convolution = separable(before, outputs, rate=rate, stride=step, inner=None, outer=outer)
        parts.append((str(index), convolution))
        before = outputs
    alike = before == inputs and stride == 1
    shortcut = None if alike else Conv(inputs, before, 1, stride, activation=None)
    return Residual(tuple(parts), shortcut, first, last)

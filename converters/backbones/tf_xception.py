"""Xception-65 as TensorFlow's DeepLab builds it: convolutions in two steps, strides for pools.

Sources: Chen et al., "Encoder-Decoder with Atrous Separable Convolution", section 3.2;
tensorflow/models research/deeplab/core/xception.py. Strided convolutions pad half the kernel on
every side there, not as SAME would.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

from ..units import Activate, Backbone, Chain, Conv, Residual, Unit, separable

# fmt: off
FLOWS = (
    # part     channels of its convolutions  stride
    ("entry1", (128, 128, 128),              2),
    ("entry2", (256, 256, 256),              2),
    ("entry3", (728, 728, 728),              2),
    ("middle", (728, 728, 728),              1),
    ("exit1",  (728, 1024, 1024),            2),
)
# fmt: on
MIDDLE = 16  # Modules of the middle flow, each added to its input.
LAST = (1536, 1536, 2048)


def tf_xception65(output_stride: int, width: Callable[[int], int]) -> Backbone:
    """Return an Xception-65; ``width`` gives of a number of channels how many there are.

    What strides beyond ``output_stride`` would do, dilation does.
    """
    stem = width(32), width(64)
    parts: list[tuple[str, Unit]] = [
        ("stem0", Conv(3, stem[0], 3, 2, padding="explicit")),
        ("stem1", Conv(*stem, 3, padding="explicit")),
    ]
    inputs, reached, rate = stem[1], 2, 1
    for name, channels, stride in FLOWS:
        after = tuple(map(width, channels))
        before, step = rate, stride
        if reached == output_stride:
            rate, step = rate * stride, 1
        reached *= step
        if name == "middle":
            modules = [(str(index), _module(inputs, after, 1, before)) for index in range(MIDDLE)]
            parts.append((name, Chain(tuple(modules))))
        else:
            shortcut = Conv(inputs, after[-1], 1, step, activation=None, padding="explicit")
            parts.append((name, _module(inputs, after, step, before, shortcut)))
        inputs = after[-1]
    sizes = (inputs, *map(width, LAST))
    last = [
        (f"separable{index}", separable(*pair, rate=rate, padding="explicit"))
        for index, pair in enumerate(pairwise(sizes), 1)
    ]
    parts.append(("exit2", Chain(tuple(last))))
    # The decoder sees what the second convolution gives, before an activation.
    low, low_channels = "entry2.separable2", width(256)
    return Backbone(Chain(tuple(parts)), low, low_channels, "middle", width(728), sizes[-1])


def _module(
    inputs: int, outputs: Sequence[int], stride: int, rate: int, shortcut: Conv | None = None
) -> Residual:
    """State a module: activations come first, and what goes past it has none."""
    parts: list[tuple[str, Unit]] = []
    for index, (before, after) in enumerate(pairwise((inputs, *outputs)), 1):
        step = stride if index == len(outputs) else 1
        pair = separable(
            before, after, rate=rate, stride=step, inner=None, outer=None, padding="explicit"
        )
        parts += [(f"relu{index}", Activate()), (f"separable{index}", pair)]
    return Residual(tuple(parts), shortcut=shortcut)

"""ResNet of bottlenecks, its last stages dilated, as the programs of DeepLab v3 build it.

Source: He et al., "Deep Residual Learning"; the stride is on the 3x3 convolution. Chen et al.,
"Rethinking Atrous Convolution for Semantic Image Segmentation", section 3.1 (multi-grid).
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

from ..units import Backbone, Chain, Conv, Pool, Residual, Unit

EXPANSION = 4
WIDTHS = (64, 128, 256, 512)

# Dilations of a stage's blocks: of the stage's number of blocks, and of the dilations that
# the strides left out so far, before this stage's and with it.
Grid = Callable[[int, int, int], Sequence[int]]


def contracted(blocks: int, before: int, after: int) -> Sequence[int]:
    """Let a stage's first block keep the dilation of the stage before (torchvision)."""
    return (before, *[after] * (blocks - 1))


def resnet(
    blocks: Sequence[int],
    output_stride: int,
    width: Callable[[int], int],
    *,
    stem: Sequence[int] = (),
    grid: Grid = contracted,
) -> Backbone:
    """Return a ResNet.

    Parameters
    ----------
    blocks
        Bottlenecks of each stage.
    output_stride
        8 or 16: what strides beyond it would do, dilation does.
    width
        Of a number of channels, how many there are.
    stem
        Channels of a stem of three 3x3 convolutions; empty is one of 7x7 with 64.
    grid
        The dilations of a stage's blocks.

    """
    parts: list[tuple[str, Unit]] = []
    if stem:
        sizes = (3, *map(width, stem))
        for index, (before, after) in enumerate(pairwise(sizes)):
            parts.append((f"stem{index}", Conv(before, after, 3, 1 if index else 2)))
        inputs = sizes[-1]
    else:
        inputs = width(64)
        parts.append(("stem0", Conv(3, inputs, 7, 2)))
    parts.append(("pool", Pool()))
    reached, rate = 4, 1
    for stage, (count, inner) in enumerate(zip(blocks, map(width, WIDTHS), strict=True), 1):
        stride = 1 if stage == 1 else 2
        before = rate
        if reached * stride > output_stride:
            rate, stride = rate * stride, 1
        reached *= stride
        chain: list[tuple[str, Unit]] = []
        for block, dilation in enumerate(grid(count, before, rate)):
            step = 1 if block else stride
            chain.append((str(block), bottleneck(inputs, inner, step, dilation, first=not block)))
            inputs = inner * EXPANSION
        parts.append((f"layer{stage}", Chain(tuple(chain))))
    low, side = (width(WIDTHS[index]) * EXPANSION for index in (0, 2))
    return Backbone(Chain(tuple(parts)), "layer1", low, "layer3", side, inputs)


def bottleneck(inputs: int, inner: int, stride: int, rate: int, *, first: bool) -> Residual:
    """Return 1x1, 3x3 and 1x1 convolutions; a stage's first has a shortcut of its own."""
    outputs = inner * EXPANSION
    return Residual(
        (
            ("reduce", Conv(inputs, inner)),
            ("spatial", Conv(inner, inner, 3, stride, rate)),
            ("expand", Conv(inner, outputs, activation=None)),
        ),
        shortcut=Conv(inputs, outputs, 1, stride, activation=None) if first else None,
        last="relu",
    )

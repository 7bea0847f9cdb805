"""MobileNetV2 of jfzhang95 (and rloss), its last stages dilated.

Source: Sandler et al., "MobileNetV2", table 2; modeling/backbone/mobilenet.py. A block pads its
input before the first 1x1 convolution, so the border that the 3x3 one sees is not zero but what
batch norm makes of zeros.
"""

from collections.abc import Callable

from ..units import Backbone, Chain, Conv, Pad, Residual, Unit

# fmt: off
STAGES = (
    # expansion, channels, blocks, stride
    (1,  16, 1, 1),
    (6,  24, 2, 2),
    (6,  32, 3, 2),
    (6,  64, 4, 2),
    (6,  96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# fmt: on


def mobilenet_v2(output_stride: int, width: Callable[[int], int]) -> Backbone:
    """Return a MobileNetV2; ``width`` tells how many channels there are of a number.

    A stage whose stride is left out keeps the dilation of the stage before, all blocks of it.
    """
    inputs = width(32)
    parts: list[tuple[str, Unit]] = [("stem", Conv(3, inputs, 3, 2, activation="relu6"))]
    channels = {}
    reached, rate = 2, 1
    for expansion, outputs, blocks, stride in STAGES:
        dilation = rate if reached == output_stride else 1
        step = 1 if reached == output_stride else stride
        rate *= stride // step
        reached *= step
        for index in range(blocks):
            block = inverted(
                inputs, width(outputs), expansion, 1 if index else step, dilation, pad_first=True
            )
            name = f"block{len(parts)}"
            parts.append((name, Residual(block) if index else Chain(block)))
            inputs = channels[name] = width(outputs)
    low, side = "block3", "block13"
    return Backbone(Chain(tuple(parts)), low, channels[low], side, channels[side], inputs)


def inverted(
    inputs: int, outputs: int, expansion: int, stride: int, rate: int, *, pad_first: bool
) -> tuple[tuple[str, Unit], ...]:
    """Return a block's parts: wider by 1x1, each channel by 3x3, narrower by 1x1.

    ``pad_first``: the input is padded, and not what the 3x3 convolution reads.
    """
    inner = inputs * expansion
    expand = Conv(inputs, inner, activation="relu6")
    depthwise = Conv(
        inner, inner, 3, stride, rate, inner, activation="relu6",
        padding="none" if pad_first else "profile",
    )  # fmt: skip
    return (
        *((("pad", Pad(rate)),) if pad_first else ()),
        *((("expand", expand),) if expansion > 1 else ()),
        ("depthwise", depthwise),
        ("project", Conv(inner, outputs, activation=None)),
    )

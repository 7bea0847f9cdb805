"""MobileNetV3-Large, its last stages dilated, as torchvision's DeepLab v3 has it.

Source: Howard et al., "Searching for MobileNetV3", table 1; torchvision/models/mobilenetv3.py,
which makes a strided block all of its dilation where its stride is left out.
"""

from collections.abc import Callable

from ..units import Activation, Backbone, Chain, Conv, Excite, Residual, Unit

EPS = 1e-3

# fmt: off
BLOCKS: tuple[tuple[int, int, int, bool, Activation, int], ...] = (
    # kernel, expanded, out, excited, activation, stride
    (3,  16,  16, False, "relu",      1),
    (3,  64,  24, False, "relu",      2),
    (3,  72,  24, False, "relu",      1),
    (5,  72,  40, True,  "relu",      2),
    (5, 120,  40, True,  "relu",      1),
    (5, 120,  40, True,  "relu",      1),
    (3, 240,  80, False, "hardswish", 2),
    (3, 200,  80, False, "hardswish", 1),
    (3, 184,  80, False, "hardswish", 1),
    (3, 184,  80, False, "hardswish", 1),
    (3, 480, 112, True,  "hardswish", 1),
    (3, 672, 112, True,  "hardswish", 1),
    (5, 672, 160, True,  "hardswish", 2),
    (5, 960, 160, True,  "hardswish", 1),
    (5, 960, 160, True,  "hardswish", 1),
)
# fmt: on


def mobilenet_v3_large(output_stride: int, width: Callable[[int], int]) -> Backbone:
    """Return a MobileNetV3-Large; ``width`` tells how many channels there are of a number."""
    inputs = width(16)
    parts: list[tuple[str, Unit]] = [
        ("stem", Conv(3, inputs, 3, 2, activation="hardswish", eps=EPS))
    ]
    channels = {}
    reached, rate = 2, 1
    for index, (kernel, expanded, outputs, excited, activation, stride) in enumerate(BLOCKS, 1):
        step = stride
        if reached * stride > output_stride:
            rate, step = rate * stride, 1
        reached *= step
        inner = width(expanded)
        block: list[tuple[str, Unit]] = []
        if inner != inputs:
            block.append(("expand", Conv(inputs, inner, activation=activation, eps=EPS)))
        depthwise = Conv(inner, inner, kernel, step, rate, inner, activation=activation, eps=EPS)
        block.append(("depthwise", depthwise))
        if excited:
            block.append(("excite", Excite(inner, squeezed(inner))))
        block.append(("project", Conv(inner, width(outputs), activation=None, eps=EPS)))
        adds = stride == 1 and inputs == width(outputs)
        parts.append((f"block{index}", (Residual if adds else Chain)(tuple(block))))
        inputs = channels[index] = width(outputs)
    features = width(960)
    parts.append(("last", Conv(inputs, features, activation="hardswish", eps=EPS)))
    # Early features at a quarter of the size; the auxiliary head's at an eighth.
    return Backbone(Chain(tuple(parts)), "block3", channels[3], "block4", channels[4], features)


def squeezed(channels: int) -> int:
    """Return a quarter of the channels, as the nearest multiple of 8 not 10 % below it."""
    quarter = channels // 4
    nearest = max(8, (quarter + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * quarter else nearest

"""MobileNetV2 as TensorFlow-Slim builds it and TensorFlow's DeepLab reads it: SAME padding.

Sources: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", table 2;
tensorflow/models research/slim/nets/mobilenet and research/deeplab/core/feature_extractor.py.
"""

from collections.abc import Callable

from ..units import Backbone, Chain, Conv, Residual, Unit

# fmt: off
STAGES = (
    # channels, blocks, stride of the first, how many times a block widens its input
    (16,        1,      1,                   1),
    (24,        2,      2,                   6),
    (32,        3,      2,                   6),
    (64,        4,      2,                   6),
    (96,        3,      1,                   6),
    (160,       3,      2,                   6),
    (320,       1,      1,                   6),
)
# fmt: on


def tf_mobilenet_v2(output_stride: int, width: Callable[[int], int]) -> Backbone:
    """Return a MobileNetV2; ``width`` gives of a number of channels how many there are.

    What strides beyond ``output_stride`` would do, dilation does.
    """
    inputs = width(32)
    parts: list[tuple[str, Unit]] = [("stem", Conv(3, inputs, 3, 2, activation="relu6"))]
    reached, rate = 2, 1
    for channels, blocks, stride, expansion in STAGES:
        outputs = width(channels)
        for block in range(blocks):
            step, before = 1 if block else stride, rate
            if reached == output_stride:
                rate, step = rate * step, 1
            reached *= step
            made = _block(inputs, outputs, expansion, step, before)
            parts.append((f"block{len(parts) - 1}", made))
            inputs = outputs
    # The published nets have no decoder; where one was trained, it sees a widened quarter.
    low, low_channels = "block2.depthwise", width(24) * 6
    return Backbone(Chain(tuple(parts)), low, low_channels, "block12", width(96), inputs)


def _block(inputs: int, outputs: int, expansion: int, stride: int, rate: int) -> Chain | Residual:
    """State a block; it is added to its input where their sizes agree."""
    inner = inputs * expansion
    parts: list[tuple[str, Unit]] = []
    if expansion > 1:
        parts.append(("expand", Conv(inputs, inner, activation="relu6")))
    parts += [
        ("depthwise", Conv(inner, inner, 3, stride, rate, inner, activation="relu6")),
        ("project", Conv(inner, outputs, activation=None)),
    ]
    return (Residual if stride == 1 and inputs == outputs else Chain)(tuple(parts))

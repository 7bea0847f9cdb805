"""MobileNetV2 as TensorFlow-Slim builds it and TensorFlow's DeepLab reads it: SAME padding.

Sources: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", table 2;
tensorflow/models research/slim/nets/mobilenet and research/deeplab/core/feature_extractor.py.
"""

from collections.abc import Callable

from ..units import Backbone, Chain, Conv, Residual, Unit
from .mobilenet_v2 import STAGES, inverted


def tf_mobilenet_v2(output_stride: int, width: Callable[[int], int]) -> Backbone:
    """Return a MobileNetV2; ``width`` gives of a number of channels how many there are.

    What strides beyond ``output_stride`` would do, dilation does.
    """
    inputs = width(32)
    parts: list[tuple[str, Unit]] = [("stem", Conv(3, inputs, 3, 2, activation="relu6"))]
    reached, rate = 2, 1
    for expansion, channels, blocks, stride in STAGES:
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
    parts = inverted(inputs, outputs, expansion, stride, rate, pad_first=False)
    return (Residual if stride == 1 and inputs == outputs else Chain)(parts)

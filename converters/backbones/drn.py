"""Dilated residual network DRN-D-54, as jfzhang95 (and rloss) use it.

Source: Yu, Koltun, Funkhouser, "Dilated Residual Networks"; modeling/backbone/drn.py. No pooling:
plain convolutions begin, three of them with strides; plain ones without shortcuts end, to
smooth what the dilations leave.
"""

from collections.abc import Callable

from ...proto.errors import UsageError
from ..units import Backbone, Chain, Conv, Unit
from .resnet import EXPANSION, bottleneck

# fmt: off
STAGES = (
    # stage, channels within, blocks, stride, dilation
    (3,  64, 3, 2, 1),
    (4, 128, 4, 2, 1),
    (5, 256, 6, 1, 2),
    (6, 512, 3, 1, 4),
)
# fmt: on


def drn_d_54(output_stride: int, width: Callable[[int], int]) -> Backbone:
    """Return a DRN-D-54, whose output stride is 8; ``width`` tells how many channels there are."""
    if output_stride != 8:
        raise UsageError(f"output stride {output_stride}: DRN-D-54 has 8.")
    inputs = width(32)
    parts: list[tuple[str, Unit]] = [
        ("layer0", Conv(3, width(16), 7)),
        ("layer1", Conv(width(16), width(16), 3)),
        ("layer2", Conv(width(16), inputs, 3, 2)),
    ]
    channels = {}
    for stage, inner, blocks, stride, rate in STAGES:
        chain: list[tuple[str, Unit]] = []
        for block in range(blocks):
            step = 1 if block else stride
            chain.append(
                (str(block), bottleneck(inputs, width(inner), step, rate, first=not block))
            )
            inputs = width(inner) * EXPANSION
        parts.append((f"layer{stage}", Chain(tuple(chain))))
        channels[stage] = inputs
    parts += [
        ("layer7", Conv(inputs, width(512), 3, rate=2)),
        ("layer8", Conv(width(512), width(512), 3)),
    ]
    body = Chain(tuple(parts))
    return Backbone(body, "layer3", channels[3], "layer5", channels[5], width(512))

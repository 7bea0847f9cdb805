"""MobileNetV3-Large: what a table of its blocks must come out as."""

import pytest

from deeplab_zoo.converters.backbones.mobilenet_v3 import mobilenet_v3_large, squeezed
from deeplab_zoo.converters.units import Backbone, Chain, Conv, Excite, Residual


def convolutions(net: Backbone, part: str) -> list[Conv]:
    found = []
    for _, block in net.body.parts:
        inner = dict(block.parts) if isinstance(block, Chain | Residual) else {}
        if isinstance(one := inner.get(part), Conv):
            found.append(one)
    return found


@pytest.mark.parametrize(
    ("output_stride", "strides", "rates"),
    [
        (16, (1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 1, 1), (1,) * 12 + (2, 2, 2)),
        (8, (1, 2, 1, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1), (1,) * 6 + (2,) * 6 + (4, 4, 4)),
    ],
)
def test_dilation_does_what_strides_left_out(
    output_stride: int, strides: tuple[int, ...], rates: tuple[int, ...]
) -> None:
    spatial = convolutions(mobilenet_v3_large(output_stride, lambda n: n), "depthwise")
    assert tuple(one.stride for one in spatial) == strides
    assert tuple(one.rate for one in spatial) == rates
    assert all(one.groups == one.inputs == one.outputs for one in spatial)


def test_a_block_adds_its_input_where_both_are_of_one_size() -> None:
    body = mobilenet_v3_large(16, lambda n: n).body
    adds = [name for name, block in body.parts if isinstance(block, Residual)]
    assert adds == [f"block{index}" for index in (1, 3, 5, 6, 8, 9, 10, 12, 14, 15)]


def test_what_other_parts_read_has_the_channels_told() -> None:
    net = mobilenet_v3_large(16, lambda n: n // 2)
    parts = {name: block for name, block in net.body.parts if isinstance(block, Chain | Residual)}
    for name, channels in ((net.low, net.low_channels), (net.side, net.side_channels)):
        last = parts[name].parts[-1][1]
        assert isinstance(last, Conv)
        assert last.outputs == channels
    assert (net.low_channels, net.side_channels, net.channels) == (12, 20, 480)
    assert not any(isinstance(one, Excite) for _, one in parts["block7"].parts)


@pytest.mark.parametrize(
    ("channels", "expected"),
    # 18 rounds to 16, which is more than a tenth below it.
    [(72, 24), (120, 32), (480, 120), (672, 168), (960, 240), (9, 8)],
)
def test_a_squeezed_layer_has_a_multiple_of_8(channels: int, expected: int) -> None:
    assert squeezed(channels) == expected

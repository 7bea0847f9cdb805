"""Caffe's sizes."""

import pytest

from deeplab_zoo.converters.caffe_sizes import interp_size
from deeplab_zoo.proto import prototxt


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("zoom_factor: 8", (33, 49)),
        ("shrink_factor: 2", (3, 4)),
        ("zoom_factor: 3 shrink_factor: 4", (4, 4)),
        ("height: 9 width: 4", (9, 4)),
        ("height: 9 width: 4 zoom_factor: 2", (9, 13)),
        ("height: 9 width: 4 zoom_factor: 2 shrink_factor: 3", (9, 4)),
        ("zoom_factor: 2 pad_beg: -1 pad_end: -1", (5, 9)),
    ],
)
def test_an_interps_size_follows_caffes_order_of_rules(
    settings: str, expected: tuple[int, int]
) -> None:
    net = prototxt.parse_net(
        f"layer {{ name: 'i' type: 'Interp' bottom: 'd' top: 'i' interp_param {{ {settings} }} }}",
        "net",
    )
    assert interp_size(net.layers[0].params.interp_param, (5, 7)) == expected

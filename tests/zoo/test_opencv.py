from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deeplab_zoo.converters import caffe_graph, convert
from deeplab_zoo.converters.caffe_sizes import output_size
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config
from deeplab_zoo.proto import prototxt
from deeplab_zoo.proto.errors import MismatchError
from deeplab_zoo.zoo.models.load import load
from deeplab_zoo.zoo.parity import opencv
from deeplab_zoo.zoo.parity.blobs import activations
from deeplab_zoo.zoo.parity.comparison import TOLERANCE, compare

Make = Callable[..., tuple[Path, Path]]

pytest.importorskip("cv2")


def worst(text: Path, binary: Path, out: Path, height: int, width: int, seed: int = 0) -> float:
    """Convert, run both engines on noise of one size, return the largest distance."""
    convert.convert_caffe(text, binary, out)
    random = np.random.default_rng(seed)
    image = random.normal(0, 60, (1, 3, height, width)).astype(np.float32)
    graph = caffe_graph.select(prototxt.read(text))
    reference = opencv.run(graph, np.fromfile(binary, np.uint8), image)
    ours = activations(load(out), image)
    return max(compare(blob, ours[blob], value).relative_l2 for blob, value in reference.items())


@pytest.mark.parametrize("size", [(65, 97), (96, 128), (71, 50)])
def test_a_single_scale_net_agrees_at_every_blob(
    make_net: Make, tiny_config: DeepLabV2Config, tmp_path: Path, size: tuple[int, int]
) -> None:
    text, binary = make_net(tiny_config, *size)
    assert worst(text, binary, tmp_path / "x.safetensors", *size) <= TOLERANCE


@pytest.mark.parametrize("size", [(65, 97), (68, 70), (129, 33)])
def test_a_multi_scale_net_agrees_at_every_blob(
    make_net: Make, tiny_multi: DeepLabV2Config, tmp_path: Path, size: tuple[int, int]
) -> None:
    text, binary = make_net(tiny_multi, *size)
    assert worst(text, binary, tmp_path / "x.pth", *size) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("size", [(321, 321), (320, 433), (513, 513)])
def test_the_full_size_single_scale_net_agrees(
    make_net: Make, tmp_path: Path, size: tuple[int, int]
) -> None:
    text, binary = make_net(DeepLabV2Config(), *size)
    assert binary.stat().st_size > 176e6
    assert worst(text, binary, tmp_path / "x.safetensors", *size) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("size", [(321, 321), (321, 449), (513, 513)])
def test_the_full_size_multi_scale_net_agrees(
    make_net: Make, tmp_path: Path, size: tuple[int, int]
) -> None:
    text, binary = make_net(DeepLabV2Config(scales=(1.0, 0.75, 0.5)), *size)
    assert worst(text, binary, tmp_path / "x.safetensors", *size) <= TOLERANCE


def test_layers_that_opencv_computes_otherwise_are_refused() -> None:
    net = prototxt.parse_net(
        "input: 'data' layer { name: 's' type: 'Swish' bottom: 'data' top: 's' }", "net"
    )
    with pytest.raises(MismatchError, match="'s' .line 1.: Swish"):
        opencv.run(net, np.zeros(0, np.uint8), np.zeros((1, 3, 5, 7), np.float32))


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
    assert output_size(net.layers[0], (5, 7)) == expected

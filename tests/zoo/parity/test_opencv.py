from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deeplab_zoo.converters import convert
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config
from deeplab_zoo.converters.kinds import Kind
from deeplab_zoo.proto import caffemodel, prototxt
from deeplab_zoo.proto.errors import MismatchError
from deeplab_zoo.proto.records import Blob
from deeplab_zoo.zoo.models.load import load
from deeplab_zoo.zoo.parity import opencv
from deeplab_zoo.zoo.parity.blobs import activations
from deeplab_zoo.zoo.parity.comparison import TOLERANCE, compare
from deeplab_zoo.zoo.parity.job import parity
from deeplab_zoo.zoo.parity.original import open_original

Make = Callable[..., tuple[Path, Path]]

pytest.importorskip("cv2")


def worst(text: Path, binary: Path, out: Path, height: int, width: int, seed: int = 0) -> float:
    """Convert, run both engines on noise of one size, return the largest distance."""
    convert.convert_caffe(text, binary, out)
    random = np.random.default_rng(seed)
    image = random.normal(0, 60, (1, 3, height, width)).astype(np.float32)
    reference = opencv.engine(open_original([text, binary])).run({"data": image})
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


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        ("type: 'Swish'", "has no such layer, or was not found to compute it as Caffe"),
        ("type: 'LRN' lrn_param { k: 2 local_size: 3 }", "takes LRN's k for 1"),
        ("type: 'Interp' interp_param { zoom_factor: 2 pad_end: -1 }", "ignores an Interp's pads"),
        (
            "type: 'Pooling' pooling_param { kernel_size: 1 stride: 2 }",
            "clips away windows outside the input",
        ),
        (
            "type: 'Pooling' pooling_param { kernel_size: 2 round_mode: FLOOR }",
            "rounds a pool's size up",
        ),
        ("type: 'Concat' concat_param { concat_dim: 3 }", "ignores a Concat's concat_dim"),
    ],
)
def test_layers_that_opencv_computes_otherwise_are_refused(
    spell: Make, layer: str, reason: str
) -> None:
    original = open_original(spell(f"layer {{ name: 's' bottom: 'data' top: 's' {layer} }}"))
    with pytest.raises(MismatchError, match=f"'s' .line 1.: .*{reason}"):
        opencv.engine(original)


def test_an_lrns_missing_alpha_is_caffes_and_not_opencvs(spell: Make) -> None:
    original = open_original(
        spell("layer { name: 'n' type: 'LRN' bottom: 'data' top: 'n' lrn_param { local_size: 3 } }")
    )
    image = np.random.default_rng(0).normal(0, 2, (1, 3, 9, 8)).astype(np.float32)
    found = opencv.engine(original).run({"data": image})["n"]
    expected = original.graph({"data": torch.from_numpy(image)})["n"].numpy()
    assert compare("n", expected, found).relative_l2 <= TOLERANCE


def test_a_checkpoint_is_nothing_for_opencv(spell: Make) -> None:
    original = open_original(spell("layer { name: 'r' type: 'ReLU' bottom: 'data' top: 'r' }"))
    with pytest.raises(MismatchError, match="reads a prototxt and a binary caffemodel only"):
        opencv.engine(replace(original, kind=Kind.CHECKPOINT))


def test_tops_of_any_name_and_a_pooling_that_says_its_rounding_are_read(spell: Make) -> None:
    filler = "weight_filler { type: 'xavier' }"
    text, binary = spell(
        "layer { name: 'conv' type: 'Convolution' bottom: 'data' top: 'x' "
        f"convolution_param {{ num_output: 2 kernel_size: 3 {filler} }} }} "
        "layer { name: 'pool' type: 'Pooling' bottom: 'x' top: 'y' "
        "pooling_param { kernel_size: 3 stride: 2 round_mode: CEIL } }"
    )
    net = prototxt.read(text)
    weight = np.random.default_rng(0).normal(0, 1, (2, 3, 3, 3)).astype(np.float32)
    blobs = Blob(weight.shape, weight), Blob((2,), np.ones(2, np.float32))
    filled = (replace(one, blobs=blobs if one.name == "conv" else ()) for one in net.layers)
    with binary.open("wb") as file:
        caffemodel.write(replace(net, layers=tuple(filled)), file)
    report = parity(text, binary, exact=False)
    assert report.passed, report.verdict
    assert report.engine.startswith("OpenCV")
    assert report.cases[0].blobs == ["data", "x", "y"]


def test_layers_of_one_name_are_refused_and_opencvs_own_errors_told(spell: Make) -> None:
    power = "type: 'Power' power_param { scale: 2 }"
    twice = spell(
        f"layer {{ name: 'p' bottom: 'data' top: 'a' {power} }} "
        f"layer {{ name: 'p' bottom: 'a' top: 'b' {power} }}"
    )
    with pytest.raises(MismatchError, match="'p' .line 1.: Power: OpenCV tells layers by their na"):
        opencv.engine(open_original(twice))
    original = open_original(spell(
        "layer { name: 'c' type: 'Convolution' bottom: 'data' top: 'c' "
        "convolution_param { num_output: 2 kernel_size: 3 } }"
    ))  # fmt: skip
    with pytest.raises(MismatchError, match=r"few\.caffemodel: OpenCV cannot run the network \("):
        opencv.engine(original).run({"data": np.ones((1, 3, 9, 8), np.float32)})

"""Weights with another head than is wanted, or without one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import deeplab_zoo
from deeplab_zoo import ZooError
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config
from deeplab_zoo.proto import caffemodel
from deeplab_zoo.proto.errors import MismatchError, UsageError
from deeplab_zoo.proto.records import Net

Make = Callable[..., tuple[Path, Path]]


def test_a_reset_head_is_seeded_gaussian_and_reported(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    native = deeplab_zoo.convert_caffe(
        *files, tmp_path / "a.safetensors", reset_head=True, num_classes=7, seed=3
    )
    model = deeplab_zoo.load(tmp_path / "a.safetensors")
    assert model.config.classes == 7
    assert native.fresh == tuple(
        f"classifier.convs.{i}.{kind}" for i in range(4) for kind in ("weight", "bias")
    )
    weight = model.classifier.convs[0].weight
    assert weight.shape == (7, 20, 3, 3)
    assert 0.008 < weight.std().item() < 0.012
    assert not model.classifier.convs[0].bias.any()
    deeplab_zoo.convert_caffe(
        *files, tmp_path / "b.safetensors", reset_head=True, num_classes=7, seed=3
    )
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    dropped = dict(native.conversion.dropped)
    assert dropped["fc1_voc12_c0[0]"] == "not part of the backbone: the head was reset"


@pytest.mark.parametrize("how", [{"reset_head": True, "seed": -1}, {"seed": 3}])
def test_a_seed_is_a_fresh_heads_and_not_negative(
    files: tuple[Path, Path], tmp_path: Path, how: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match=r"--seed -?\d, expected 0 or more, and with --reset-head"):
        deeplab_zoo.convert_caffe(*files, tmp_path / "a.pth", **how)


def init_file(make_net: Make, config: DeepLabV2Config, *, prefix: str) -> tuple[Path, Path]:
    """A file with another head (``prefix``), or none."""
    text, binary = make_net(config)
    net = caffemodel.read(binary)
    layers = []
    for layer in net.layers:
        if layer.name.startswith("fc1"):
            if not prefix or layer.type != "Convolution":
                continue
            params = type(layer.params)()
            params.CopyFrom(layer.params)
            params.name = layer.name.replace("fc1_voc12", prefix)
            layer = type(layer)(
                params.name, layer.type, layer.bottoms, layer.tops, params, layer.blobs
            )
        layers.append(layer)
    init = binary.with_name("init.caffemodel")
    with init.open("wb") as file:
        caffemodel.write(Net(net.name, tuple(layers)), file)
    return text, init


@pytest.mark.parametrize("prefix", ["", "fc1_coco", "fc1000"])
@pytest.mark.parametrize("with_text", [True, False])
def test_an_init_file_with_another_head_or_none_loads_with_a_reset_head(
    make_net: Make, tiny_config: DeepLabV2Config, tmp_path: Path, prefix: str, with_text: bool
) -> None:
    text, init = init_file(make_net, tiny_config, prefix=prefix)
    files = (text if with_text else None, init)
    if with_text or prefix != "fc1_coco":  # A COCO head without a prototxt is a model of its own.
        with pytest.raises(MismatchError, match="--reset-head"):
            deeplab_zoo.convert_caffe(*files, tmp_path / "x.safetensors")
    deeplab_zoo.convert_caffe(*files, tmp_path / "x.safetensors", reset_head=True, num_classes=11)
    assert deeplab_zoo.load(tmp_path / "x.safetensors").config.classes == 11


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"num_classes": 21}, "the file has 5 classes, asked for 21.*--reset-head"),
        ({"num_classes": 1}, "--num-classes 1, expected 2 to 255"),
        ({"num_classes": 256, "reset_head": True}, "--num-classes 256, expected 2 to 255"),
        ({"seed": 3}, "--seed 3, expected 0 or more, and with --reset-head"),
        ({"seed": -3, "reset_head": True}, "--seed -3, expected 0 or more"),
    ],
)
def test_heads_that_cannot_be_are_refused(
    files: tuple[Path, Path], tmp_path: Path, options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ZooError, match=complaint):
        deeplab_zoo.convert_caffe(*files, tmp_path / "x.safetensors", **options)

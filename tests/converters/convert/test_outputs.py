"""Caffe's files become weights: what every output holds."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import deeplab_zoo
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config
from deeplab_zoo.converters.weights import read as read_weights
from deeplab_zoo.proto import caffemodel

Make = Callable[..., tuple[Path, Path]]


@pytest.mark.parametrize("kind", ["safetensors", "pth", "h5"])
def test_each_output_loads_as_the_same_model(
    files: tuple[Path, Path], tmp_path: Path, kind: str
) -> None:
    deeplab_zoo.convert_caffe(*files, tmp_path / "reference.safetensors")
    deeplab_zoo.convert_caffe(*files, tmp_path / f"x.{kind}")
    expected = deeplab_zoo.load(tmp_path / "reference.safetensors")
    found = deeplab_zoo.load(tmp_path / f"x.{kind}")
    assert found.config == expected.config
    assert found.numerics == expected.numerics
    assert not found.training
    for (name, one), other in zip(
        found.state_dict().items(), expected.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), name


@pytest.mark.parametrize("kind", ["safetensors", "pth", "h5"])
def test_equal_input_gives_equal_files(files: tuple[Path, Path], tmp_path: Path, kind: str) -> None:
    for name in ("a", "b"):
        deeplab_zoo.convert_caffe(*files, tmp_path / f"{name}.{kind}")
    assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


@pytest.mark.parametrize("layout", ["canonical", "isht7", "kazuto1011", "advsemiseg"])
def test_an_exported_file_loads_back_and_is_a_plain_state_dict(
    files: tuple[Path, Path], tmp_path: Path, layout: str
) -> None:
    deeplab_zoo.convert_caffe(*files, tmp_path / "x.h5")
    deeplab_zoo.export(tmp_path / "x.h5", tmp_path / "y.pth", layout=layout)
    plain = torch.load(tmp_path / "y.pth", weights_only=True)
    expected = read_weights(tmp_path / "y.pth").state
    assert len(plain) == len(expected)
    for one, other in zip(plain.values(), expected.values(), strict=True):
        assert np.array_equal(one.numpy(), other)
    prefix = {"canonical": "backbone.", "isht7": "Scale.", "kazuto1011": "base.", "advsemiseg": ""}
    assert f"{prefix[layout]}conv1.weight" in plain or layout == "kazuto1011"
    model = deeplab_zoo.load(tmp_path / "y.pth")
    assert torch.equal(
        model.backbone.conv1.weight, torch.from_numpy(expected["backbone.conv1.weight"])
    )


def test_the_safetensors_library_reads_what_we_write(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    deeplab_zoo.convert_caffe(*files, tmp_path / "x.safetensors")
    state = load_file(tmp_path / "x.safetensors")
    model = deeplab_zoo.load(tmp_path / "x.safetensors")
    assert all(torch.equal(state[name], model.state_dict()[name]) for name in state)


def test_every_source_tensor_is_used_or_dropped_by_a_named_rule(
    make_net: Make, tiny_multi: DeepLabV2Config, tmp_path: Path
) -> None:
    text, binary = make_net(tiny_multi)
    native = deeplab_zoo.convert_caffe(text, binary, tmp_path / "x.safetensors")
    used = {place for places in native.conversion.sources.values() for place in places}
    dropped = {place for place, _ in native.conversion.dropped}
    stored = {
        f"{layer.name}[{index}]"
        for layer in caffemodel.read(binary).layers
        for index in range(len(layer.blobs))
    }
    assert used | dropped == stored
    assert all(reason for _, reason in native.conversion.dropped)


def test_the_graph_may_come_from_the_caffemodel(
    make_net: Make, tiny_multi: DeepLabV2Config, tmp_path: Path
) -> None:
    _, binary = make_net(tiny_multi)
    native = deeplab_zoo.convert_caffe(None, binary, tmp_path / "x.safetensors")
    assert native.weights.config == tiny_multi


def test_unusual_rates_are_taken_from_the_graph(
    make_net: Make, tiny_config: DeepLabV2Config, tmp_path: Path
) -> None:
    config = DeepLabV2Config(5, tiny_config.blocks, 4, tiny_config.widths, rates=(2, 5, 9))
    native = deeplab_zoo.convert_caffe(*make_net(config), tmp_path / "x.safetensors")
    assert native.weights.config == config
    assert deeplab_zoo.load(tmp_path / "x.safetensors").config.rates == (2, 5, 9)


def test_conversion_to_safetensors_and_hdf5_imports_no_torch(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    code = (
        "import sys, deeplab_zoo\n"
        f"deeplab_zoo.convert_caffe({str(files[0])!r}, {str(files[1])!r}, 'x.safetensors',"
        " keep_hdf5='x.h5')\n"
        "print([m for m in ('torch', 'tensorflow', 'cv2', 'safetensors') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert found.stdout.strip() == "[]"


@pytest.mark.golden
@pytest.mark.parametrize("with_text", [True, False])
def test_a_training_net_and_its_snapshot_convert(
    shared: Path, tmp_path: Path, with_text: bool
) -> None:
    folder = shared / "golden" / "caffe" / "train_step" / "msc"
    native = deeplab_zoo.convert_caffe(
        folder / "train.prototxt" if with_text else None,
        folder / "final.caffemodel",
        tmp_path / "x.safetensors",
    )
    assert native.weights.config.widths == (4, 8, 16, 32)
    assert native.weights.config.scales == (1.0, 0.75, 0.5)


def test_an_image_blob_of_another_name_is_the_image(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    text, binary = files
    text.write_text(text.read_text().replace('"data"', '"image"'))
    deeplab_zoo.convert_caffe(text, binary, tmp_path / "x.safetensors")

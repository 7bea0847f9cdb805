from collections.abc import Callable
from pathlib import Path

import pytest

import deeplab_zoo
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config
from deeplab_zoo.proto import caffemodel, prototxt

Make = Callable[..., tuple[Path, Path]]

DATA = "input: 'data' input_shape { dim: 1 dim: 3 dim: 9 dim: 8 } "


@pytest.fixture
def caffe_files(make_net: Make, tiny_config: DeepLabV2Config) -> tuple[Path, Path]:
    return make_net(tiny_config, 65, 97)


@pytest.fixture
def native(caffe_files: tuple[Path, Path], tmp_path: Path) -> Path:
    out = tmp_path / "x.safetensors"
    deeplab_zoo.convert_caffe(*caffe_files, out)
    return out


@pytest.fixture
def spell(tmp_path: Path) -> Make:
    """Write a net of few layers, without weights: its prototxt and an empty caffemodel."""

    def write(layers: str, inputs: str = DATA) -> tuple[Path, Path]:
        text, binary = tmp_path / "few.prototxt", tmp_path / "few.caffemodel"
        text.write_text(inputs + layers)
        with binary.open("wb") as file:
            caffemodel.write(prototxt.read(text), file)
        return text, binary

    return write

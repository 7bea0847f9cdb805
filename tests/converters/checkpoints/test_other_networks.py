"""Checkpoints of other networks, or of none."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import deeplab_zoo
from deeplab_zoo.proto.checkpoint_write import write_v1
from deeplab_zoo.proto.errors import MismatchError, ZooError

from .variables import native_of

Arrays = dict[str, np.ndarray[Any, Any]]
Save = Callable[..., Path]
SLIM = (
    "resnet_v1_101/conv1/weights",
    "resnet_v1_101/conv1/BatchNorm/gamma",
    "resnet_v1_101/block1/unit_1/bottleneck_v1/conv1/weights",
    "resnet_v1_101/block1/unit_1/bottleneck_v1/shortcut/weights",
    "resnet_v1_101/logits/biases",
)
XCEPTION = (
    "xception_65/entry_flow/conv1_1/weights",
    "xception_65/entry_flow/conv1_1/BatchNorm/moving_mean",
)


@pytest.mark.parametrize(
    ("names", "family"),
    [
        (SLIM, "ImageNet ResNet v1 of TensorFlow-Slim"),
        ((*SLIM, "resnet_v1_101/mean_rgb", "global_step"), "ImageNet ResNet v1 of TensorFlow-Slim"),
        (XCEPTION, "Xception of TensorFlow's own DeepLab"),
        (("vgg_16/conv1/conv1_1/weights", "vgg_16/fc8/biases"), "VGG of TensorFlow-Slim"),
        (("MobilenetV2/Conv/weights", "MobilenetV2/Conv/BatchNorm/beta"), "MobileNet"),
    ],
)
@pytest.mark.parametrize("version", ["V1", "V2"])
def test_another_network_is_told_what_it_looks_like(
    save_checkpoint: Save, names: tuple[str, ...], family: str, version: str
) -> None:
    variables: Arrays = {name: np.ones((1, 1, 2, 2), "f4") for name in names}
    path = save_checkpoint(variables)
    if version == "V1":
        with path.open("wb") as file:
            write_v1(variables, file)
    with pytest.raises(MismatchError, match=f"looks like {re.escape(family)}"):
        native_of(path)


def test_an_unknown_network_is_refused_with_its_first_names(save_checkpoint: Save) -> None:
    with pytest.raises(MismatchError, match=r"none of its 1 layers.*They begin: dense/kernel"):
        native_of(save_checkpoint({"dense/kernel/weights": np.ones((2, 3), "f4")}))


@pytest.mark.parametrize("name", ["none.ckpt", "none/"])
def test_a_checkpoint_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ZooError, match=f"{name.rstrip('/')}: no TensorFlow checkpoint of this"):
        deeplab_zoo.convert_tensorflow(tmp_path / name, tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())

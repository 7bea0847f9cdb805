"""Arrays by name: caffe-tensorflow's ``.npy`` and jaccardSegment's deepdish ``.h5``."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import deeplab_zoo
from deeplab_zoo.converters.export import variables
from deeplab_zoo.converters.native import Native
from deeplab_zoo.converters.weights import Weights
from deeplab_zoo.proto import kaffe
from deeplab_zoo.proto.errors import FormatError

from .programs import as_deepdish, assert_state

Arrays = dict[str, np.ndarray[Any, Any]]
KAFFE = {
    "weights": "weights",
    "biases": "biases",
    "gamma": "scale",
    "beta": "offset",
    "moving_mean": "mean",
    "moving_variance": "variance",
}


def as_kaffe(native: Weights) -> dict[str, Arrays]:
    layers: dict[str, Arrays] = {}
    for name, data in variables(native).items():
        layer, _, kind = name.rpartition("/")
        layers.setdefault(layer, {})[KAFFE[kind]] = data
    return layers


def test_an_npy_is_read_under_tensorflows_conventions(
    native: Weights, tmp_path: Path, convert: Callable[..., Native]
) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(kaffe.encode(as_kaffe(native)))
    found = convert(path)
    assert_state(found, native)
    assert found.weights.numerics.name == "tf-slim"
    assert found.weights.config.scales == (1.0,)
    assert found.conversion.sources["backbone.bn1.weight"] == ("bn_conv1/scale",)
    assert convert(path, multi_scale=True).weights.config.scales == (1.0, 0.75, 0.5)
    assert convert(path, numerics="caffe-v2").weights.numerics.name == "caffe-v2"


@pytest.mark.parametrize(("dtype", "change"), [("f2", "float16 widened"), ("f8", "float64 round")])
def test_an_npy_of_other_floats_is_noted(
    native: Weights, tmp_path: Path, convert: Callable[..., Native], dtype: str, change: str
) -> None:
    path = tmp_path / "x.npy"
    layers = as_kaffe(native)
    layers["conv1"]["weights"] = layers["conv1"]["weights"].astype(dtype)
    path.write_bytes(kaffe.encode(layers))
    found = convert(path)
    (note,) = found.notes
    assert note.startswith(change)
    assert note.endswith("to float32: conv1/weight")
    expected = native.state["backbone.conv1.weight"].astype(dtype).astype("f4")
    assert np.array_equal(found.weights.state["backbone.conv1.weight"], expected)


def test_an_unknown_parameter_in_an_npy_is_named(native: Weights, tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    layers = as_kaffe(native)
    layers["conv1"]["slope"] = np.ones(4, "f4")
    path.write_bytes(kaffe.encode(layers))
    with pytest.raises(FormatError, match="conv1/slope: unknown parameter, expected one of weigh"):
        deeplab_zoo.convert_legacy(path, tmp_path / "x.pth")


@pytest.mark.parametrize("nodes", [False, True])
def test_deepdish_weights_are_already_in_pytorchs_axis_order(
    native: Weights, tmp_path: Path, convert: Callable[..., Native], *, nodes: bool
) -> None:
    contents: Arrays = {}
    for name, data in variables(native).items():
        contents[name] = data.transpose(3, 2, 0, 1) if data.ndim == 4 else data
    if not nodes:
        slots = {f"{name}/Momentum": data for name, data in contents.items() if "weig" in name}
        contents |= slots | {"global_step": np.array(20000)}
    found = convert(as_deepdish(tmp_path / "x.h5", contents, nodes=nodes))
    assert_state(found, native)
    assert found.weights.numerics.name == "jaccard-segment"
    assert found.weights.config.scales == (1.0,)
    left = Counter(reason for _, reason in found.conversion.dropped)
    convolutions = sum(data.ndim == 4 for data in native.state.values())
    expected = {"an optimizer's slot": convolutions, "a step counter": 1}
    assert left == ({} if nodes else expected)

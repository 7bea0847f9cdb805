"""What a weights file says of itself, when that is not what we write."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import deeplab_zoo
from deeplab_zoo.converters import hdf5, weights
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config
from deeplab_zoo.converters.deeplab_v3 import DeepLabV3Config, infer_config, parameters
from deeplab_zoo.converters.describe import describe
from deeplab_zoo.converters.export import open_weights
from deeplab_zoo.converters.legacy import of_weights
from deeplab_zoo.converters.numerics import CAFFE_V2
from deeplab_zoo.converters.weights import KEY, Weights, read_header, write_safetensors
from deeplab_zoo.proto.errors import FormatError, MismatchError, UsageError


@pytest.fixture
def native(tiny_config: DeepLabV2Config, random_weights: Callable[..., Weights]) -> Weights:
    return random_weights(tiny_config)


@pytest.fixture
def said(native: Weights, tmp_path: Path) -> Callable[[Any], Path]:
    """Write weights, and beside them something else than what we say of them."""

    def write(description: Any) -> Path:
        path = tmp_path / "x.safetensors"
        text = description if isinstance(description, str) else json.dumps(description)
        with path.open("wb") as file:
            write_safetensors(native.state, {KEY: text}, file)
        return path

    return write


@pytest.fixture
def record(native: Weights, tmp_path: Path) -> dict[str, Any]:
    weights.write(native, tmp_path / "whole.safetensors")
    found: dict[str, Any] = json.loads(read_header(tmp_path / "whole.safetensors"))
    return found


@pytest.mark.parametrize("text", ["{", "[1]", '"x"', "3", '{"family": "graph", "version": 1}'])
def test_a_description_that_is_no_record_is_damage(said: Callable[[Any], Path], text: str) -> None:
    for read in (describe, deeplab_zoo.load):
        with pytest.raises(FormatError, match=r"x.safetensors: .* is damaged"):
            read(said(text))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("origin", 3),
        ("origin", {"framework": "caffe", "files": [1], "tool": "x"}),
        ("numerics", ["caffe-v2"]),
        ("config", 3),
        ("config", {"classes": 5.0}),
        ("config", {"blocks": [1, 2, 4]}),
        ("config", {"blocks": [1, 2, 4, 10**9]}),  # Would list as many names.
        ("config", {"rates": [6, 12, 18, "24"]}),
        ("config", {"rates": [0, 12, 18, 24]}),
        ("config", {"scales": []}),
        ("config", {"scales": [float("nan")]}),
    ],
)
def test_a_record_with_something_else_in_a_value_is_damage(
    said: Callable[[Any], Path], record: dict[str, Any], key: str, value: Any
) -> None:
    merged = {**record["config"], **value} if isinstance(value, dict) and key == "config" else value
    with pytest.raises(FormatError, match=r"x.safetensors: "):
        deeplab_zoo.load(said({**record, key: merged}))


def test_the_record_in_a_pth_is_held_to_the_same(native: Weights, tmp_path: Path) -> None:
    weights.write(native, tmp_path / "x.pth")
    state = torch.load(tmp_path / "x.pth")
    for metadata in ([1], {"": 3}, {"": {KEY: "{"}}, {"": {KEY: 3}}):
        state._metadata = metadata
        torch.save(state, tmp_path / "y.pth")
        with pytest.raises((FormatError, MismatchError), match=r"y.pth: "):
            open_weights(tmp_path / "y.pth")


def test_an_archives_settings_must_be_numbers_to_compute_with(
    native: Weights, tmp_path: Path
) -> None:
    archive = of_weights(native)
    for settings in ({"rates": (float("nan"),)}, {"rates": "x"}, {"scales": (1.0, 0.0)}):
        hdf5.write(
            type(archive)(archive.origin, archive.numerics, None, archive.tensors, settings),
            tmp_path / "x.h5",
        )
        with pytest.raises(MismatchError, match=r"rates|scales"):
            open_weights(tmp_path / "x.h5")


def test_a_number_where_a_kernel_should_be_is_one_tensor_that_does_not_fit() -> None:
    shapes: dict[str, tuple[int, ...]] = dict(parameters(DeepLabV3Config(backbone="mobilenet_v2")))
    for name in ("classifier.pyramid.pool.conv.weight", "classifier.score.conv.weight"):
        config = infer_config({**shapes, name: ()})
        assert (config.width, config.classes) == (1.0, 21)


def test_numbers_of_another_library_still_make_a_config() -> None:
    assert DeepLabV2Config(classes=np.int64(4)).classes == 4  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value"), [("bn_eps", 0.5), ("name", "mine"), ("channel_order", "RGB"), ("mean", 3.0)]
)
def test_an_archives_conventions_are_those_of_the_profile_that_it_names(
    native: Weights, tmp_path: Path, field: str, value: Any
) -> None:
    hdf5.write(of_weights(native), tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        file["numerics"].attrs[field] = value
    with pytest.raises(
        (FormatError, UsageError), match=rf"numerics.* {field} is|{value!r} is unknown"
    ):
        deeplab_zoo.load(tmp_path / "x.h5")


def test_an_archive_keeps_names_and_shapes_of_any_kind(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.pth")
    try:
        torch.save({"..weight": torch.ones(2), "s.weight": torch.tensor(3.0)}, str(path))
    except (OSError, RuntimeError):
        pytest.skip("this file system has no such names")
    deeplab_zoo.convert_legacy(path, tmp_path / "x.h5")
    archive = hdf5.read(tmp_path / "x.h5")
    assert list(archive.origin.files) == [path.name]
    assert {one.layer: one.data.shape for one in archive.tensors} == {".": (2,), "s": ()}
    torch.save({"weight": torch.ones(2)}, tmp_path / "y.pth")
    with pytest.raises(FormatError, match="y.pth: weight: expected a weight, .* of a layer"):
        deeplab_zoo.convert_legacy(tmp_path / "y.pth", tmp_path / "y.h5")


def test_numbers_that_numpy_lacks_are_refused_by_file(tmp_path: Path) -> None:
    save_file({"a.weight": torch.ones(2).to(torch.float8_e5m2)}, tmp_path / "x.safetensors")
    with pytest.raises(FormatError, match=r"x.safetensors: not a sound .*float8_e5m2"):
        weights.read_named(tmp_path / "x.safetensors")
    save_file({"a.weight": torch.ones(2).int()}, tmp_path / "x.safetensors")
    with pytest.raises(FormatError, match=r"x.safetensors: a.weight: int32, expected numbers with"):
        deeplab_zoo.convert_legacy(tmp_path / "x.safetensors", tmp_path / "y.h5")


def test_what_holds_no_state_dict_tells_its_keys(tmp_path: Path) -> None:
    torch.save({"model": {"a.weight": torch.ones(2)}, "epoch": 3}, tmp_path / "x.pth")
    with pytest.raises(
        FormatError, match=r"under 'state_dict'; its keys begin \['model', 'epoch'\]"
    ):
        weights.read_named(tmp_path / "x.pth")


def test_scales_that_caffes_net_lacks_are_told(native: Weights, tmp_path: Path) -> None:
    odd = replace(native, config=replace(native.config, scales=(1.0, 0.6)), numerics=CAFFE_V2)
    weights.write(odd, tmp_path / "x.pth")
    with pytest.raises(
        MismatchError, match="the scale 0.6: Caffe's net has the scales 1.0, 0.75, 0.5"
    ):
        deeplab_zoo.export(tmp_path / "x.pth", tmp_path / "x.caffemodel", to="caffe")

"""Native weights for other programs come home to the bit."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import deeplab_zoo
from deeplab_zoo.converters import weights
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config
from deeplab_zoo.converters.export import TARGETS, open_weights, variables
from deeplab_zoo.converters.naming.deeplab_v2 import LAYOUTS
from deeplab_zoo.converters.numerics import CAFFE_V2, TF_SLIM, Numerics
from deeplab_zoo.converters.weights import Weights
from deeplab_zoo.converters.write_caffe import deploy_net, filled
from deeplab_zoo.proto import caffemodel, kaffe
from deeplab_zoo.proto.checkpoint import open_checkpoint
from deeplab_zoo.proto.records import Blob
from deeplab_zoo.zoo.demo import random_blobs, write_net

Store = Callable[..., Path]
Save = Callable[..., Path]


def assert_same(one: Weights, other: Weights) -> None:
    assert (one.config, one.numerics) == (other.config, other.numerics)
    assert one.state.keys() == other.state.keys()
    for name, data in one.state.items():
        assert data.tobytes() == other.state[name].tobytes(), name
        assert data.shape == other.state[name].shape


def assert_same_blobs(path: Path, original: Path) -> None:
    found, expected = caffemodel.read(path), caffemodel.read(original)
    assert [one.name for one in found.layers] == [one.name for one in expected.layers]
    for layer, source in zip(found.layers, expected.layers, strict=True):
        assert len(layer.blobs) == len(source.blobs), layer.name
        for blob, other in zip(layer.blobs, source.blobs, strict=True):
            assert blob.shape == other.shape
            assert np.asarray(blob.data).tobytes() == np.asarray(other.data).tobytes()


@pytest.mark.parametrize("scales", [(1.0,), (1.0, 0.75, 0.5)])
@pytest.mark.parametrize("factors", ["as Caffe trains", "any"])
def test_a_caffemodel_comes_back_through_the_archive_with_its_raw_sums(
    tiny_config: DeepLabV2Config, tmp_path: Path, scales: tuple[float, ...], factors: str
) -> None:
    config = replace(tiny_config, scales=scales)
    blobs = random_blobs(config, 1)
    if factors == "any":
        random = np.random.default_rng(0)
        choices = np.array([0, 1, 0.1, 1e-3, 999.982], np.float32)
        for name, held in blobs.items():
            if len(held) == 3:
                blobs[name] = (*held[:2], Blob((1,), random.choice(choices, 1)))
    text, binary = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    write_net(filled(deploy_net(config, 65, 97), blobs), text, binary)
    deeplab_zoo.convert_caffe(text, binary, tmp_path / "x.h5")
    written = deeplab_zoo.export(tmp_path / "x.h5", tmp_path / "y.caffemodel", to="caffe")
    assert [one.name for one in written] == ["y.caffemodel", "y.prototxt"]
    assert_same_blobs(written[0], binary)
    assert written[0].read_bytes() == binary.read_bytes()
    assert written[1].read_text() == text.read_text()


@pytest.mark.parametrize("scales", [(1.0,), (1.0, 0.75, 0.5)])
def test_native_weights_become_a_caffemodel_that_comes_home(
    store: Store, tiny_config: DeepLabV2Config, tmp_path: Path, scales: tuple[float, ...]
) -> None:
    config = replace(tiny_config, scales=scales, rates=(2, 5, 7, 9))
    source = store(config, CAFFE_V2)
    binary, text = deeplab_zoo.export(source, tmp_path / "y.caffemodel", to="caffe")
    back = deeplab_zoo.convert_caffe(text, binary, tmp_path / "z.safetensors")
    assert_same(back.weights, weights.read(source))


@pytest.mark.parametrize("to", ["tf", "tf-v1"])
def test_a_checkpoint_comes_back_through_the_archive(
    store: Store, save_checkpoint: Save, tmp_path: Path, to: str
) -> None:
    expected = variables(weights.read(store()))
    source = save_checkpoint(expected)
    deeplab_zoo.convert_tensorflow(source, tmp_path / "x.h5")
    written = deeplab_zoo.export(tmp_path / "x.h5", tmp_path / "b.ckpt", to=to)
    assert [one.name for one in written] == (
        ["b.ckpt.index", "b.ckpt.data-00000-of-00001"] if to == "tf" else ["b.ckpt"]
    )
    found = open_checkpoint(tmp_path / "b.ckpt")
    assert (found.format, found.notes) == ("V2" if to == "tf" else "V1", ())
    assert set(found) == set(expected)
    for name, variable in found.items():
        assert variable.shape == expected[name].shape
        assert variable.read().tobytes() == expected[name].tobytes()
    if to == "tf":
        for end in ("index", "data-00000-of-00001"):
            ours = (tmp_path / f"b.ckpt.{end}").read_bytes()
            assert ours == Path(f"{source}.{end}").read_bytes()


@pytest.mark.golden
@pytest.mark.parametrize(("to", "files"), [("tf", ("v2", "v2")), ("tf-v1", ("v1", "v1"))])
def test_the_files_are_those_tensorflow_wrote(
    shared: Path, tmp_path: Path, to: str, files: tuple[str, str]
) -> None:
    source = shared / "golden" / "tf" / "small" / files[0]
    deeplab_zoo.convert_tensorflow(source / "model.ckpt", tmp_path / "x.safetensors")
    for one in deeplab_zoo.export(tmp_path / "x.safetensors", tmp_path / "model.ckpt", to=to):
        assert one.read_bytes() == (source / one.name).read_bytes()


READ_BY_TENSORFLOW = """
import sys
import numpy as np
import tensorflow as tf
for path in sys.argv[1:]:
    reader = tf.train.load_checkpoint(path)
    shapes = reader.get_variable_to_shape_map()
    out = {name: reader.get_tensor(name) for name in shapes}
    assert all(list(out[name].shape) == shapes[name] for name in out)
    np.savez(path + ".npz", **{name.replace("/", "|"): value for name, value in out.items()})
"""


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="needs tensorflow")
def test_tensorflow_reads_what_is_exported(store: Store, tmp_path: Path) -> None:
    expected = variables(weights.read(store()))
    deeplab_zoo.export(tmp_path / "native.safetensors", tmp_path / "x.h5", to="h5")
    paths = [tmp_path / "two.ckpt", tmp_path / "one.ckpt"]
    for path, to in zip(paths, ("tf", "tf-v1"), strict=True):
        deeplab_zoo.export(tmp_path / "x.h5", path, to=to)
    quiet = {"TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", READ_BY_TENSORFLOW, *map(str, paths)]
    done = subprocess.run(
        command, env=os.environ | quiet, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for path in paths:
        with np.load(f"{path}.npz") as found:
            assert {name.replace("|", "/") for name in found.files} == set(expected)
            for name, data in expected.items():
                value = found[name.replace("/", "|")]
                assert (value.shape, value.dtype) == (data.shape, data.dtype)
                assert value.tobytes() == data.tobytes()


def test_layouts_lead_back_to_where_they_began(store: Store, tmp_path: Path) -> None:
    first = store(name="0.pth", layout="isht7")
    for step, layout in enumerate(("canonical", "kazuto1011", "advsemiseg", "isht7"), 1):
        deeplab_zoo.export(tmp_path / f"{step - 1}.pth", tmp_path / f"{step}.pth", layout=layout)
        assert_same(weights.read(tmp_path / f"{step}.pth"), weights.read(first))
    one, other = (torch.load(tmp_path / f"{step}.pth", weights_only=True) for step in (0, 4))
    assert list(one) == list(other)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert first.read_bytes() == (tmp_path / "4.pth").read_bytes()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_safetensors_take_every_layout(store: Store, tmp_path: Path, layout: str) -> None:
    source = store()
    out = tmp_path / "y.safetensors"
    deeplab_zoo.export(source, out, to="safetensors", layout=layout)
    assert_same(weights.read(out), weights.read(source))


def test_an_npy_comes_back_byte_for_byte(store: Store, tmp_path: Path) -> None:
    deeplab_zoo.export(store(), tmp_path / "a.npy", to="npy")
    native = deeplab_zoo.convert_legacy(tmp_path / "a.npy", tmp_path / "x.safetensors")
    assert native is not None
    deeplab_zoo.export(tmp_path / "x.safetensors", tmp_path / "b.npy", to="npy")
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    layers = kaffe.read(tmp_path / "b.npy")
    assert layers["conv1"]["weights"].shape == (7, 7, 3, 4)
    assert set(layers["bn2a_branch1"]) == {"mean", "variance", "scale", "offset"}
    assert set(layers["fc1_voc12_c2"]) == {"weights", "biases"}


@pytest.mark.parametrize(
    ("numerics", "changes"),
    [
        (TF_SLIM, {"scales": (1.0, 0.75, 0.5)}),
        (CAFFE_V2, {"rates": (2, 5, 9)}),
        (CAFFE_V2, {"rates": (3,), "scales": (1.0, 0.5)}),
    ],
)
def test_an_archive_keeps_all_of_the_model(
    store: Store,
    tiny_config: DeepLabV2Config,
    tmp_path: Path,
    changes: dict[str, Any],
    numerics: Numerics,
) -> None:
    source = store(replace(tiny_config, **changes), numerics)
    deeplab_zoo.export(source, tmp_path / "x.h5", to="h5")
    assert_same(open_weights(tmp_path / "x.h5"), weights.read(source))
    deeplab_zoo.export(tmp_path / "x.h5", tmp_path / "y.safetensors", to="safetensors")
    assert_same(weights.read(tmp_path / "y.safetensors"), weights.read(source))
    assert deeplab_zoo.load(tmp_path / "x.h5").config == weights.read(source).config


def test_an_archive_of_native_weights_becomes_a_caffemodel(store: Store, tmp_path: Path) -> None:
    source = store(numerics=CAFFE_V2)
    deeplab_zoo.export(source, tmp_path / "x.h5", to="h5")
    for name in ("x.h5", "native.safetensors"):
        deeplab_zoo.export(tmp_path / name, tmp_path / f"{name}.caffemodel", to="caffe")
    ours = (tmp_path / "x.h5.caffemodel").read_bytes()
    assert ours == (tmp_path / "native.safetensors.caffemodel").read_bytes()


@pytest.mark.parametrize("to", TARGETS)
def test_equal_input_gives_equal_files(store: Store, tmp_path: Path, to: str) -> None:
    source = store()
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        out = folder / f"y{TARGETS[to].suffix}"
        deeplab_zoo.export(source, out, to=to, mixed_numerics=True)
    names = sorted(one.name for one in folders[0].iterdir())
    assert names == sorted(one.name for one in folders[1].iterdir())
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_a_checkpoints_index_comes_after_its_data(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = store()
    named: list[str] = []
    replace_file = Path.replace

    def note(path: Path, target: Path) -> Path:
        named.append(target.name)
        return replace_file(path, target)

    monkeypatch.setattr(Path, "replace", note)
    deeplab_zoo.export(source, tmp_path / "y", to="tf")
    assert named == ["y.data-00000-of-00001", "y.index"]

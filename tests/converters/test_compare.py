"""Two files of any formats: equal to the bit, or what differs and by how much."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import deeplab_zoo
from deeplab_zoo.converters import hdf5, weights
from deeplab_zoo.converters.compare import Agreement, Difference
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config
from deeplab_zoo.converters.export import TARGETS
from deeplab_zoo.converters.numerics import TF_SLIM
from deeplab_zoo.converters.write_caffe import deploy_net, filled
from deeplab_zoo.proto import caffemodel
from deeplab_zoo.proto.errors import FormatError, MismatchError, ZooError
from deeplab_zoo.zoo.demo import random_blobs, write_net

Make = Callable[..., tuple[Path, Path]]
State = dict[str, Any]
Changed = Callable[..., Path]

NAME = "backbone.layer3.1.conv2.weight"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def binary(folder: Path, tiny_config: DeepLabV2Config) -> Path:
    path = folder / "net.caffemodel"
    net = filled(deploy_net(tiny_config, 65, 97), random_blobs(tiny_config, 1))
    write_net(net, folder / "net.prototxt", path)
    return path


@pytest.fixture(scope="module")
def archive(binary: Path, folder: Path) -> Path:
    deeplab_zoo.convert_caffe(None, binary, folder / "x.h5")
    return folder / "x.h5"


@pytest.fixture(scope="module")
def native(archive: Path, folder: Path) -> Path:
    """The same as safetensors."""
    deeplab_zoo.export(archive, folder / "x.safetensors", to="safetensors")
    return folder / "x.safetensors"


@pytest.fixture
def changed(native: Path, tmp_path: Path) -> Changed:
    """Write a copy of the native weights with another state."""

    def write(
        change: Callable[[State], None], name: str = "changed.safetensors", **fields: Any
    ) -> Path:
        found = weights.read(native)
        state = {name: data.copy() for name, data in found.state.items()}
        change(state)
        weights.write(replace(found, state=state, **fields), tmp_path / name)
        return tmp_path / name

    return write


# Equal


@pytest.mark.parametrize("to", TARGETS)
def test_every_format_holds_the_same_weights(
    binary: Path, archive: Path, native: Path, tmp_path: Path, to: str
) -> None:
    out = tmp_path / f"y{TARGETS[to].suffix}"
    deeplab_zoo.export(archive, out, to=to, mixed_numerics=True)
    for path in (binary, archive):
        found = deeplab_zoo.compare(path, out)
        assert found.equal, found.differences[:3]
        assert found.differences == ()
        assert found.tensors == len(weights.read(native).state)
    theirs = "tf-slim" if to in ("tf", "tf-v1", "npy") else "caffe-v2"
    assert deeplab_zoo.compare(binary, out).numerics == ("caffe-v2", theirs)


def plain(native: Path, folder: Path, layout: str) -> Path:
    """The same in a program's own names, without our record."""
    deeplab_zoo.export(native, folder / "y.pth", layout=layout)
    state = {f"module.{k}": v for k, v in torch.load(folder / "y.pth").items()}
    torch.save({"state_dict": state}, folder / "z.pth")
    return folder / "z.pth"


@pytest.mark.parametrize("layout", ["isht7", "kazuto1011", "canonical"])
def test_a_state_dict_without_our_record_is_compared_too(
    native: Path, tmp_path: Path, layout: str
) -> None:
    assert deeplab_zoo.compare(native, plain(native, tmp_path, layout)).equal


@pytest.mark.parametrize(
    ("layout", "profile"),
    [
        ("isht7", "caffe-v2"),
        ("kazuto1011", "torch-halfpixel"),
        ("advsemiseg", "not recorded"),
        ("canonical", "not recorded"),
    ],
)
def test_a_state_dicts_profile_is_reported_where_its_layout_tells_it(
    native: Path, tmp_path: Path, layout: str, profile: str
) -> None:
    found = deeplab_zoo.compare(plain(native, tmp_path, layout), native)
    assert found.numerics == (profile, "caffe-v2")


def test_caffes_hdf5_weights_are_compared_without_their_graph(
    binary: Path, native: Path, tmp_path: Path
) -> None:
    path = tmp_path / "x.caffemodel.h5"
    with h5py.File(path, "w") as file:
        for layer in caffemodel.read(binary).layers:
            group = file.create_group(f"data/{layer.name}")
            for index, blob in enumerate(layer.blobs):
                group[str(index)] = np.asarray(blob.data).reshape(blob.shape)
    assert deeplab_zoo.compare(path, native).equal


def test_a_multi_scale_file_holds_the_weights_of_a_single_scale_one(
    make_net: Make, tiny_config: DeepLabV2Config, tiny_multi: DeepLabV2Config, tmp_path: Path
) -> None:
    single = make_net(tiny_config)[1].rename(tmp_path / "single.caffemodel")
    _, multi = make_net(tiny_multi)
    assert deeplab_zoo.compare(single, multi).equal


def test_conventions_are_reported_and_change_no_value(native: Path, changed: Changed) -> None:
    other = changed(lambda _: None, numerics=TF_SLIM)
    found = deeplab_zoo.compare(native, other)
    assert found == Agreement(found.tensors, (), ("caffe-v2", "tf-slim"))


def test_nan_is_equal_to_the_same_nan(changed: Changed) -> None:
    def spoil(state: State) -> None:
        state[NAME].flat[:3] = np.nan, np.inf, -np.inf

    assert deeplab_zoo.compare(changed(spoil, "one.safetensors"), changed(spoil)).equal


# Different


def difference(one: Path, other: Path) -> Difference:
    (found,) = deeplab_zoo.compare(one, other).differences
    return found


def test_one_changed_value_is_found_with_its_distance(native: Path, changed: Changed) -> None:
    def change(state: State) -> None:
        state[NAME][2, 1, 0, 2] += np.float32(0.25)

    found = difference(native, changed(change))
    assert (found.name, found.reason) == (NAME, "values differ")
    assert found.max_abs == pytest.approx(0.25, rel=1e-6)


@pytest.mark.parametrize("to", TARGETS)
def test_one_flipped_low_bit_is_found_in_any_format(
    native: Path, changed: Changed, tmp_path: Path, to: str
) -> None:
    def flip(state: State) -> None:
        state[NAME].view(np.uint32).flat[5] ^= 1

    out = tmp_path / f"y{TARGETS[to].suffix}"
    deeplab_zoo.export(changed(flip), out, to=to, mixed_numerics=True)
    found = difference(native, out)
    assert found.name == NAME
    assert found.max_abs is not None
    assert 0 < found.max_abs < 1e-7


def test_zeros_of_either_sign_differ(changed: Changed) -> None:
    def zero(state: State) -> None:
        state[NAME].flat[0] = 0

    def negative(state: State) -> None:
        state[NAME].flat[0] = -0.0

    found = difference(changed(zero, "zero.safetensors"), changed(negative))
    assert found == Difference(NAME, 0.0, "values differ")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_on_one_side_differs(
    native: Path, changed: Changed, value: float
) -> None:
    def change(state: State) -> None:
        state[NAME].flat[0] = value

    found = difference(native, changed(change))
    assert found.max_abs is not None
    assert not np.isfinite(found.max_abs)


def test_infinities_on_both_sides_do_not_hide_the_distance(changed: Changed) -> None:
    def infinite(state: State) -> None:
        state[NAME].flat[:4] = np.inf, np.nan, 3e38, 1

    def further(state: State) -> None:
        state[NAME].flat[:4] = np.inf, np.nan, -3e38, 1

    found = difference(changed(infinite, "infinite.safetensors"), changed(further))
    assert found.max_abs == pytest.approx(6e38)  # More than float32 holds.


def test_other_shapes_and_missing_tensors_are_said(
    native: Path, tiny_config: DeepLabV2Config, make_net: Make
) -> None:
    _, binary = make_net(replace(tiny_config, blocks=(1, 2, 4, 2), classes=6))
    found = deeplab_zoo.compare(native, binary)
    by_name = {one.name: one for one in found.differences}
    assert by_name["classifier.convs.0.bias"] == Difference(
        "classifier.convs.0.bias", None, "shape [5] against [6]"
    )
    assert by_name["backbone.layer4.2.bn1.weight"].reason == "only in the first file"
    back = {one.name: one for one in deeplab_zoo.compare(binary, native).differences}
    assert back["backbone.layer4.2.bn1.weight"].reason == "only in the second file"
    assert found.tensors == len(weights.read(native).state)
    assert len(by_name) == 8 + 15


# What cannot be compared


def test_files_without_weights_of_the_model_are_refused(
    native: Path, make_net: Make, tiny_config: DeepLabV2Config, golden: Path, tmp_path: Path
) -> None:
    text, _ = make_net(tiny_config)
    with pytest.raises(FormatError, match="net.prototxt: is a prototxt, expected a file of weight"):
        deeplab_zoo.compare(native, text)
    with pytest.raises(ZooError, match=r"none: no such file|none: no TensorFlow checkpoint"):
        deeplab_zoo.compare(tmp_path / "none", native)
    for name in ("fmt_new.caffemodel", "fmt_new.caffemodel.h5"):
        with pytest.raises(MismatchError):
            deeplab_zoo.compare(golden / "caffe" / name, native)


def test_an_archive_without_conventions_makes_no_comparison(
    archive: Path, native: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "x.h5"
    hdf5.write(replace(hdf5.read(archive), numerics=None), bare)
    with pytest.raises(MismatchError, match="does not tell the conventions"):
        deeplab_zoo.compare(bare, native)

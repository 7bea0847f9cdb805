import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from deeplab_zoo.converters import hdf5
from deeplab_zoo.converters.archive import Archive
from deeplab_zoo.converters.convert import read_caffe
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config
from deeplab_zoo.converters.native import to_native
from deeplab_zoo.proto.errors import FormatError, MismatchError

Make = Callable[..., tuple[Path, Path]]


@pytest.fixture
def archive(make_net: Make, tiny_multi: DeepLabV2Config) -> Archive:
    return read_caffe(*make_net(tiny_multi))


@pytest.fixture
def path(archive: Archive, tmp_path: Path) -> Path:
    path = tmp_path / "a.h5"
    hdf5.write(archive, path)
    return path


def test_an_archive_reads_back_as_it_was(archive: Archive, path: Path) -> None:
    found = hdf5.read(path)
    assert found.origin == archive.origin
    assert found.numerics == archive.numerics
    assert found.graph is not None
    assert archive.graph is not None
    assert [one.params for one in found.graph.layers] == [
        one.params for one in archive.graph.layers
    ]
    ours = {one.name: one for one in archive.tensors}
    assert len(found.tensors) == len(ours)
    for tensor in found.tensors:
        source = ours[tensor.name]
        assert tensor.data.tobytes() == np.ascontiguousarray(source.data).tobytes()
        assert tensor.sources == source.sources
        assert (tensor.source_dtype, tensor.transform) == (source.source_dtype, source.transform)


def test_equal_archives_are_equal_files(archive: Archive, path: Path, tmp_path: Path) -> None:
    time.sleep(1.1)  # HDF5 counts times in seconds, and none may be in the file.
    hdf5.write(archive, tmp_path / "b.h5")
    assert (tmp_path / "b.h5").read_bytes() == path.read_bytes()
    hdf5.write(hdf5.read(path), tmp_path / "c.h5")
    assert (tmp_path / "c.h5").read_bytes() == path.read_bytes()


def test_the_file_is_as_its_specification_says(path: Path, archive: Archive) -> None:
    with h5py.File(path) as file:
        assert file.attrs["format"] == "deeplab-zoo archive"
        assert file.attrs["version"] == 1
        assert file.attrs["framework"] == "caffe"
        assert set(file) == {"origin", "numerics", "graph", "tensors"}
        assert set(file["origin"].attrs) == {"net.prototxt", "net.caffemodel"}
        assert file["numerics"].attrs["name"] == "caffe-v2"
        assert file["graph"].dtype == np.uint8
        assert bytes(file["graph"][()]).startswith(b'name: "deeplab_v2"')
        weight = file["tensors/res2a_branch2b/weight"]
        assert weight.dtype == "<f4"
        assert set(weight.attrs) == {"source", "source_dtype", "transform"}
        assert list(weight.attrs["source"]) == [
            "res2a_branch2b[0]",
            "res2a_branch2b_res075[0]",
            "res2a_branch2b_res05[0]",
        ]
        assert set(file["tensors/bn_conv1"]) == {
            "mean", "variance", "gamma", "beta", "mean_sum", "variance_sum", "factor",
        }  # fmt: skip
        assert file["tensors/bn_conv1/mean"].attrs["transform"].startswith("multiplied by 1/999.98")
    assert archive.notes == ()


def test_the_raw_sums_and_the_factor_give_the_statistics_back(path: Path) -> None:
    with h5py.File(path) as file:
        layer = file["tensors/bn_conv1"]
        scale = np.float32(1) / layer["factor"][0]
        assert (layer["mean_sum"][()] * scale).tobytes() == layer["mean"][()].tobytes()
        assert (layer["variance_sum"][()] * scale).tobytes() == layer["variance"][()].tobytes()


def test_layer_names_with_slashes_stay_one_layer(archive: Archive, tmp_path: Path) -> None:
    odd = replace(archive.tensors[0], layer="inception/1x1 a%b.")
    hdf5.write(replace(archive, tensors=(odd,)), tmp_path / "odd.h5")
    assert hdf5.read(tmp_path / "odd.h5").tensors[0].layer == "inception/1x1 a%b."


Damage = Callable[[h5py.File], object]


def delete(name: str) -> Damage:
    def damage(file: h5py.File) -> None:
        del file[name]

    return damage


def delete_attribute(name: str, at: str) -> Damage:
    def damage(file: h5py.File) -> None:
        del file[at].attrs[name]

    return damage


def attribute(name: str, value: object, at: str = "/") -> Damage:
    def damage(file: h5py.File) -> None:
        file[at].attrs[name] = value

    return damage


def put(name: str, value: object) -> Damage:
    def damage(file: h5py.File) -> None:
        del file[name]
        file[name] = value

    return damage


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (
            attribute("format", "other"),
            "an HDF5 file of another kind, expected a deeplab-zoo archive",
        ),
        (attribute("version", 2), "archive version 2, expected at most 1.*upgrade"),
        (attribute("version", [1, 2]), "damaged or not a deeplab-zoo archive"),
        (attribute("mean", [1.0, 2.0, 3.0], "numerics"), r"mean is \[1. 2. 3.\], expected \(104"),
        (attribute("padding", "some", "numerics"), "padding is some, expected explicit as in"),
        (delete("tensors"), "/tensors: missing"),
        (delete_attribute("mean", "numerics"), "/numerics: attribute 'mean' is missing"),
        (put("tensors/bn_conv1/mean", np.zeros(4)), "bn_conv1/mean: float64, expected float32"),
        (put("tensors/bn_conv1/mean", np.zeros(4, "i4")), "mean: numbers of type int32"),
        (put("tensors/bn_conv1/mean", h5py.ExternalLink("x.h5", "/")), "a link to elsewhere"),
        (
            put("tensors/bn_conv1/mean", h5py.SoftLink("/tensors/bn_conv1/beta")),
            "a link to elsewhere",
        ),
        (put("graph", np.zeros(4)), "/graph: float64"),
        (put("graph", np.frombuffer(b"layer {", np.uint8)), "/graph:1:8: found the end"),
    ],
)
def test_a_damaged_archive_is_refused_with_the_place(
    path: Path, damage: Damage, complaint: str
) -> None:
    with h5py.File(path, "r+") as file:
        damage(file)
    with pytest.raises(FormatError, match=complaint):
        hdf5.read(path)


def test_an_archive_without_conventions_reads_but_makes_no_model(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["numerics"]
    found = hdf5.read(path)
    assert found.numerics is None
    with pytest.raises(MismatchError, match="does not tell the conventions"):
        to_native(found)


def test_settings_are_kept_where_there_is_no_graph(archive: Archive, tmp_path: Path) -> None:
    told = replace(archive, graph=None, settings={"scales": (1.0, 0.75), "rates": (6, 12)})
    hdf5.write(told, tmp_path / "told.h5")
    assert hdf5.read(tmp_path / "told.h5").settings == told.settings


def test_an_unknown_role_is_refused(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["tensors/bn_conv1"].create_dataset("momentum", data=np.zeros(4, "<f4"))
    with pytest.raises(FormatError, match="bn_conv1/momentum: unknown role"):
        hdf5.read(path)


def test_a_missing_attribute_is_named(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["tensors/bn_conv1/mean"].attrs["transform"]
    with pytest.raises(FormatError, match="bn_conv1/mean: attribute 'transform' is missing"):
        hdf5.read(path)


def test_a_file_cut_short_is_refused(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(FormatError, match="damaged or not a deeplab-zoo archive"):
        hdf5.read(path)

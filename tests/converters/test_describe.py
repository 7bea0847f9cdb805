"""What is in a file, of every format."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import deeplab_zoo
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config, parameters
from deeplab_zoo.converters.describe import describe
from deeplab_zoo.proto.errors import ZooError

Make = Callable[..., tuple[Path, Path]]
Save = Callable[..., Path]


def test_every_format_is_described_with_its_tensors_and_digests(
    files: Path, tiny_config: DeepLabV2Config
) -> None:
    kinds = {
        "net.caffemodel": "Caffe caffemodel",
        "x.h5": "deeplab-zoo archive",
        "x.safetensors": "safetensors weights",
        "x.pth": "PyTorch state dict",
        "x.npy": "caffe-tensorflow weights",
        "tf": "TensorFlow checkpoint",
        "tf-v1": "TensorFlow checkpoint",
    }
    shapes = parameters(tiny_config)
    numbers = sum(int(np.prod(shape)) for shape in shapes.values())
    for name, kind in kinds.items():
        found = describe(files / name)
        assert (found.kind, found.path) == (kind, files / name)
        told = name in ("net.caffemodel", "x.h5", "x.safetensors", "x.pth")
        assert found.content == "DeepLab v2 ResNet" + (", single-scale" if told else "")
        held = sum(int(np.prod(row.shape)) for row in found.tensors)
        # Caffe's sums are divided by a number each, and the archive has both.
        norms = [shape[0] for key, shape in shapes.items() if key.endswith("running_mean")]
        extra = {"net.caffemodel": len(norms), "x.h5": len(norms) + 2 * sum(norms)}
        assert held == numbers + extra.get(name, 0), name
        for row in found.tensors:
            assert row.dtype == "float32"
            assert row.minimum <= row.mean <= row.maximum
            assert row.std >= 0
            assert row.non_finite == 0
        for one, digest in found.sha256.items():
            assert hashlib.sha256((files / one).read_bytes()).hexdigest() == digest
        assert found.bytes == sum((files / one).stat().st_size for one in found.sha256)
        assert found.notes == ()


def test_a_state_dict_says_what_it_records(files: Path) -> None:
    for name in ("x.safetensors", "x.pth"):
        facts = describe(files / name).facts
        assert facts["numerics"] == "caffe-v2"
        assert "blocks [1, 2, 4, 3]" in facts["config"]
        assert facts["made by"].startswith("deeplab-zoo ")
        digest = hashlib.sha256((files / "net.caffemodel").read_bytes()).hexdigest()
        assert facts["from net.caffemodel"] == digest


def test_a_checkpoint_is_described_by_its_prefix_with_all_its_files(files: Path) -> None:
    found = describe(files / "tf")
    assert found.facts["format"] == "V2"
    assert set(found.sha256) == {"tf.index", "tf.data-00000-of-00001"}
    assert describe(files / "tf.data-00000-of-00001").tensors == found.tensors
    assert describe(files / "tf-v1").facts["format"] == "V1"
    assert describe(files / "tf-v1").tensors == found.tensors


@pytest.mark.parametrize("name", ["net.prototxt", "net.caffemodel", "x.h5"])
def test_a_graph_is_described_layer_by_layer(files: Path, name: str) -> None:
    found = describe(files / name)
    by_name = {layer.name: layer for layer in found.layers}
    assert by_name["res2a_branch2b"].type == "Convolution"
    assert by_name["res2a_branch2b"].bottoms == ("res2a_branch2a",)
    assert (by_name["conv1"].line is not None) == (name != "net.caffemodel")


def test_scales_are_told_by_the_graph_or_the_record(
    make_net: Make, tiny_multi: DeepLabV2Config, tmp_path: Path
) -> None:
    text, binary = make_net(tiny_multi)
    for name in ("x.safetensors", "x.h5"):
        deeplab_zoo.convert_caffe(text, binary, tmp_path / name)
    deeplab_zoo.export(tmp_path / "x.safetensors", tmp_path / "y.h5", to="h5")
    for path in (text, binary, *(tmp_path / name for name in ("x.safetensors", "x.h5", "y.h5"))):
        assert describe(path).content == "DeepLab v2 ResNet, multi-scale", path


def test_a_network_that_shares_names_with_ours_is_not_taken_for_it(tmp_path: Path) -> None:
    import torch

    names = (
        "backbone.conv1.weight",
        "backbone.layer1.0.conv1.weight",
        "decoder.last_conv.0.weight",
    )
    torch.save({name: torch.ones(2) for name in names}, tmp_path / "x.pth")
    assert describe(tmp_path / "x.pth").content == "DeepLab v3 or v3+, without a classifier"
    torch.save({name: torch.ones(2) for name in names[:2]}, tmp_path / "x.pth")
    assert describe(tmp_path / "x.pth").content == "DeepLab v2 ResNet, without a classifier"


def test_types_without_statistics_and_values_that_are_not_finite_are_described(
    save_checkpoint: Save,
) -> None:
    path = save_checkpoint(
        {
            "bad/weights": np.array([np.nan, 3, np.inf, 1], "f4"),
            "empty": np.zeros((0, 3), "f4"),
            "large": np.array([3e38, 3e38], "f4"),
            "huge": np.array([1e308, 1.5e308]),
            "mask": np.array([True, False, True, True]),
            "names": np.array([b"a", b"b"], object),
            "step": np.array(7, "i8"),
            "wave": np.array([1j], "c8"),
        },
    )
    rows = {row.name: row for row in describe(path).tensors}
    bad = rows["bad/weights"]
    assert (bad.minimum, bad.maximum, bad.mean, bad.std, bad.non_finite) == (1, 3, 2, 1, 2)
    assert rows["large"].mean == pytest.approx(3e38)
    assert rows["huge"].maximum == 1.5e308
    assert (rows["mask"].mean, rows["mask"].dtype) == (0.75, "bool")
    assert (rows["step"].shape, rows["step"].maximum) == ((), 7)
    for name, dtype in (("empty", "float32"), ("names", "string"), ("wave", "complex64")):
        assert rows[name].dtype == dtype
        assert np.isnan(rows[name].mean)
        assert rows[name].non_finite == 0


@pytest.mark.golden
@pytest.mark.parametrize(
    ("name", "tensors", "content"),
    [
        ("v1/model.ckpt", 528, "DeepLab v2 ResNet"),
        ("v2_train/model.ckpt-20000", 665, "DeepLab v2 ResNet"),
        ("object/ckpt-1", 531, "DeepLab v2 ResNet"),
        ("extras/extras_v2.ckpt", 22, "names that belong to no network we know"),
        ("exotic/extras_v2_bigendian.ckpt", 22, "names that belong to no network we know"),
        ("object/tiny_escape", 5, "names that belong to no network we know"),
        ("v1_sharded/model.ckpt", 47, "DeepLab v2 ResNet"),
    ],
)
def test_real_checkpoints_are_described(
    shared: Path, name: str, tensors: int, content: str
) -> None:
    found = describe(shared / "golden" / "tf" / "small" / name)
    assert (len(found.tensors), found.content) == (tensors, content)
    assert bool(found.notes) == ("bigendian" in name)


def test_another_network_is_named(save_checkpoint: Save) -> None:
    names = (
        "resnet_v1_101/conv1/weights",
        "resnet_v1_101/block1/unit_1/bottleneck_v1/conv1/weights",
    )
    path = save_checkpoint({name: np.ones((1, 1, 2, 2), "f4") for name in names})
    assert describe(path).content == "ImageNet ResNet v1 of TensorFlow-Slim"


def test_real_deepdish_and_caffe_hdf5_are_described(golden: Path, tmp_path: Path) -> None:
    import gzip

    path = tmp_path / "x.h5"
    path.write_bytes(gzip.decompress((golden / "deepdish" / "python2.h5.gz").read_bytes()))
    found = describe(path)
    assert found.kind == "deepdish weights of jaccardSegment"
    assert len(found.tensors) == 3 * 86 + 2
    assert describe(golden / "caffe" / "fmt_new.caffemodel.h5").kind == "Caffe HDF5 weights"


def test_a_missing_or_damaged_file_is_an_error(save_checkpoint: Save, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="none: no such file"):
        describe(tmp_path / "none")
    path = save_checkpoint({"conv1/weights": np.ones((2, 3), "f4")}, "x")
    data = tmp_path / "x.data-00000-of-00001"
    data.write_bytes(b"\x01" + data.read_bytes()[1:])
    with pytest.raises(ZooError, match=r"x.data-00000-of-00001.*crc32c"):
        describe(path)


def test_a_missing_shard_is_a_note_and_its_variables_are_left_out(
    save_checkpoint: Save, tmp_path: Path
) -> None:
    path = save_checkpoint({"conv1/weights": np.ones((2, 3), "f4")}, "x")
    (tmp_path / "x.data-00000-of-00001").unlink()
    found = describe(path)
    assert found.tensors == ()
    assert found.notes == ("x.data-00000-of-00001: missing, its variables cannot be read",)

"""Options that have no effect on a file, and results that come in pairs."""

from pathlib import Path

import pytest
import torch

import deeplab_zoo
from deeplab_zoo.proto.errors import UsageError, ZooError


def test_a_caffemodel_comes_with_its_prototxt_or_not_at_all(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    deeplab_zoo.convert_caffe(*files, tmp_path / "x.pth")
    (tmp_path / "y.prototxt").mkdir()
    with pytest.raises(ZooError, match=r"y.prototxt: is a folder"):
        deeplab_zoo.export(tmp_path / "x.pth", tmp_path / "y.caffemodel", to="caffe")
    assert not (tmp_path / "y.caffemodel").exists()


def test_options_of_a_model_are_refused_where_there_is_none(tmp_path: Path) -> None:
    torch.save({"a.b.weight": torch.zeros(2)}, tmp_path / "x.pth")
    out = tmp_path / "x.h5"
    with pytest.raises(UsageError, match=r"no native model, which --num-classes, --multi-scale"):
        deeplab_zoo.convert_legacy(tmp_path / "x.pth", out, num_classes=5, multi_scale=True)
    assert not out.exists()
    kept = tmp_path / "kept.h5"
    assert deeplab_zoo.convert_legacy(tmp_path / "x.pth", out, keep_hdf5=kept) is None
    assert kept.read_bytes() == out.read_bytes()


def test_options_of_another_network_are_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    archive, out = tmp_path / "x.h5", tmp_path / "y.pth"
    deeplab_zoo.convert_caffe(*files, archive)
    with pytest.raises(UsageError, match=r"--multi-scale: this DeepLab v2 ResNet runs at one"):
        deeplab_zoo.convert_legacy(archive, out, multi_scale=True)
    with pytest.raises(UsageError, match=r"--output-stride: a DeepLab v2 ResNet has but one"):
        deeplab_zoo.convert_legacy(archive, out, output_stride=16)


def test_the_archive_that_is_kept_is_called_one(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"y.pth: expected a name that ends in .h5 for --hdf5"):
        deeplab_zoo.convert_caffe(*files, tmp_path / "x.pth", keep_hdf5=tmp_path / "y.pth")
    assert not (tmp_path / "x.pth").exists()


def test_an_export_does_not_write_over_its_source(files: tuple[Path, Path], tmp_path: Path) -> None:
    deeplab_zoo.convert_caffe(*files, tmp_path / "x.pth")
    with pytest.raises(UsageError, match=r"x.pth: is read or written already"):
        deeplab_zoo.export(tmp_path / "x.pth", tmp_path / "x.pth", layout="isht7")

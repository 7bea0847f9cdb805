"""Reports on networks that the real Caffe and the real TensorFlow wrote and ran."""

from pathlib import Path

import pytest

import deeplab_zoo

pytestmark = pytest.mark.golden


@pytest.mark.parametrize(("net", "blobs"), [("single", 144), ("msc", 25)])
def test_every_recorded_blob_of_the_real_caffe_is_reproduced(
    small: Path, tmp_path: Path, net: str, blobs: int
) -> None:
    files = small / f"{net}.prototxt", small / f"{net}.caffemodel"
    deeplab_zoo.convert_caffe(*files, tmp_path / "x.safetensors")
    recorded = small / f"{net}_blobs.npz"
    if net == "msc":  # Its file has the other branches only; the input is the single net's.
        recorded = with_input(recorded, small / "single_blobs.npz", tmp_path)
    report = deeplab_zoo.parity(tmp_path / "x.safetensors", *files, recorded_blobs=recorded)
    assert report.passed, report.verdict
    assert report.uncompared == ()
    assert len(report.cases[0].comparisons) >= blobs
    ours = max(one.ours_exact or 0 for one in report.cases[0].comparisons)
    theirs = max(one.reference_exact or 0 for one in report.cases[0].comparisons)
    assert ours < 2e-6
    assert theirs < 2e-6


def with_input(recorded: Path, other: Path, folder: Path) -> Path:
    import numpy as np

    np.savez(folder / "whole.npz", **{**np.load(recorded), "data": np.load(other)["data"]})
    return folder / "whole.npz"


@pytest.mark.parametrize("name", ["v2", "v1/model.ckpt", "v2_sharded"])
def test_checkpoints_of_the_real_tensorflow_run_alike_in_it(
    shared: Path, tmp_path: Path, name: str
) -> None:
    pytest.importorskip("tensorflow")
    checkpoint = shared / "golden" / "tf" / "small" / name
    deeplab_zoo.convert_tensorflow(checkpoint, tmp_path / "x.safetensors")
    report = deeplab_zoo.parity(
        tmp_path / "x.safetensors", checkpoint, sizes=[(66, 97)], exact=False
    )
    assert report.passed, report.verdict
    assert len(report.cases[0].comparisons) == 145
    assert report.engine.startswith("TensorFlow")

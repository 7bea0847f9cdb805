"""Activations that were recorded elsewhere, as the reference."""

from pathlib import Path

import h5py
import numpy as np
import pytest

import deeplab_zoo
from deeplab_zoo.proto.errors import FormatError, MismatchError, ZooError
from deeplab_zoo.zoo.parity import ours, recorded


def test_recorded_activations_are_a_reference(
    tmp_path: Path, native: Path, caffe_files: tuple[Path, Path]
) -> None:
    image = np.random.default_rng(0).normal(0, 60, (2, 3, 33, 47)).astype(np.float32)
    blobs = dict(ours.engine(deeplab_zoo.load(native)).run({"data": image}))
    kept = {name: blobs[name] for name in ("data", "res3a", "fc1_voc12")}
    np.savez(tmp_path / "x.npz", **kept)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name, value in kept.items():
            file[f"{'in' if name == 'data' else 'out'}/{name}"] = value
    for name in ("x.npz", "x.h5"):
        report = deeplab_zoo.parity(native, *caffe_files, recorded_blobs=tmp_path / name)
        assert report.passed
        assert [one.blob for one in report.cases[0].comparisons] == ["res3a", "fc1_voc12"]
        assert set(report.files) == {"x.safetensors", name, "net.prototxt", "net.caffemodel"}
        assert report.cases[0].shape == (2, 3, 33, 47)


def test_there_is_no_proof_without_the_scores(tmp_path: Path, native: Path) -> None:
    image = np.random.default_rng(0).normal(0, 60, (2, 3, 33, 47)).astype(np.float32)
    blobs = dict(ours.engine(deeplab_zoo.load(native)).run({"data": image}))
    np.savez(tmp_path / "x.npz", data=image, conv1=blobs["conv1"])
    report = deeplab_zoo.parity(native, recorded_blobs=tmp_path / "x.npz", diagnose=True)
    assert not report.passed
    assert report.verdict.endswith("conv1 at 0.0e+00; the output fc1_voc12 was not compared")
    assert report.diagnosis is None
    np.savez(tmp_path / "x.npz", data=image, fc1_voc12=blobs["fc1_voc12"].round().astype(int))
    report = deeplab_zoo.parity(native, recorded_blobs=tmp_path / "x.npz", exact=False)
    assert not report.passed
    assert report.cases[0].blobs == ["fc1_voc12"]


def test_an_input_of_zeros_is_no_proof(tmp_path: Path, native: Path) -> None:
    blobs = ours.engine(deeplab_zoo.load(native)).run({"data": np.zeros((1, 3, 17, 19), "f4")})
    np.savez(tmp_path / "x.npz", **blobs)
    report = deeplab_zoo.parity(native, recorded_blobs=tmp_path / "x.npz", exact=False)
    assert not report.passed
    assert "every input is zeros" in report.unproven


def test_a_recorded_input_of_another_shape_is_told(tmp_path: Path, native: Path) -> None:
    np.savez(tmp_path / "x.npz", data=np.ones((1, 33, 47, 3), np.float32), conv1=np.ones(3))
    with pytest.raises(MismatchError, match=r"input 'data': shape \[1, 33, 47, 3\], expected one"):
        deeplab_zoo.parity(native, recorded_blobs=tmp_path / "x.npz")


def test_what_layers_left_in_an_input_is_recorded_beside_it(tmp_path: Path) -> None:
    given, left = np.ones((1, 2), np.float32), np.zeros((1, 2), np.float32)
    np.savez(tmp_path / "x.npz", **{"in/data": given, "out/data": left})
    engine, case = recorded.read(tmp_path / "x.npz", ("data",))
    assert case.blobs is not None
    np.testing.assert_array_equal(case.blobs["data"], given)
    np.testing.assert_array_equal(engine.run({})["data"], left)


def test_recorded_blobs_of_other_names_are_listed(tmp_path: Path, native: Path) -> None:
    np.savez(tmp_path / "x.npz", data=np.zeros((1, 3, 65, 65), np.float32), logits=np.ones(3))
    with pytest.raises(MismatchError, match="none of its blobs is one of ours: it has .*logits"):
        deeplab_zoo.parity(native, recorded_blobs=tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"fc1": np.zeros((1, 2), np.float32)}, "no blob 'data', the network's input; it has fc1"),
        ({"data": np.zeros((1, 3, 5, 7), np.float32)}, "holds the input alone"),
        ({"data": np.array([{}], object)}, "no .npz of plain arrays"),
        ({"data": np.ones(2), "in/data": np.ones(2)}, "'data' is there twice, .* 'in/data'"),
    ],
)
def test_recorded_files_that_cannot_serve_say_why(
    tmp_path: Path, content: dict[str, np.ndarray], problem: str
) -> None:
    np.savez(tmp_path / "x.npz", **content)
    with pytest.raises(FormatError, match=problem):
        recorded.read(tmp_path / "x.npz", ("data",))


def test_a_recorded_file_that_is_none_says_so(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"PK\3\4 damaged")
    with pytest.raises(FormatError, match=r"x\.npz"):
        recorded.read(tmp_path / "x.npz", ("data",))
    with pytest.raises(ZooError, match="no such file"):
        recorded.read(tmp_path / "missing.npz", ("data",))

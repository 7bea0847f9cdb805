from pathlib import Path

import h5py
import numpy as np
import pytest

from deeplab_zoo.proto import snapshot
from deeplab_zoo.proto.errors import FormatError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.caffemodel.h5"


def test_a_layer_that_shares_anothers_parameters_has_no_blobs(golden: Path) -> None:
    net = snapshot.read(golden / "caffe" / "shared_weights.caffemodel.h5")
    assert {layer.name: len(layer.blobs) for layer in net.layers} == {"conv_a": 2, "conv_b": 0}


def test_links_out_of_the_file_are_not_followed(path: Path, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["0"] = np.zeros(3, "<f4")
    with h5py.File(path, "w") as file:
        file.create_group("data/l")["0"] = h5py.ExternalLink("other.h5", "/0")
    with pytest.raises(FormatError, match="/data/l/0: missing, or a link to elsewhere"):
        snapshot.read(path)


def test_values_kept_in_another_file_are_refused(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_group("data/l").create_dataset(
            "0", (4,), "<f4", external=[("values.bin", 0, 16)]
        )
    with pytest.raises(FormatError, match="its values lie in another file"):
        snapshot.read(path)


def test_a_dataset_that_claims_more_than_is_stored_is_refused(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_group("data/l").create_dataset("0", (2**33,), "<f4", chunks=(1024,))
    with pytest.raises(FormatError, match="needs 34359738368 bytes, 0 are stored"):
        snapshot.read(path)


def test_other_hdf5_files_are_refused(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["weights"] = np.zeros(3)
    with pytest.raises(FormatError, match="data: missing"):
        snapshot.read(path)


def test_whole_numbers_are_no_weights(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_group("data/l")["0"] = np.zeros(3, "<i4")
    with pytest.raises(FormatError, match="/data/l/0: numbers of type int32, expected float32"):
        snapshot.read(path)


def test_a_damaged_file_is_refused(golden: Path, path: Path) -> None:
    data = (golden / "caffe" / "fmt_new.caffemodel.h5").read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(FormatError, match="damaged or not Caffe's HDF5 weights"):
        snapshot.read(path)


def test_a_dataset_of_nothing_is_no_weight(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_group("data/l")["0"] = h5py.Empty("<f4")
    with pytest.raises(FormatError, match="/data/l/0: holds no values, expected float32"):
        snapshot.read(path)

"""A file's format is told by its content, a checkpoint's also by its neighbours."""

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import h5py
import numpy as np
import pytest

from deeplab_zoo import convert_caffe, convert_legacy, convert_tensorflow
from deeplab_zoo.converters.kinds import Kind, check_command, kind_of
from deeplab_zoo.proto.errors import FormatError, ZooError


def test_every_format_we_write_is_told_under_any_name(files: Path, tmp_path: Path) -> None:
    kinds = {
        "net.prototxt": Kind.PROTOTXT,
        "net.caffemodel": Kind.CAFFEMODEL,
        "x.h5": Kind.ARCHIVE,
        "x.safetensors": Kind.SAFETENSORS,
        "x.pth": Kind.PTH,
        "x.npy": Kind.KAFFE,
        "tf.index": Kind.CHECKPOINT,
        "tf-v1": Kind.CHECKPOINT,
    }
    for name, kind in kinds.items():
        assert kind_of(files / name) is kind
        renamed = tmp_path / "download.bin"
        shutil.copy(files / name, renamed)
        assert kind_of(renamed) is kind, name
    assert kind_of(files / "tf") is Kind.CHECKPOINT
    assert kind_of(files / "tf.data-00000-of-00001") is Kind.CHECKPOINT


@pytest.mark.golden
@pytest.mark.parametrize(
    "name",
    ["v2", "v2/model.ckpt", "v2/model.ckpt.meta", "v2/model.ckpt.index",
     "v2/model.ckpt.data-00000-of-00001", "v1", "v1/model.ckpt", "v1_sharded/model.ckpt",
     "v1_sharded/model.ckpt-?????-of-00003", "v1_sharded/model.ckpt-00001-of-00003",
     "v2_sharded/model.ckpt", "exotic/small_v2_snappy_blocks1024.index"],
)  # fmt: skip
def test_a_checkpoint_is_told_by_any_of_its_names(shared: Path, name: str) -> None:
    assert kind_of(shared / "golden" / "tf" / "small" / name) is Kind.CHECKPOINT


def test_a_folders_state_is_a_checkpoint_and_other_text_a_prototxt(tmp_path: Path) -> None:
    for name, kind in (("checkpoint", Kind.CHECKPOINT), ("x.prototxt", Kind.PROTOTXT)):
        (tmp_path / name).write_text('model_checkpoint_path: "model.ckpt-1"\n')
        assert kind_of(tmp_path / name) is kind


def test_the_kinds_of_hdf5_are_told_apart(golden: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    assert kind_of(golden / "caffe" / "fmt_new.caffemodel.h5") is Kind.SNAPSHOT
    with h5py.File(path, "w") as file:
        file.attrs["DEEPDISH_IO_VERSION"] = 12
        file["data/conv1"] = np.ones(3, "f4")
    assert kind_of(path) is Kind.DEEPDISH
    with h5py.File(path, "w") as file:
        file["model_weights/conv1"] = np.ones(3, "f4")
    with pytest.raises(FormatError, match="x.h5: an HDF5 file of an unknown kind, expected a pro"):
        kind_of(path)


def test_an_old_pth_is_a_pickle(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(pickle.dumps({}, 2))
    assert kind_of(tmp_path / "x") is Kind.PTH


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "the file is empty"),
        (b"<html></html>", "is a web page.*fetch it again"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a git-LFS pointer.*git lfs pull"),
        (b"\x1f\x8b\x08\0", "is a gzip archive.*Unpack it first"),
        (b"\x89PNG\r\n\x1a\n", "is a PNG picture, expected a prototxt, caffemodel"),
        (bytes(2), "is a binary file, expected a prototxt, caffemodel"),
    ],
)
def test_what_we_do_not_read_is_named(tmp_path: Path, content: bytes, complaint: str) -> None:
    (tmp_path / "x.bin").write_bytes(content)
    with pytest.raises(FormatError, match=f"x.bin: {complaint}"):
        kind_of(tmp_path / "x.bin")


def test_a_zip_is_a_pth_only_if_pytorch_wrote_it(files: Path, tmp_path: Path) -> None:
    path = tmp_path / "download"
    whole = (files / "x.pth").read_bytes()
    for size in (len(whole), len(whole) - 100):  # The list of what is in it comes last.
        path.write_bytes(whole[:size])
        assert kind_of(path) is Kind.PTH
    with ZipFile(path, "w") as file:
        file.write(files / "net.caffemodel", "net.caffemodel")
    with pytest.raises(FormatError, match=r"download: is a zip archive .*Unpack it first"):
        kind_of(path)


@pytest.mark.parametrize("name", ["none.pth", "none/x.h5", "none-?????-of-00003"])
def test_what_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ZooError, match=r"none.*: no such file"):
        kind_of(tmp_path / name)


def test_a_name_that_another_begins_with_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "net.caffemodel.h5").touch()
    with pytest.raises(ZooError, match=r"net\.caffemodel: no such file"):
        kind_of(tmp_path / "net.caffemodel")


# Which command converts it

CONVERT: dict[str, Callable[[Path, Path], object]] = {
    "convert caffe": lambda path, out: convert_caffe(None, path, out),
    "convert tf": convert_tensorflow,
    "convert legacy": convert_legacy,
}
HELD = (
    ("net.prototxt", "a Caffe prototxt", "convert caffe"),
    ("net.caffemodel", "a Caffe caffemodel", "convert caffe"),
    ("x.h5", "a deeplab-zoo archive", "convert legacy"),
    ("x.safetensors", "safetensors weights", "convert legacy"),
    ("x.pth", "a PyTorch state dict", "convert legacy"),
    ("x.npy", "caffe-tensorflow weights", "convert legacy"),
    ("tf", "a TensorFlow checkpoint", "convert tf"),
    ("tf.index", "a TensorFlow checkpoint", "convert tf"),
    ("tf-v1", "a TensorFlow checkpoint", "convert tf"),
)


def refused(path: Path, given: str, out: Path) -> str:
    with pytest.raises(FormatError) as caught:
        CONVERT[given](path, out)
    assert not out.exists()
    return str(caught.value)


@pytest.mark.parametrize("given", CONVERT)
@pytest.mark.parametrize(("name", "held", "command"), HELD)
def test_a_command_names_the_one_whose_file_it_was_given(
    files: Path, tmp_path: Path, name: str, held: str, command: str, given: str
) -> None:
    path = files / name
    if given == command:
        check_command(path, given)
    else:
        complaint = refused(path, given, tmp_path / "out.safetensors")
        assert complaint == f"{path}: holds {held}, use `deeplab-zoo {command}`."


@pytest.mark.parametrize("given", ["convert caffe", "convert legacy"])
def test_a_folder_is_no_file_to_convert(tmp_path: Path, given: str) -> None:
    with pytest.raises(ZooError, match="is a folder, expected a file"):
        CONVERT[given](tmp_path, tmp_path / "out.safetensors")


@pytest.mark.parametrize("given", ["convert caffe", "convert legacy"])
def test_a_frozen_graph_is_for_convert_tf(tmp_path: Path, given: str) -> None:
    path = tmp_path / "x.pb"
    path.write_bytes(b"\n\x10\n\x01x\x12\x0bPlaceholder")  # A node: its name, its operation.
    complaint = refused(path, given, tmp_path / "out.safetensors")
    assert complaint == f"{path}: holds a TensorFlow frozen graph, use `deeplab-zoo convert tf`."


@pytest.mark.parametrize(
    ("given", "expected"),
    [("convert tf", "a TensorFlow checkpoint"), ("convert legacy", "a .safetensors or .pth")],
)
def test_text_is_no_prototxt_unless_it_is_called_one(
    tmp_path: Path, given: str, expected: str
) -> None:
    path = tmp_path / "graph.pbtxt"
    path.write_text("node { name: 'x' }")
    complaint = refused(path, given, tmp_path / "out.safetensors")
    assert complaint.startswith(f"{path}: is a text file, expected {expected}")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("convert caffe", "x.bin: byte 0: field number 0"),
        ("convert tf", "x.bin: the last 8 of 99 bytes are not a table's signature"),
        ("convert legacy", "x.bin: is a binary file, expected a prototxt"),
    ],
)
def test_what_no_command_converts_is_refused_in_the_words_of_the_one_given(
    tmp_path: Path, given: str, expected: str
) -> None:
    (tmp_path / "x.bin").write_bytes(bytes(99))
    assert expected in refused(tmp_path / "x.bin", given, tmp_path / "out.safetensors")


def test_a_name_with_data_in_it_is_not_a_checkpoints_for_that(files: Path, tmp_path: Path) -> None:
    shutil.copy(files / "x.pth", tmp_path / "voc.data-aug.pth")
    assert kind_of(tmp_path / "voc.data-aug.pth") is Kind.PTH


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with a name")
def test_a_pipe_is_refused_without_being_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.pth")
    with pytest.raises(ZooError, match=r"x.pth: is a device or a pipe, expected a file"):
        kind_of(tmp_path / "x.pth")

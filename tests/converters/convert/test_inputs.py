"""Files that do not fit each other, are damaged, or are something else."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import deeplab_zoo
from deeplab_zoo import ZooError
from deeplab_zoo.converters import hdf5
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config
from deeplab_zoo.proto import caffemodel
from deeplab_zoo.proto.errors import FormatError, MismatchError

Make = Callable[..., tuple[Path, Path]]


def test_a_prototxt_of_another_net_lists_all_that_does_not_fit(
    files: tuple[Path, Path], make_net: Make, tmp_path: Path
) -> None:
    binary = files[1].rename(tmp_path / "first.caffemodel")
    other, _ = make_net(DeepLabV2Config(5, (2, 2, 4, 2), 4, (2, 3, 4, 5)))
    with pytest.raises(MismatchError, match="do not belong together") as caught:
        deeplab_zoo.convert_caffe(other, binary, tmp_path / "x.safetensors")
    assert "layer 'res2b_branch2a' (line" in str(caught.value)
    assert "no weights for it in the file" in str(caught.value)
    assert "layer 'res5c_branch2a': in the weights, not in the prototxt" in str(caught.value)


def test_wrong_blob_sizes_are_named_with_the_layer(
    files: tuple[Path, Path], make_net: Make, tmp_path: Path
) -> None:
    binary = files[1].rename(tmp_path / "first.caffemodel")
    other, _ = make_net(DeepLabV2Config(5, (1, 2, 4, 3), 4, (2, 3, 4, 6)))
    with pytest.raises(MismatchError) as caught:
        deeplab_zoo.convert_caffe(other, binary, tmp_path / "x.safetensors")
    assert "blob 0 has shape [5, 16, 1, 1], expected [6, 'any', 1, 1]" in str(caught.value)


def test_inner_sizes_that_do_not_fit_each_other_are_found(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    deeplab_zoo.convert_caffe(*files, tmp_path / "a.h5")
    archive = hdf5.read(tmp_path / "a.h5")
    cut = tuple(
        replace(one, data=one.data[:, :1])
        if one.name == "res3b1_branch2b/weight" or one.name == "res3a_branch2b/weight"
        else one
        for one in archive.tensors
    )
    hdf5.write(replace(archive, tensors=cut), tmp_path / "b.h5")
    with pytest.raises(
        MismatchError, match=r"layer2.0.conv2.weight: shape \[3, 1, 3, 3\], expected"
    ):
        deeplab_zoo.load(tmp_path / "b.h5")


def test_a_net_that_computes_something_else_is_not_converted(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    text, binary = files
    text.write_text(
        text.read_text().replace("dilation: 4", "dilation: 2").replace("pad: 4", "pad: 2")
    )
    with pytest.raises(MismatchError, match="not the DeepLab v2 ResNet it looks like") as caught:
        deeplab_zoo.convert_caffe(text, binary, tmp_path / "x.safetensors")
    assert "layer 'res5a_branch2b' (line" in str(caught.value)
    assert "dilation 2, expected 4; pad 2, expected 4" in str(caught.value)
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("use_global_stats: true", "use_global_stats: false", "statistics of the batch"),
        ("use_global_stats: true\n  }", "}\n  phase: TRAIN", "statistics of the batch"),
        ("bias_term: true\n", "bias_term: true axis: 2\n", "affine backbone.bn1: not in the file"),
    ],
)
def test_a_norm_that_normalises_otherwise_is_not_converted(
    files: tuple[Path, Path], tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    text = files[0].read_text()
    assert old in text
    files[0].write_text(text.replace(old, new, 1))
    with pytest.raises(MismatchError, match=complaint):
        deeplab_zoo.convert_caffe(*files, tmp_path / "x.safetensors")


def test_another_network_is_told_what_it_is_not(golden: Path, tmp_path: Path) -> None:
    files = (golden / "caffe" / "fmt_input_dim.prototxt", golden / "caffe" / "fmt_new.caffemodel")
    with pytest.raises(
        MismatchError, match=r"not a DeepLab v2 ResNet or .*: none of its 4 layers.*conv1"
    ):
        deeplab_zoo.convert_caffe(*files, tmp_path / "x.safetensors")


def test_hdf5_weights_without_a_prototxt_ask_for_it(golden: Path, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="holds no graph.*Give the prototxt too"):
        deeplab_zoo.convert_caffe(
            None, golden / "caffe" / "fmt_new.caffemodel.h5", tmp_path / "x.pth"
        )


def test_unknown_fields_stop_a_strict_conversion_and_are_noted_by_a_lenient_one(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    text, binary = files
    text.write_text(text.read_text() + "\nfoo_param { bar: 1 }\n")
    with pytest.raises(FormatError, match=r"NetParameter has no field 'foo_param'"):
        deeplab_zoo.convert_caffe(text, binary, tmp_path / "x.pth")
    native = deeplab_zoo.convert_caffe(text, binary, tmp_path / "x.pth", strict=False)
    assert any("foo_param" in note for note in native.notes)


def test_values_that_are_not_finite_convert_with_a_note(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    _, binary = files
    data = bytearray(binary.read_bytes())
    net = caffemodel.read(binary)
    weight = next(one for one in net.layers if one.name == "res2a_branch1").blobs[0].data
    at = bytes(data).index(weight.tobytes())
    data[at : at + 4] = np.float32(np.nan).tobytes()
    binary.write_bytes(data)
    native = deeplab_zoo.convert_caffe(*files, tmp_path / "x.safetensors")
    assert native.notes == (f"res2a_branch1/weight: 1 of {weight.size} values are NaN or infinite",)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "no such file"),
        (b"", "is empty"),
        (b"<html></html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a git-LFS pointer.*git lfs pull"),
    ],
)
def test_bad_files_are_named_and_nothing_is_written(
    files: tuple[Path, Path], tmp_path: Path, which: int, content: bytes | None, complaint: str
) -> None:
    if content is None:
        files[which].unlink()
    else:
        files[which].write_bytes(content)
    with pytest.raises(ZooError, match=complaint) as caught:
        deeplab_zoo.convert_caffe(*files, tmp_path / "x.safetensors")
    assert str(caught.value).startswith(str(files[which]))
    assert not list(tmp_path.glob("*safetensors*"))


def test_the_two_files_in_the_other_order_say_so(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="is a text file.*given in the other order"):
        deeplab_zoo.convert_caffe(files[1], files[0], tmp_path / "x.pth")


def test_a_caffemodel_cut_at_twenty_places_is_never_converted(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    data = files[1].read_bytes()
    random = np.random.default_rng(0)
    for cut in random.integers(1, len(data), 20):
        files[1].write_bytes(data[:cut])
        with pytest.raises(ZooError, match="cut short|no weights for it"):
            deeplab_zoo.convert_caffe(*files, tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with a name")
def test_a_pipe_as_input_is_refused_and_not_waited_for(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    for given in ((tmp_path / "pipe", files[1]), (files[0], tmp_path / "pipe")):
        with pytest.raises(ZooError, match="is a device or a pipe, expected a file. Save it"):
            deeplab_zoo.convert_caffe(*given, tmp_path / "x.safetensors")

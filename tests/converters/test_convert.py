"""The main job from files to files: every good combination, and every bad input."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import deeplab_zoo
from deeplab_zoo import ZooError
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config, parameters
from deeplab_zoo.converters.weights import read as read_weights
from deeplab_zoo.proto import caffemodel, prototxt
from deeplab_zoo.proto.errors import FormatError, MismatchError, StorageError, UsageError

Make = Callable[..., tuple[Path, Path]]


@pytest.fixture
def files(make_net: Make, tiny_config: DeepLabV2Config) -> tuple[Path, Path]:
    return make_net(tiny_config)


def convert_to(out: Path, files: tuple[Path | None, Path], **options: object) -> object:
    return deeplab_zoo.convert_caffe(*files, out, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["safetensors", "pth", "h5"])
def test_each_output_loads_as_the_same_model(
    files: tuple[Path, Path], tmp_path: Path, kind: str
) -> None:
    convert_to(tmp_path / "reference.safetensors", files)
    convert_to(tmp_path / f"x.{kind}", files)
    expected = deeplab_zoo.load(tmp_path / "reference.safetensors")
    found = deeplab_zoo.load(tmp_path / f"x.{kind}")
    assert found.config == expected.config
    assert found.numerics == expected.numerics
    assert not found.training
    for (name, one), other in zip(
        found.state_dict().items(), expected.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), name


@pytest.mark.parametrize("kind", ["safetensors", "pth", "h5"])
def test_equal_input_gives_equal_files(files: tuple[Path, Path], tmp_path: Path, kind: str) -> None:
    for name in ("a", "b"):
        convert_to(tmp_path / f"{name}.{kind}", files)
    assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


@pytest.mark.parametrize("layout", ["canonical", "isht7", "kazuto1011", "advsemiseg"])
def test_an_exported_file_loads_back_and_is_a_plain_state_dict(
    files: tuple[Path, Path], tmp_path: Path, layout: str
) -> None:
    convert_to(tmp_path / "x.h5", files)
    deeplab_zoo.export(tmp_path / "x.h5", tmp_path / "y.pth", layout=layout)
    plain = torch.load(tmp_path / "y.pth", weights_only=True)
    expected = read_weights(tmp_path / "y.pth").state
    assert len(plain) == len(expected)
    for one, other in zip(plain.values(), expected.values(), strict=True):
        assert np.array_equal(one.numpy(), other)
    prefix = {"canonical": "backbone.", "isht7": "Scale.", "kazuto1011": "base.", "advsemiseg": ""}
    assert f"{prefix[layout]}conv1.weight" in plain or layout == "kazuto1011"
    model = deeplab_zoo.load(tmp_path / "y.pth")
    assert torch.equal(
        model.backbone.conv1.weight, torch.from_numpy(expected["backbone.conv1.weight"])
    )


def test_the_safetensors_library_reads_what_we_write(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    convert_to(tmp_path / "x.safetensors", files)
    state = load_file(tmp_path / "x.safetensors")
    model = deeplab_zoo.load(tmp_path / "x.safetensors")
    assert all(torch.equal(state[name], model.state_dict()[name]) for name in state)


def test_every_source_tensor_is_used_or_dropped_by_a_named_rule(
    make_net: Make, tiny_multi: DeepLabV2Config, tmp_path: Path
) -> None:
    text, binary = make_net(tiny_multi)
    native = deeplab_zoo.convert_caffe(text, binary, tmp_path / "x.safetensors")
    used = {place for places in native.conversion.sources.values() for place in places}
    dropped = {place for place, _ in native.conversion.dropped}
    stored = {
        f"{layer.name}[{index}]"
        for layer in caffemodel.read(binary).layers
        for index in range(len(layer.blobs))
    }
    assert used | dropped == stored
    assert all(reason for _, reason in native.conversion.dropped)


def test_the_graph_may_come_from_the_caffemodel(
    make_net: Make, tiny_multi: DeepLabV2Config, tmp_path: Path
) -> None:
    _, binary = make_net(tiny_multi)
    native = deeplab_zoo.convert_caffe(None, binary, tmp_path / "x.safetensors")
    assert native.weights.config == tiny_multi


def test_unusual_rates_are_taken_from_the_graph(
    make_net: Make, tiny_config: DeepLabV2Config, tmp_path: Path
) -> None:
    config = DeepLabV2Config(5, tiny_config.blocks, 4, tiny_config.widths, rates=(2, 5, 9))
    native = deeplab_zoo.convert_caffe(*make_net(config), tmp_path / "x.safetensors")
    assert native.weights.config == config
    assert deeplab_zoo.load(tmp_path / "x.safetensors").config.rates == (2, 5, 9)


def test_conversion_to_safetensors_and_hdf5_imports_no_torch(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    code = (
        "import sys, deeplab_zoo\n"
        f"deeplab_zoo.convert_caffe({str(files[0])!r}, {str(files[1])!r}, 'x.safetensors',"
        " keep_hdf5='x.h5')\n"
        "print([m for m in ('torch', 'tensorflow', 'cv2', 'safetensors') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert found.stdout.strip() == "[]"


# The head


def test_a_reset_head_is_seeded_gaussian_and_reported(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    native = convert_to(tmp_path / "a.safetensors", files, reset_head=True, num_classes=7, seed=3)
    model = deeplab_zoo.load(tmp_path / "a.safetensors")
    assert model.config.classes == 7
    assert native.fresh == tuple(  # type: ignore[attr-defined]
        f"classifier.convs.{i}.{kind}" for i in range(4) for kind in ("weight", "bias")
    )
    weight = model.classifier.convs[0].weight
    assert weight.shape == (7, 20, 3, 3)
    assert 0.008 < weight.std().item() < 0.012
    assert not model.classifier.convs[0].bias.any()
    convert_to(tmp_path / "b.safetensors", files, reset_head=True, num_classes=7, seed=3)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    dropped = dict(native.conversion.dropped)  # type: ignore[attr-defined]
    assert dropped["fc1_voc12_c0[0]"] == "not part of the backbone: the head was reset"


def init_file(make_net: Make, config: DeepLabV2Config, *, prefix: str) -> tuple[Path, Path]:
    """A file with another head (``prefix``), or none."""
    text, binary = make_net(config)
    from deeplab_zoo.proto import caffemodel
    from deeplab_zoo.proto.records import Net

    net = caffemodel.read(binary)
    layers = []
    for layer in net.layers:
        if layer.name.startswith("fc1"):
            if not prefix or layer.type != "Convolution":
                continue
            params = type(layer.params)()
            params.CopyFrom(layer.params)
            params.name = layer.name.replace("fc1_voc12", prefix)
            layer = type(layer)(
                params.name, layer.type, layer.bottoms, layer.tops, params, layer.blobs
            )
        layers.append(layer)
    init = binary.with_name("init.caffemodel")
    with init.open("wb") as file:
        caffemodel.write(Net(net.name, tuple(layers)), file)
    return text, init


@pytest.mark.parametrize("prefix", ["", "fc1_coco", "fc1000"])
@pytest.mark.parametrize("with_text", [True, False])
def test_an_init_file_with_another_head_or_none_loads_with_a_reset_head(
    make_net: Make, tiny_config: DeepLabV2Config, tmp_path: Path, prefix: str, with_text: bool
) -> None:
    text, init = init_file(make_net, tiny_config, prefix=prefix)
    files = (text if with_text else None, init)
    if with_text or prefix != "fc1_coco":  # A COCO head without a prototxt is a model of its own.
        with pytest.raises(MismatchError, match="--reset-head"):
            convert_to(tmp_path / "x.safetensors", files)
    convert_to(tmp_path / "x.safetensors", files, reset_head=True, num_classes=11)
    assert deeplab_zoo.load(tmp_path / "x.safetensors").config.classes == 11


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"num_classes": 21}, "the file has 5 classes, asked for 21.*--reset-head"),
        ({"num_classes": 1}, "--num-classes 1, expected 2 to 255"),
        ({"num_classes": 256, "reset_head": True}, "--num-classes 256, expected 2 to 255"),
    ],
)
def test_class_counts_that_cannot_be_are_refused(
    files: tuple[Path, Path], tmp_path: Path, options: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ZooError, match=complaint):
        convert_to(tmp_path / "x.safetensors", files, **options)


# Bad input


def test_a_prototxt_of_another_net_lists_all_that_does_not_fit(
    files: tuple[Path, Path], make_net: Make, tmp_path: Path
) -> None:
    binary = files[1].rename(tmp_path / "first.caffemodel")
    other, _ = make_net(DeepLabV2Config(5, (2, 2, 4, 2), 4, (2, 3, 4, 5)))
    with pytest.raises(MismatchError, match="do not belong together") as caught:
        convert_to(tmp_path / "x.safetensors", (other, binary))
    assert "layer 'res2b_branch2a' (line" in str(caught.value)
    assert "no weights for it in the file" in str(caught.value)
    assert "layer 'res5c_branch2a': in the weights, not in the prototxt" in str(caught.value)


def test_wrong_blob_sizes_are_named_with_the_layer(
    files: tuple[Path, Path], make_net: Make, tmp_path: Path
) -> None:
    binary = files[1].rename(tmp_path / "first.caffemodel")
    other, _ = make_net(DeepLabV2Config(5, (1, 2, 4, 3), 4, (2, 3, 4, 6)))
    with pytest.raises(MismatchError) as caught:
        convert_to(tmp_path / "x.safetensors", (other, binary))
    assert "blob 0 has shape [5, 16, 1, 1], expected [6, 'any', 1, 1]" in str(caught.value)


def test_inner_sizes_that_do_not_fit_each_other_are_found(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    from dataclasses import replace

    from deeplab_zoo.converters import hdf5

    convert_to(tmp_path / "a.h5", files)
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
        convert_to(tmp_path / "x.safetensors", (text, binary))
    assert "layer 'res5a_branch2b' (line" in str(caught.value)
    assert "dilation 2, expected 4; pad 2, expected 4" in str(caught.value)
    assert not (tmp_path / "x.safetensors").exists()


def test_another_network_is_told_what_it_is_not(golden: Path, tmp_path: Path) -> None:
    files = (golden / "caffe" / "fmt_input_dim.prototxt", golden / "caffe" / "fmt_new.caffemodel")
    with pytest.raises(
        MismatchError, match=r"not a DeepLab v2 ResNet or .*: none of its 4 layers.*conv1"
    ):
        convert_to(tmp_path / "x.safetensors", files)


def test_hdf5_weights_without_a_prototxt_ask_for_it(golden: Path, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="holds no graph.*Give the prototxt too"):
        convert_to(tmp_path / "x.pth", (None, golden / "caffe" / "fmt_new.caffemodel.h5"))


def test_unknown_fields_stop_a_strict_conversion_and_are_noted_by_a_lenient_one(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    text, binary = files
    text.write_text(text.read_text() + "\nfoo_param { bar: 1 }\n")
    with pytest.raises(FormatError, match=r"NetParameter has no field 'foo_param'"):
        convert_to(tmp_path / "x.pth", (text, binary))
    native = convert_to(tmp_path / "x.pth", (text, binary), strict=False)
    assert any("foo_param" in note for note in native.notes)  # type: ignore[attr-defined]


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
    native = convert_to(tmp_path / "x.safetensors", files)
    assert native.notes == (  # type: ignore[attr-defined]
        f"res2a_branch1/weight: 1 of {weight.size} values are NaN or infinite",
    )


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
        convert_to(tmp_path / "x.safetensors", files)
    assert str(caught.value).startswith(str(files[which]))
    assert not list(tmp_path.glob("*safetensors*"))


def test_the_two_files_in_the_other_order_say_so(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="is a text file.*given in the other order"):
        convert_to(tmp_path / "x.pth", (files[1], files[0]))


def test_a_caffemodel_cut_at_twenty_places_is_never_converted(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    data = files[1].read_bytes()
    random = np.random.default_rng(0)
    for cut in random.integers(1, len(data), 20):
        files[1].write_bytes(data[:cut])
        with pytest.raises(ZooError, match="cut short|no weights for it"):
            convert_to(tmp_path / "x.safetensors", files)
    assert not (tmp_path / "x.safetensors").exists()


# Bad places to write to


@pytest.mark.parametrize("name", ["x.onnx", "x", "x.caffemodel"])
def test_an_unknown_suffix_is_refused_before_anything_is_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"expected one of .safetensors, .pth, .h5"):
        convert_to(tmp_path / name, (None, Path("none")))


def test_a_missing_output_folder_is_named(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="the folder .*none does not exist. Create it first"):
        convert_to(tmp_path / "none" / "x.pth", files)


def test_a_folder_as_output_is_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "x.pth").mkdir()
    with pytest.raises(ZooError, match="is a folder, expected the name of a file"):
        convert_to(tmp_path / "x.pth", files)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with a name")
def test_a_pipe_or_a_device_as_output_is_refused_and_left(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "x.pth")
    with pytest.raises(ZooError, match="is a device or a pipe, expected the name of a file"):
        convert_to(tmp_path / "x.pth", files)
    assert (tmp_path / "x.pth").is_fifo()


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a file system of a given kind; needs the right to."""
    places: list[Path] = []

    def mount(options: str) -> Path:
        place = tmp_path / f"mount{len(places)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("mounting a small file system is not permitted here")
        places.append(place)
        return place

    yield mount
    for place in places:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("kind", ["safetensors", "pth", "h5"])
def test_a_full_disk_leaves_what_was_there(
    files: tuple[Path, Path], mounted: Callable[[str], Path], kind: str
) -> None:
    out = mounted("size=32k") / f"x.{kind}"
    out.write_bytes(b"before")
    with pytest.raises(StorageError, match=f"x.{kind}: cannot be written: the disk is full"):
        convert_to(out, files)
    assert out.read_bytes() == b"before"
    assert [one.name for one in out.parent.iterdir()] == [out.name]


def test_a_read_only_disk_is_named(
    files: tuple[Path, Path], mounted: Callable[[str], Path]
) -> None:
    out = mounted("ro") / "x.safetensors"
    with pytest.raises(StorageError, match="cannot be written: Read-only file system"):
        convert_to(out, files)


def test_ctrl_c_at_any_time_leaves_no_half_written_file(make_net: Make, tmp_path: Path) -> None:
    text, binary = make_net(DeepLabV2Config(stem=32, widths=(32, 64, 128, 256)))
    folder = tmp_path / "out"
    folder.mkdir()
    command = [
        sys.executable, "-c",
        "import deeplab_zoo.cli.main as m, sys; print('ready', flush=True); m.main()",
        "convert", "caffe", str(text), str(binary), "-o", str(folder / "x.safetensors"),
        "--hdf5", str(folder / "x.h5"),
    ]  # fmt: skip
    interrupted = 0
    for step in range(8):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.08 * (step + 1))
            os.kill(process.pid, signal.SIGINT)
            _, complaint = process.communicate(timeout=60)
        if process.returncode == 130:
            interrupted += 1
            assert b"interrupted; nothing half-written remains" in complaint
        else:  # too late: the work is done, and the interpreter may be on its way out (-SIGINT)
            assert process.returncode in (0, -signal.SIGINT), complaint
            assert b"Traceback" not in complaint
            assert {left.name for left in folder.iterdir()} == {"x.safetensors", "x.h5"}, complaint
        for left in folder.iterdir():
            assert left.suffix in (".safetensors", ".h5"), f"{left} is left over"
            if left.suffix == ".h5":
                with h5py.File(left) as file:
                    assert file.attrs["format"] == "deeplab-zoo archive"
            else:
                assert len(read_weights(left).state) == len(parameters(DeepLabV2Config()))
            left.unlink()
    assert interrupted >= 2


def test_weights_written_elsewhere_need_their_numerics_named(tmp_path: Path) -> None:
    config = DeepLabV2Config(3, (1, 1, 1, 1), 4, (2, 2, 2, 2))
    state = {name: torch.zeros(shape) for name, shape in parameters(config).items()}
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(MismatchError, match="records no numerics profile.*numerics='caffe-v2'"):
        deeplab_zoo.load(tmp_path / "x.pth")
    assert deeplab_zoo.load(tmp_path / "x.pth", numerics="caffe-v2").config == config
    with pytest.raises(UsageError, match="numerics profile 'tf' is unknown"):
        deeplab_zoo.load(tmp_path / "x.pth", numerics="tf")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"\x80\x02cos\nsystem\n(S'touch pwned'\ntR.", "cannot be read as a state dict"),
        (b"PK\x03\x04 not a zip", "cannot be read as a state dict"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{broken", "not a sound safetensors file"),
        (b"plain text", "is a text file, expected a .safetensors or .pth"),
    ],
)
def test_files_that_are_no_weights_are_refused_and_never_executed(
    tmp_path: Path, content: bytes, complaint: str
) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=complaint):
        deeplab_zoo.load(path)
    assert not (tmp_path / "pwned").exists()


def test_a_prototxt_written_by_the_demo_says_what_it_is(files: tuple[Path, Path]) -> None:
    assert prototxt.read(files[0]).name == "deeplab_v2"


@pytest.mark.golden
@pytest.mark.parametrize("with_text", [True, False])
def test_a_training_net_and_its_snapshot_convert(
    shared: Path, tmp_path: Path, with_text: bool
) -> None:
    folder = shared / "golden" / "caffe" / "train_step" / "msc"
    native = deeplab_zoo.convert_caffe(
        folder / "train.prototxt" if with_text else None,
        folder / "final.caffemodel",
        tmp_path / "x.safetensors",
    )
    assert native.weights.config.widths == (4, 8, 16, 32)
    assert native.weights.config.scales == (1.0, 0.75, 0.5)


def test_an_image_blob_of_another_name_is_the_image(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    text, binary = files
    text.write_text(text.read_text().replace('"data"', '"image"'))
    convert_to(tmp_path / "x.safetensors", (text, binary))

"""Nets without a native model, converted to one file and used from there."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from deeplab_zoo import compare, convert_caffe, convert_graph, export, load, load_caffe
from deeplab_zoo.cli.main import cli
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config
from deeplab_zoo.converters.describe import describe
from deeplab_zoo.converters.graph.engine import Graph
from deeplab_zoo.proto import caffemodel, prototxt
from deeplab_zoo.proto.errors import FormatError, MismatchError, UsageError
from deeplab_zoo.proto.records import Blob
from deeplab_zoo.zoo.models.deeplab_v2 import DeepLabV2

# Sharing by name, raw batch-norm sums, masks, an axis of a dotted layer: what a file must keep.
TEXT = """
name: "little segnet"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 12 dim: 10 } } }
layer { name: "a" type: "Convolution" bottom: "data" top: "a"
        param { name: "w" } param { name: "b" }
        convolution_param { num_output: 3 kernel_size: 3 pad: 1 } }
layer { name: "a/bn" type: "BatchNorm" bottom: "a" top: "a" batch_norm_param { use_global_stats: true } }
layer { name: "relu" type: "ReLU" bottom: "a" top: "a" }
layer { name: "pool" type: "Pooling" bottom: "a" top: "pool" top: "mask"
        pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "a.2" type: "Convolution" bottom: "pool" top: "b"
        param { name: "w" } param { name: "b" }
        convolution_param { num_output: 3 kernel_size: 3 pad: 1 } }
layer { name: "up" type: "Upsample" bottom: "b" bottom: "mask" top: "up" upsample_param { scale: 2 } }
layer { name: "prob" type: "Softmax" bottom: "up" top: "prob" }
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    text, binary = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    text.write_text(TEXT)
    random = np.random.default_rng(0)

    def blob(*shape: int) -> Blob:
        return Blob(shape, random.uniform(0.1, 0.3, shape).astype(np.float32))

    shared = (blob(3, 3, 3, 3), blob(3))
    blobs = {"a": shared, "a.2": shared, "a/bn": (blob(3), blob(3), blob(1))}
    net = prototxt.read(text)
    layers = tuple(replace(one, blobs=blobs.get(one.name, ())) for one in net.layers)
    with binary.open("wb") as file:
        caffemodel.write(replace(net, layers=layers), file)
    return text, binary


def outputs(net: Graph, image: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return net({"data": image}, blobs="all")


def test_a_graph_in_safetensors_loads_as_it_was(files: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "x.safetensors"
    done = convert_graph(*files, out)
    assert (dict(done.inputs), done.outputs) == ({"data": (1, 3, 12, 10)}, ("prob",))
    image = torch.randn(2, 3, 12, 10)
    net, expected = load(out), outputs(load_caffe(*files), image)
    assert isinstance(net, Graph)
    found = outputs(net, image)
    assert list(found) == list(expected)
    assert all(torch.equal(found[blob], expected[blob]) for blob in expected)
    convert_graph(*files, tmp_path / "y.safetensors")
    assert out.read_bytes() == (tmp_path / "y.safetensors").read_bytes()


def test_a_graph_can_be_inspected_and_compared(files: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "x.safetensors"
    convert_graph(*files, out, size=(14, 18))
    found = describe(out)
    assert found.content == "a Caffe net kept as a graph, little segnet"
    assert found.facts["input data"] == "[1, 3, 14, 18]"
    assert [row.name for row in found.layers][:3] == ["data", "a", "a/bn"]
    assert len(found.tensors) == 7
    agreement = compare(out, files[1])
    assert (agreement.equal, agreement.tensors) == (True, 7)
    net = caffemodel.read(files[1])
    changed = net.layers[1].blobs[0].data.copy()
    changed[0, 0, 0, 0] += 1
    with (tmp_path / "z.caffemodel").open("wb") as file:
        layers = list(net.layers)
        layers[1] = replace(layers[1], blobs=(Blob(changed.shape, changed), *layers[1].blobs[1:]))
        caffemodel.write(replace(net, layers=tuple(layers)), file)
    (difference,) = compare(tmp_path / "z.caffemodel", out).differences
    assert difference.name == "a[0]"
    with pytest.raises(MismatchError, match="Caffe prototxt; a graph is compared with"):
        compare(out, files[0])


def test_another_size_is_kept(files: tuple[Path, Path], tmp_path: Path) -> None:
    convert_graph(*files, tmp_path / "x.safetensors", size=(14, 18))
    assert load(tmp_path / "x.safetensors").inputs == {"data": (1, 3, 14, 18)}


@pytest.mark.parametrize("size", [None, (6, 8)])
def test_a_pt2_gives_the_graphs_outputs(
    files: tuple[Path, Path], tmp_path: Path, size: tuple[int, int] | None
) -> None:
    out = tmp_path / "x.pt2"
    convert_graph(*files, out, size=size)
    image = torch.randn(1, 3, *(size or (12, 10)))
    extra = {"origin.json": ""}
    found = torch.export.load(out, extra_files=extra).module()({"data": image})
    assert list(found) == ["prob"]
    assert torch.equal(found["prob"], outputs(load_caffe(*files), image)["prob"])
    assert set(json.loads(extra["origin.json"])["files"]) == {one.name for one in files}


def test_a_graph_goes_to_onnx_at_once_and_from_safetensors(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    kept = tmp_path / "x.safetensors"
    convert_graph(*files, kept)
    convert_graph(*files, tmp_path / "a.onnx", size=(6, 8))
    done = command("export", kept, "--to", "onnx", "--size", "6x8", "-o", tmp_path / "b.onnx")
    assert done.exit_code == 0, done.exception
    image = torch.randn(1, 3, 6, 8)
    expected = outputs(load_caffe(*files), image)["prob"]
    for name in ("a.onnx", "b.onnx"):
        session = onnxruntime.InferenceSession(tmp_path / name, providers=["CPUExecutionProvider"])
        (found,) = session.run(["prob"], {"data": image.numpy()})
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)


def test_a_net_that_is_recognised_becomes_the_native_model(
    make_net: Callable[..., tuple[Path, Path]], tiny_config: DeepLabV2Config, tmp_path: Path
) -> None:
    text, binary = make_net(tiny_config)
    out = tmp_path / "x.safetensors"
    done = convert_graph(text, binary, out)
    assert done.notes[0] == "recognised as DeepLab v2 ResNet: written as the native model"
    assert isinstance(load(out), DeepLabV2)
    convert_graph(text, binary, tmp_path / "x.pt2", size=(33, 41))
    image = torch.randn(1, 3, 33, 41)
    program = torch.export.load(tmp_path / "x.pt2").module()
    with torch.no_grad():
        assert torch.equal(program(image), load(out)(image))


def test_one_that_only_looks_like_a_deeplab_is_a_graph_with_a_note(
    make_net: Callable[..., tuple[Path, Path]], tiny_config: DeepLabV2Config, tmp_path: Path
) -> None:
    text, binary = make_net(tiny_config)
    net = text.read_text()
    for setting in ("pad", "dilation"):  # Of one layer of the last stage.
        net = net.replace(f"{setting}: 4", f"{setting}: 3", 1)
    text.write_text(net)
    done = convert_graph(text, binary, tmp_path / "x.safetensors")
    assert "not the DeepLab v2 ResNet it looks like" in done.notes[0]
    assert isinstance(load(tmp_path / "x.safetensors"), Graph)


def test_without_the_option_the_error_names_it(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="To convert the net as it is: convert caffe --graph"):
        convert_caffe(*files, tmp_path / "x.safetensors")


def test_a_graph_is_not_taken_for_a_native_model(files: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "x.safetensors"
    convert_graph(*files, out)
    with pytest.raises(MismatchError, match="is a graph, a net without a native model"):
        export(out, tmp_path / "y.pth")
    with pytest.raises(UsageError, match="no numerics profile"):
        load(out, numerics="caffe-v2")


def test_a_graph_of_an_old_file_equals_that_of_a_new_one(golden: Path, tmp_path: Path) -> None:
    folder = golden / "caffe"
    old, new = tmp_path / "old.safetensors", folder / "fmt_new.caffemodel"
    convert_graph(folder / "fmt_v1.prototxt", folder / "fmt_v0.caffemodel", old)
    assert compare(old, new).equal


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (b'\\"family\\": \\"graph\\"', b'\\"family\\": \\"grape\\"', "family 'grape'"),
        (b'\\"version\\": 1', b'\\"version\\": 7', "version 7 of a graph file, expected 1"),
        (b'\\"version\\": 1', b'\\"version\\": x', "description is damaged .JSONDecodeError"),
        (b'\\"framework\\"', b'\\"fraamwork\\"', "description is damaged .TypeError.*fraamwork"),
        (b'\\"prototxt\\"', b'\\"protoxxt\\"', "description is damaged .KeyError.'prototxt'"),
        (b'"a[0]"', b'"a[x]"', r"a\[x\] .*expected float32 as layer\[index\]"),
        (b'"a[0]"', b'"z[0]"', r"blobs of \['z'\], which its prototxt does not have"),
    ],
)
def test_a_damaged_graph_is_refused(
    files: tuple[Path, Path], tmp_path: Path, old: bytes, new: bytes, complaint: str
) -> None:
    out = tmp_path / "x.safetensors"
    convert_graph(*files, out)
    data = out.read_bytes()
    assert old in data
    out.write_bytes(data.replace(old, new, 1))
    with pytest.raises((FormatError, MismatchError), match=complaint):
        load(out)


def test_weights_that_lack_a_layer_are_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    text, binary = files
    text.write_text(text.read_text().replace('name: "a/bn"', 'name: "other/bn"'))
    with pytest.raises(MismatchError, match=r"lacks the weights of 1 layers.*\n.*'other/bn'"):
        convert_graph(text, binary, tmp_path / "x.safetensors")


def test_a_bad_suffix_and_an_unknown_size_are_refused(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"expected one of \.pt2, \.onnx, \.safetensors"):
        convert_graph(*files, tmp_path / "x.pth")
    text, binary = files
    text.write_text(
        text.read_text().replace("input_param { shape { dim: 1 dim: 3 dim: 12 dim: 10 } }", "")
    )
    with pytest.raises(UsageError, match="'data': its file states no shape. Give the size"):
        convert_graph(text, binary, tmp_path / "x.pt2")
    convert_graph(text, binary, tmp_path / "x.pt2", size=(12, 10))


def command(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(one) for one in arguments])


def test_the_command_says_what_it_wrote(files: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "x.safetensors"
    done = command("convert", "caffe", "--graph", *files, "-o", out)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:3] == [
        "a graph of 7 layers", "  in  data [1, 3, 12, 10]", "  out prob",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--size", "9,9"), "--size: goes with --graph"),
        (("--graph", "--reset-head"), "--reset-head: not for --graph"),
        (("--graph", "--size", "9"), "--size 9: expected height and width"),
    ],
)
def test_options_that_do_not_go_together_are_a_usage_error(
    tmp_path: Path, options: tuple[str, ...], complaint: str
) -> None:
    done = command("convert", "caffe", "a.prototxt", "b.caffemodel", *options, "-o", tmp_path / "x")
    assert isinstance(done.exception, UsageError)
    assert complaint in str(done.exception)

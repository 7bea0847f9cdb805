"""The reference engines: TensorFlow, onnxruntime, recorded values, pycaffe, float64."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

import deeplab_zoo
from deeplab_zoo.converters import caffe, weights
from deeplab_zoo.converters.archive import Archive, Origin
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config
from deeplab_zoo.converters.kinds import Kind
from deeplab_zoo.converters.native import to_native
from deeplab_zoo.converters.numerics import CAFFE_V2, TF_SLIM
from deeplab_zoo.converters.write_caffe import deploy_net, filled
from deeplab_zoo.proto.checkpoint import open_checkpoint
from deeplab_zoo.proto.checkpoint_write import write_v1
from deeplab_zoo.proto.errors import (
    FormatError,
    MismatchError,
    MissingDependencyError,
    UsageError,
)
from deeplab_zoo.proto.records import Net
from deeplab_zoo.zoo.demo import random_blobs
from deeplab_zoo.zoo.models.inference import prepare
from deeplab_zoo.zoo.parity import ours, pycaffe
from deeplab_zoo.zoo.parity.cases import photo
from deeplab_zoo.zoo.parity.check import choose, float64
from deeplab_zoo.zoo.parity.comparison import TOLERANCE, compare
from deeplab_zoo.zoo.parity.engine import Engine
from deeplab_zoo.zoo.parity.original import Original, open_original

Make = Callable[..., tuple[Path, Path]]


def image_of(original: Original, size: tuple[int, int] = (65, 97)) -> np.ndarray:
    return prepare(photo(*size, 0), original.numerics).numpy()


def assert_agrees(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found
    for blob, value in expected.items():
        assert compare(blob, found[blob], value).relative_l2 <= TOLERANCE, blob


# TensorFlow.


def seeded(config: DeepLabV2Config, folder: Path) -> Path:
    """Write weights that keep activations in range, under TensorFlow's conventions."""
    net = of_net(filled(deploy_net(config, 65, 97), random_blobs(config, 2)))
    state = to_native(net).weights
    weights.write(replace(state, numerics=TF_SLIM), folder / "seeded.safetensors")
    return folder / "seeded.safetensors"


def of_net(net: Net) -> Archive:
    bare = replace(net, layers=tuple(replace(layer, blobs=()) for layer in net.layers))
    return Archive(Origin("caffe", {}, "test"), CAFFE_V2, bare, caffe.tensors(net)[0])


@pytest.mark.parametrize(("scales", "size"), [((1.0,), (96, 71)), ((1.0, 0.75, 0.5), (65, 97))])
def test_tensorflow_itself_gives_the_blobs_of_a_converted_checkpoint(
    tmp_path: Path, tiny_config: DeepLabV2Config, scales: tuple[float, ...], size: tuple[int, int]
) -> None:
    pytest.importorskip("tensorflow")
    config = replace(tiny_config, scales=scales)
    model = seeded(config, tmp_path)
    deeplab_zoo.export(model, tmp_path / "model.ckpt", to="tf")
    report = deeplab_zoo.parity(model, tmp_path / "model.ckpt", sizes=[size], exact=False)
    assert report.passed, report.verdict
    assert report.engine.startswith("TensorFlow 2.")
    assert len(report.cases[0].comparisons) == (160 if len(scales) > 1 else 53)
    assert report.weights is not None
    assert report.weights.tensors == report.weights.equal > 100
    if len(scales) > 1:
        with pytest.raises(MismatchError, match=r"model\.ckpt: TensorFlow cannot run it at 1x1"):
            deeplab_zoo.parity(model, tmp_path / "model.ckpt", sizes=[(1, 1)], exact=False)


def test_all_shards_of_a_checkpoint_of_the_old_format_are_one_reference(
    tmp_path: Path, tiny_config: DeepLabV2Config
) -> None:
    pytest.importorskip("tensorflow")
    model = seeded(tiny_config, tmp_path)
    deeplab_zoo.export(model, tmp_path / "model.ckpt", to="tf")
    values = {name: one.read() for name, one in open_checkpoint(tmp_path / "model.ckpt").items()}
    names = list(values)
    for index in range(2):
        with (tmp_path / f"old-0000{index}-of-00002").open("wb") as file:
            write_v1({name: values[name] for name in names[index::2]}, file)
    report = deeplab_zoo.parity(model, tmp_path / "old", sizes=[(65, 97)], exact=False)
    assert report.passed, report.verdict
    assert report.engine.startswith("TensorFlow 2.")


def test_a_checkpoint_of_another_network_is_named(
    tmp_path: Path, caffe_files: tuple[Path, Path]
) -> None:
    pytest.importorskip("tensorflow")
    original = replace(
        open_original(caffe_files), kind=Kind.CHECKPOINT, checkpoint=tmp_path / "none"
    )
    with pytest.raises(MismatchError, match="none: TensorFlow cannot read it"):
        choose(original, "tensorflow", (1.0,))


# onnxruntime.


def test_onnxruntime_is_a_reference_for_an_export(tmp_path: Path, native: Path) -> None:
    pytest.importorskip("onnxruntime")
    model = deeplab_zoo.load(native)
    deeplab_zoo.export_onnx(model, tmp_path / "x.onnx", size=(65, 97))
    report = deeplab_zoo.parity(native, tmp_path / "x.onnx")
    assert report.passed, report.verdict
    assert report.engine.startswith("onnxruntime")
    assert [case.name for case in report.cases] == ["photo, 65x97", "noise, 65x97"]
    assert [one.blob for one in report.cases[0].comparisons] == ["data", "fc1_voc12"]
    with pytest.raises(MismatchError, match=r"input 'image' takes \[1, 3, 65, 97\], found"):
        deeplab_zoo.parity(native, tmp_path / "x.onnx", sizes=[(33, 33)])


def test_an_onnx_file_of_a_graph_has_its_inputs(tmp_path: Path, spell: Make) -> None:
    pytest.importorskip("onnxruntime")
    shape = "input_shape { dim: 1 dim: 3 dim: 5 dim: 7 } "
    files = spell(
        "layer { name: 's' type: 'Eltwise' bottom: 'a' bottom: 'b' top: 's' }",
        f"input: 'a' input: 'b' {shape} {shape}",
    )
    deeplab_zoo.export_onnx(deeplab_zoo.load_caffe(*files), tmp_path / "x.onnx")
    report = deeplab_zoo.parity(*files, tmp_path / "x.onnx", exact=False)
    assert report.passed, report.verdict
    assert "x.onnx" in report.files
    other = spell("layer { name: 'r' type: 'ReLU' bottom: 'data' top: 'r' }")
    with pytest.raises(MismatchError, match=r"x\.onnx: reads a, b; expected image, or data"):
        deeplab_zoo.parity(*other, tmp_path / "x.onnx")


def test_a_damaged_onnx_file_is_named(tmp_path: Path, native: Path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "x.onnx").write_bytes(b"\0" * 99)
    with pytest.raises(FormatError, match=r"x\.onnx: onnxruntime cannot read it"):
        deeplab_zoo.parity(native, tmp_path / "x.onnx")


# pycaffe, by a stand-in that has its interface: Caffe itself cannot be installed with pip.


def stand_in(original: Original) -> ModuleType:
    class Blob:
        def __init__(self, shape: tuple[int, ...]) -> None:
            self.data = np.zeros(shape, np.float32)

        def reshape(self, *shape: int) -> None:
            self.data = np.zeros(shape, np.float32)

    class Net:
        def __init__(self, text: str, binary: str, phase: int) -> None:
            assert (Path(text), Path(binary), phase) == (*original.files, 1)
            self.blobs = {"data": Blob((1, 3, 1, 1)), "data_split_0": Blob((1,))}

        def reshape(self) -> None:
            sizes = original.graph.sizes({"data": self.blobs["data"].data.shape})
            self.blobs.update({name: Blob(sizes[name]) for name in sizes if name != "data"})

        def forward(self) -> None:
            inputs = {"data": torch.from_numpy(self.blobs["data"].data)}
            with torch.no_grad():
                for name, value in original.graph(inputs, "all").items():
                    self.blobs[name].data[...] = value.numpy()

    module = ModuleType("caffe")
    vars(module).update(
        SimpleNamespace(Net=Net, TEST=1, set_mode_cpu=lambda: None, __version__="1.0.0").__dict__
    )
    return module


def test_pycaffe_is_taken_where_it_works(
    monkeypatch: pytest.MonkeyPatch, native: Path, caffe_files: tuple[Path, Path]
) -> None:
    original = open_original(caffe_files)
    monkeypatch.setitem(sys.modules, "caffe", stand_in(original))
    report = deeplab_zoo.parity(native, *caffe_files, sizes=[(65, 97)])
    assert report.passed
    assert report.engine == "Caffe 1.0.0"
    assert "data_split_0" not in report.uncompared
    assert len(report.cases[0].comparisons) > 40


def test_pycaffe_is_not_let_read_its_own_data(monkeypatch: pytest.MonkeyPatch, spell: Make) -> None:
    files = spell(
        "layer { name: 'r' type: 'ReLU' bottom: 'data' top: 'r' }",
        "layer { name: 'd' type: 'ImageSegData' top: 'data' top: 'label' top: 'data_dim' }",
    )
    original = open_original(files)
    monkeypatch.setitem(sys.modules, "caffe", stand_in(original))
    with pytest.raises(MismatchError, match="'d' .line 1.: ImageSegData: pycaffe would read its"):
        pycaffe.engine(original)


def test_a_pycaffe_that_is_missing_says_what_to_build() -> None:
    with pytest.raises(MissingDependencyError, match="Build Caffe"):
        pycaffe.module()


def test_a_folder_called_caffe_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "caffe", ModuleType("caffe"))
    with pytest.raises(MissingDependencyError, match="set_mode_cpu.*Build Caffe"):
        pycaffe.module()


# Which engine.


def test_where_no_engine_is_installed_the_error_says_how_to_install_one(
    monkeypatch: pytest.MonkeyPatch, caffe_files: tuple[Path, Path]
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'deeplab-zoo\[parity\]'"):
        choose(open_original(caffe_files), "auto", (1.0,))
    engine, _ = choose(open_original(caffe_files), "float64", (1.0,))
    assert engine.name == "our own PyTorch float64"


def test_an_unknown_engine_is_told_the_known_ones(caffe_files: tuple[Path, Path]) -> None:
    with pytest.raises(UsageError, match="engine 'mxnet' is unknown, expected one of auto, pycaf"):
        choose(open_original(caffe_files), "mxnet", (1.0,))


def test_float64_is_the_graphs_own_answer(caffe_files: tuple[Path, Path]) -> None:
    original = open_original(caffe_files)
    image = image_of(original)
    with torch.no_grad():
        wide = original.graph.double()({"data": torch.from_numpy(image).double()}, "all")
    expected = {name: value.numpy() for name, value in wide.items()}
    original.graph.float()
    found = float64(original).run({"data": image})
    assert_agrees(dict(found), expected)
    assert set(found) == set(expected)


# Our own side.


def test_a_device_or_precision_that_is_not_there_is_told(native: Path) -> None:
    model = deeplab_zoo.load(native)
    with pytest.raises(UsageError, match="precision 'fp8', expected one of fp32, bf16"):
        ours.engine(model, precision="fp8")
    with pytest.raises(UsageError, match="device 'cuda:77' cannot be used"):
        ours.engine(model, "cuda:77")


def test_bf16_has_its_own_tolerance(native: Path, caffe_files: tuple[Path, Path]) -> None:
    pytest.importorskip("cv2")
    report = deeplab_zoo.parity(native, *caffe_files, sizes=[(65, 97)], precision="bf16")
    assert report.passed, report.verdict
    assert report.worst[1].relative_l2 > 1e-3
    assert not deeplab_zoo.parity(
        native, *caffe_files, sizes=[(65, 97)], precision="bf16", tolerance="fp32"
    ).passed


@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.0), ("bf16", 1e-3)])
def test_every_blob_of_an_optimised_model_is_held_to_its_source(
    native: Path, caffe_files: tuple[Path, Path], precision: str, least: float
) -> None:
    pytest.importorskip("cv2")
    made = {"sizes": [(65, 97)], "precision": precision, "exact": False}
    plain = deeplab_zoo.parity(native, *caffe_files, **made)
    report = deeplab_zoo.parity(native, *caffe_files, optimize=True, **made)
    assert report.passed, report.verdict
    assert report.worst[1].relative_l2 > least
    blobs = [[one.blob for one in each.cases[0].comparisons] for each in (report, plain)]
    assert blobs[0] == blobs[1]
    assert f"deeplab-zoo, optimised {precision}" in report.environment["engines"]


def test_a_graph_is_not_optimised(caffe_files: tuple[Path, Path]) -> None:
    with pytest.raises(UsageError, match="optimize: the model is a graph, expected a native one"):
        deeplab_zoo.parity(*caffe_files, engine="float64", optimize=True)


def test_an_engine_is_called_by_name_and_version() -> None:
    assert Engine("Caffe", "1.0", dict).label == "Caffe 1.0"
    assert Engine("recorded", "", dict).label == "recorded"

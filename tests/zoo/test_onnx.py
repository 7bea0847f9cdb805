"""ONNX files in onnxruntime against PyTorch, and what the files say of themselves."""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner, Result

from deeplab_zoo import __version__, export_onnx, load_caffe
from deeplab_zoo.cli.main import cli
from deeplab_zoo.converters import convert
from deeplab_zoo.converters.archive import Origin
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config
from deeplab_zoo.converters.graph.engine import Graph
from deeplab_zoo.converters.largefov import LargeFOVConfig
from deeplab_zoo.converters.numerics import PROFILES
from deeplab_zoo.proto.errors import (
    MismatchError,
    MissingDependencyError,
    StorageError,
    UsageError,
    ZooError,
)
from deeplab_zoo.zoo.models.deeplab_v2 import DeepLabV2
from deeplab_zoo.zoo.models.largefov import LargeFOV

Make = Callable[..., tuple[Path, Path]]

TOLERANCE = 1e-5  # Relative L2 of the outputs; 4e-8 is usual.
TRAINED = ("caffe-v2", "tf-slim", "torch-halfpixel")
SIZES = ((65, 97), (64, 82), (70, 91), (33, 33), (7, 9), (128, 50), (2, 3))

# Every kind of block once: what is symbolic takes torch a tenth of a second per operation.
SMALL = DeepLabV2Config(4, (1, 1, 1, 1), 3, (2, 3, 2, 3), rates=(6,), scales=(1.0, 0.75))


def random_model(config: DeepLabV2Config, profile: str = "caffe-v2") -> DeepLabV2:
    torch.manual_seed(0)
    model = DeepLabV2(config, PROFILES[profile]).eval()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if ("bn" in name or "downsample.1" in name) and value.dtype.is_floating_point:
                value.uniform_(0.5, 1.5)
    return model


def run(path: Path, inputs: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_outputs()]
    values = session.run(names, {name: value.numpy() for name, value in inputs.items()})
    return dict(zip(names, values, strict=True))


def check(found: np.ndarray, expected: torch.Tensor) -> None:
    wide = expected.numpy().astype(np.float64)
    assert found.shape == wide.shape
    assert np.linalg.norm(found - wide) <= TOLERANCE * np.linalg.norm(wide)


def check_native(path: Path, model: DeepLabV2 | LargeFOV, shape: tuple[int, ...]) -> None:
    image = torch.randn(shape) * 60
    with torch.no_grad():
        expected = model(image)
    check(run(path, {"image": image})["scores"], expected)


def metadata(path: Path) -> dict[str, str]:
    return {one.key: one.value for one in onnx.load(path).metadata_props}


@pytest.mark.parametrize("profile", TRAINED)
def test_a_file_of_one_size_gives_the_models_scores(tmp_path: Path, profile: str) -> None:
    model = random_model(replace(SMALL, rates=(6, 12), scales=(1.0, 0.5)), profile)
    out = export_onnx(model, tmp_path / "a.onnx", size=(70, 91))
    check_native(out, model, (1, 3, 70, 91))


@pytest.mark.slow
@pytest.mark.parametrize("profile", TRAINED)
@pytest.mark.parametrize("scales", [(1.0,), (1.0, 0.75, 0.5)])
def test_a_longer_net_of_one_size_gives_the_models_scores(
    tmp_path: Path, tiny_config: DeepLabV2Config, profile: str, scales: tuple[float, ...]
) -> None:
    model = random_model(replace(tiny_config, scales=scales), profile)
    out = export_onnx(model, tmp_path / "a.onnx", size=(70, 91))
    check_native(out, model, (1, 3, 70, 91))


def test_a_vgg_file_gives_the_models_scores(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = LargeFOV(LargeFOVConfig(4, (2, 3, 2, 3, 2), 5, rates=(6, 12), sides=4)).eval()
    out = export_onnx(model, tmp_path / "a.onnx", size=(34, 41))
    check_native(out, model, (1, 3, 34, 41))
    assert metadata(out)["family"] == "largefov"


@pytest.mark.parametrize(
    ("profile", "scales"),
    [
        ("tf-slim", (1.0,)),
        pytest.param("caffe-v2", (1.0, 0.75), marks=pytest.mark.slow),
    ],
)
def test_a_dynamic_file_gives_the_models_scores_at_any_size(
    tmp_path: Path, profile: str, scales: tuple[float, ...]
) -> None:
    model = random_model(replace(SMALL, scales=scales), profile)
    out = export_onnx(model, tmp_path / "a.onnx", dynamic=True)
    for batch, size in enumerate(SIZES, 1):
        check_native(out, model, (batch, 3, *size))
    (image,), (scores,) = onnx.load(out).graph.input, onnx.load(out).graph.output
    axes = [
        [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (image, scores)
    ]
    assert axes == [["batch", 3, "height", "width"], ["batch", 4, "scores_height", "scores_width"]]


@pytest.mark.slow
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("scales", [(1.0,), (1.0, 0.75, 0.5)])
def test_every_profile_can_be_dynamic(
    tmp_path: Path, tiny_config: DeepLabV2Config, profile: str, scales: tuple[float, ...]
) -> None:
    model = random_model(replace(tiny_config, scales=scales), profile)
    out = export_onnx(model, tmp_path / "a.onnx", dynamic=True)
    for batch, size in enumerate(SIZES, 1):
        check_native(out, model, (batch, 3, *size))


def test_the_file_says_what_model_it_is_and_nothing_of_the_machine(tmp_path: Path) -> None:
    model = random_model(replace(SMALL, scales=(1.0,)), "tf-slim")
    origin = Origin("tensorflow", {"model.ckpt": "ab" * 32}, "test")
    paths = [tmp_path / name for name in ("a.onnx", "b.onnx")]
    for path in paths:
        export_onnx(model, path, size=(33, 41), origin=origin)
    said = metadata(paths[0])
    assert said["numerics"] == "tf-slim"
    assert json.loads(said["numerics_fields"]) == json.loads(json.dumps(asdict(model.numerics)))
    assert DeepLabV2Config.from_json(json.loads(said["config"])) == model.config
    assert json.loads(said["origin"])["files"] == origin.files
    assert said["deeplab_zoo"] == __version__
    data = paths[0].read_bytes()
    assert data == paths[1].read_bytes()
    assert b".py" not in data


def test_the_opset_is_the_one_asked_for(tmp_path: Path) -> None:
    model = random_model(replace(SMALL, scales=(1.0,)))
    for opset, expected in ((None, 18), (20, 20)):
        out = export_onnx(model, tmp_path / "a.onnx", size=(41, 33), opset=opset)
        assert [one.version for one in onnx.load(out).opset_import] == [expected]
        check_native(out, model, (1, 3, 41, 33))


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_graph_has_its_blobs_names(tmp_path: Path, make_net: Make, dynamic: bool) -> None:
    graph = load_caffe(*make_net(replace(SMALL, rates=(6, 12), scales=(1.0,))))
    out = export_onnx(graph, tmp_path / "a.onnx", dynamic=dynamic)
    for shape in [(1, 3, 65, 97), *([(3, 3, 64, 82), (2, 3, 33, 50)] if dynamic else [])]:
        image = {"data": torch.randn(shape) * 60}
        with torch.no_grad():
            expected = graph(image)
        found = run(out, image)
        assert list(found) == list(graph.outputs)
        for blob, value in found.items():
            check(value, expected[blob])


def two_inputs(folder: Path, crop: str = "") -> Graph:
    text = folder / "two.prototxt"
    text.write_text(
        """
        layer { name: "z" type: "Input" top: "z" input_param { shape { dim: 2 dim: 3 dim: 9 dim: 7 } } }
        layer { name: "a" type: "Input" top: "a" input_param { shape { dim: 2 dim: 3 dim: 9 dim: 7 } } }
        layer { name: "sum" type: "Eltwise" bottom: "z" bottom: "a" top: "sum"
                eltwise_param { coeff: 1 coeff: -2 } }
        layer { name: "half" type: "Pooling" bottom: "sum" top: "half"
                pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
        """
        + crop
    )
    return load_caffe(text)


def test_pooling_by_caffes_rules_is_stated(tmp_path: Path) -> None:
    kinds = (
        "pool: AVE kernel_size: 3 stride: 2 pad: 2",  # Needs a divisor of its own.
        "pool: AVE kernel_size: 2 stride: 3 pad: 1",  # Caffe drops the last window.
        "pool: MAX kernel_size: 2 stride: 2 pad: 1",
    )
    text = tmp_path / "pool.prototxt"
    text.write_text(
        "input: 'data' input_shape { dim: 1 dim: 2 dim: 7 dim: 8 }"
        + "".join(
            f"layer {{ name: '{n}' type: 'Pooling' bottom: 'data' top: 'p{n}' pooling_param {{ {kind} }} }}"
            for n, kind in enumerate(kinds)
        )
    )
    graph, image = load_caffe(text), {"data": torch.randn(1, 2, 7, 8)}
    found = run(export_onnx(graph, tmp_path / "a.onnx"), image)
    for blob, expected in graph(image).items():
        check(found[blob], expected)


def test_an_output_needs_another_name_than_the_inputs(tmp_path: Path) -> None:
    end = "layer { name: 'r' type: 'ReLU' bottom: 'a' top: 'a' }"
    source = "input: 'a' input_shape { dim: 1 dim: 2 dim: 3 dim: 4 }"
    for layers in (end, end.replace("ReLU", "Silence").replace(" top: 'a'", "")):
        text = tmp_path / "net.prototxt"
        text.write_text(source + layers)
        with pytest.raises(MismatchError, match="other names than the inputs .'a'."):
            export_onnx(load_caffe(text), tmp_path / "a.onnx")


@pytest.mark.parametrize("dynamic", [False, True])
def test_several_inputs_keep_their_names_and_order(tmp_path: Path, dynamic: bool) -> None:
    graph = two_inputs(tmp_path)
    out = export_onnx(graph, tmp_path / "a.onnx", dynamic=dynamic)
    for shape in [(2, 3, 9, 7), *([(1, 3, 12, 17), (3, 3, 8, 9)] if dynamic else [])]:
        inputs = {name: torch.randn(shape) for name in ("a", "z")}
        check(run(out, inputs)["half"], graph(inputs)["half"])
    assert [one.name for one in onnx.load(out).graph.input] == ["z", "a"]


def test_a_net_of_one_size_cannot_be_dynamic(tmp_path: Path) -> None:
    full = """layer { name: "ip" type: "InnerProduct" bottom: "half" top: "ip"
              inner_product_param { num_output: 2 weight_filler { type: "gaussian" } } }"""
    out = tmp_path / "a.onnx"
    with pytest.raises(MismatchError, match="does not take other sizes: .*'ip'.* without dynamic"):
        export_onnx(two_inputs(tmp_path, full), out, dynamic=True)
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("a.pb", {}, UsageError, "ends in .onnx"),
        ("none/a.onnx", {}, StorageError, "does not exist"),
        ("a.onnx", {"opset": 11}, UsageError, "opset 11: expected 18 to"),
        ("a.onnx", {"opset": 999}, UsageError, "opset 999: expected 18 to"),
        ("a.onnx", {"size": (0, 5)}, UsageError, "below 1"),
        ("a.onnx", {"size": (9, 5), "dynamic": True}, UsageError, "exclude each other"),
    ],
)
def test_bad_input_is_refused_and_leaves_no_file(
    tmp_path: Path, name: str, options: dict[str, object], error: type[ZooError], message: str
) -> None:
    with pytest.raises(error, match=message):
        export_onnx(random_model(SMALL), tmp_path / name, **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_graph_in_training_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="TRAIN phase"):
        export_onnx(two_inputs(tmp_path).train(), tmp_path / "a.onnx")


def test_a_missing_onnx_is_told_with_its_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingDependencyError, match=r"deeplab-zoo\[onnx\]"):
        export_onnx(random_model(SMALL), tmp_path / "a.onnx")


def command(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["export", *map(str, arguments)])


def test_the_command_writes_a_file_with_its_origin(tmp_path: Path, make_net: Make) -> None:
    native, out = tmp_path / "net.safetensors", tmp_path / "net.onnx"
    text, weights = make_net(replace(SMALL, scales=(1.0,)))
    convert.convert_caffe(text, weights, native)
    done = command(native, "--to", "onnx", "--size", "33,49", "--opset", "19", "-o", out)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith(f"wrote {out}")
    assert set(json.loads(metadata(out)["origin"])["files"]) == {text.name, weights.name}
    (image,) = onnx.load(out).graph.input
    assert [d.dim_value for d in image.type.tensor_type.shape.dim] == [1, 3, 33, 49]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--to", "pth", "--opset", "18"), "--opset: not for --to pth"),
        (("--to", "onnx", "--layout", "isht7"), "--layout: not for --to onnx"),
        (("--to", "onnx", "--size", "33"), "--size 33: expected height and width"),
    ],
)
def test_options_of_another_target_are_a_usage_error(
    tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    done = command("x.safetensors", *options, "-o", tmp_path / "a.onnx")
    assert isinstance(done.exception, UsageError)
    assert message in str(done.exception)

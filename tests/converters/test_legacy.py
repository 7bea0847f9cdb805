"""Other programs' own files come home, and what only looks like one is refused."""

import hashlib
import json
import pickle
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch.nn import functional

import deeplab_zoo
from deeplab_zoo.converters import hdf5, weights
from deeplab_zoo.converters.archive import Role
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config, parameters
from deeplab_zoo.converters.export import variables
from deeplab_zoo.converters.naming.deeplab_v2 import LAYOUTS, context_of, from_canonical
from deeplab_zoo.converters.native import Native
from deeplab_zoo.converters.numerics import PROFILES, TF_SLIM
from deeplab_zoo.converters.weights import Weights
from deeplab_zoo.proto import kaffe
from deeplab_zoo.proto.errors import FormatError, MismatchError, UsageError

Arrays = dict[str, np.ndarray[Any, Any]]
State = dict[str, Any]

KAFFE = {
    "weights": "weights",
    "biases": "biases",
    "gamma": "scale",
    "beta": "offset",
    "moving_mean": "mean",
    "moving_variance": "variance",
}
COUNTER = "a training counter, without effect on a frozen statistic"


@pytest.fixture
def native(tiny_config: DeepLabV2Config) -> Weights:
    random = np.random.default_rng(5)
    state = {
        name: random.uniform(0.5, 1.5, shape).astype("f4")
        for name, shape in parameters(tiny_config).items()
    }
    return Weights(state, tiny_config, TF_SLIM, None)  # type: ignore[arg-type]


@pytest.fixture
def convert(tmp_path: Path) -> Callable[..., Native]:
    """Convert to safetensors, read that back, and return the account."""

    def run(path: Path, **how: Any) -> Native:
        out = tmp_path / "out.safetensors"
        native = deeplab_zoo.convert_legacy(path, out, **how)
        assert native is not None
        back = weights.read(out)
        assert back.state.keys() == native.weights.state.keys()
        assert (back.config, back.numerics) == (native.weights.config, native.weights.numerics)
        for name, data in back.state.items():
            assert np.array_equal(data, native.weights.state[name], equal_nan=True)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert digest in back.origin.files.values()
        return native

    return run


def assert_state(found: Native, expected: Weights) -> None:
    assert found.weights.state.keys() == expected.state.keys()
    for name, data in expected.state.items():
        assert np.array_equal(found.weights.state[name], data), name


def in_layout(native: Weights, layout: str, *, counters: bool = False) -> State:
    """The state dict as the layout's own program would save it."""
    context = context_of(native.config.blocks)
    state: State = OrderedDict()
    for name, data in native.state.items():
        module, _, parameter = name.rpartition(".")
        state[f"{from_canonical(layout, module, context)}.{parameter}"] = torch.tensor(data)
        if counters and parameter == "running_var":
            module = from_canonical(layout, module, context)
            state[f"{module}.num_batches_tracked"] = torch.tensor(7)
    return state


# caffe-tensorflow


def as_kaffe(native: Weights) -> dict[str, Arrays]:
    layers: dict[str, Arrays] = {}
    for name, data in variables(native).items():
        layer, _, kind = name.rpartition("/")
        layers.setdefault(layer, {})[KAFFE[kind]] = data
    return layers


def test_an_npy_is_read_under_tensorflows_conventions(
    native: Weights, tmp_path: Path, convert: Callable[..., Native]
) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(kaffe.encode(as_kaffe(native)))
    found = convert(path)
    assert_state(found, native)
    assert found.weights.numerics.name == "tf-slim"
    assert found.weights.config.scales == (1.0,)
    assert found.conversion.sources["backbone.bn1.weight"] == ("bn_conv1/scale",)
    assert convert(path, multi_scale=True).weights.config.scales == (1.0, 0.75, 0.5)
    assert convert(path, numerics="caffe-v2").weights.numerics.name == "caffe-v2"


@pytest.mark.parametrize(("dtype", "change"), [("f2", "float16 widened"), ("f8", "float64 round")])
def test_an_npy_of_other_floats_is_noted(
    native: Weights, tmp_path: Path, convert: Callable[..., Native], dtype: str, change: str
) -> None:
    path = tmp_path / "x.npy"
    layers = as_kaffe(native)
    layers["conv1"]["weights"] = layers["conv1"]["weights"].astype(dtype)
    path.write_bytes(kaffe.encode(layers))
    found = convert(path)
    (note,) = found.notes
    assert note.startswith(change)
    assert note.endswith("to float32: conv1/weight")
    expected = native.state["backbone.conv1.weight"].astype(dtype).astype("f4")
    assert np.array_equal(found.weights.state["backbone.conv1.weight"], expected)


def test_an_unknown_parameter_in_an_npy_is_named(native: Weights, tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    layers = as_kaffe(native)
    layers["conv1"]["slope"] = np.ones(4, "f4")
    path.write_bytes(kaffe.encode(layers))
    with pytest.raises(FormatError, match="conv1/slope: unknown parameter, expected one of weigh"):
        deeplab_zoo.convert_legacy(path, tmp_path / "x.pth")


# jaccardSegment


def as_deepdish(path: Path, contents: Arrays, *, nodes: bool) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["DEEPDISH_IO_VERSION"] = 12
        if nodes:
            for name, data in contents.items():
                file[name] = data
        else:
            kind = h5py.vlen_dtype(np.uint8)
            data = file.create_dataset("data", (1,), kind, maxshape=(None,), chunks=(4,))
            data[0] = np.frombuffer(pickle.dumps(contents, 2), np.uint8)
    return path


@pytest.mark.parametrize("nodes", [False, True])
def test_deepdish_weights_are_already_in_pytorchs_axis_order(
    native: Weights, tmp_path: Path, convert: Callable[..., Native], *, nodes: bool
) -> None:
    contents: Arrays = {}
    for name, data in variables(native).items():
        contents[name] = data.transpose(3, 2, 0, 1) if data.ndim == 4 else data
    if not nodes:
        slots = {f"{name}/Momentum": data for name, data in contents.items() if "weig" in name}
        contents |= slots | {"global_step": np.array(20000)}
    found = convert(as_deepdish(tmp_path / "x.h5", contents, nodes=nodes))
    assert_state(found, native)
    assert found.weights.numerics.name == "jaccard-segment"
    assert found.weights.config.scales == (1.0,)
    left = Counter(reason for _, reason in found.conversion.dropped)
    convolutions = sum(data.ndim == 4 for data in native.state.values())
    expected = {"an optimizer's slot": convolutions, "a step counter": 1}
    assert left == ({} if nodes else expected)


# PyTorch


@pytest.mark.parametrize(
    ("layout", "numerics", "scales"),
    [
        ("isht7", "caffe-v2", (1.0, 0.75, 0.5)),
        ("kazuto1011", "torch-halfpixel", (1.0, 0.75, 0.5)),
    ],
)
@pytest.mark.parametrize("counters", [False, True])
def test_a_state_dict_is_read_as_its_program_ran_it(
    native: Weights,
    tmp_path: Path,
    convert: Callable[..., Native],
    layout: str,
    numerics: str,
    scales: tuple[float, ...],
    *,
    counters: bool,
) -> None:
    state = in_layout(native, layout, counters=counters)
    torch.save(state, tmp_path / "x.pth")
    found = convert(tmp_path / "x.pth")
    assert_state(found, native)
    assert (found.weights.numerics.name, found.weights.config.scales) == (numerics, scales)
    assert dict(found.conversion.dropped) == {
        name: COUNTER for name in state if name.endswith("num_batches_tracked")
    }
    assert convert(tmp_path / "x.pth", multi_scale=False).weights.config.scales == (1.0,)


@pytest.mark.parametrize("layout", ["advsemiseg", "canonical"])
def test_a_layout_that_tells_no_conventions_needs_them_named(
    native: Weights, tmp_path: Path, layout: str
) -> None:
    torch.save(in_layout(native, layout), tmp_path / "x.pth")
    with pytest.raises(UsageError, match=f"{layout} layout, which does not tell .*--numerics"):
        deeplab_zoo.convert_legacy(tmp_path / "x.pth", tmp_path / "y.pth")
    found = deeplab_zoo.convert_legacy(
        tmp_path / "x.pth", tmp_path / "y.safetensors", numerics="jaccard-segment"
    )
    assert found is not None
    assert found.weights.numerics == PROFILES["jaccard-segment"]
    with pytest.raises(UsageError, match="numerics profile 'none' is unknown"):
        deeplab_zoo.convert_legacy(tmp_path / "x.pth", tmp_path / "y.pth", numerics="none")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("wrapping", ["state_dict", "module", "rloss", "old pickle", "safetensors"])
def test_wrappings_of_a_state_dict_are_taken_off(
    native: Weights, tmp_path: Path, convert: Callable[..., Native], layout: str, wrapping: str
) -> None:
    state = in_layout(native, layout)
    path = tmp_path / "x.pth"
    if wrapping == "state_dict":
        torch.save({"state_dict": state}, path)
    elif wrapping == "module":
        torch.save({f"module.{name}": data for name, data in state.items()}, path)
    elif wrapping == "rloss":
        optimizer = {"state": {}, "param_groups": [{"lr": 0.007, "params": [0, 1]}]}
        best = np.float64(0.61)
        kept = {"epoch": 3, "state_dict": state, "optimizer": optimizer, "best_pred": best}
        torch.save(kept, path)
    elif wrapping == "old pickle":
        torch.save(state, path, _use_new_zipfile_serialization=False)
    else:
        from safetensors.torch import save_file

        save_file(state, path)
    found = convert(path, numerics="caffe-v2")
    expected = {
        name: data for name, data in native.state.items()
        if layout != "advsemiseg" or not name.startswith(("classifier.convs.2", "classifier.convs.3"))
    }  # fmt: skip
    assert_state(found, replace(native, state=expected))


def test_half_precision_is_widened_with_a_note(
    native: Weights, tmp_path: Path, convert: Callable[..., Native]
) -> None:
    state = in_layout(native, "isht7")
    state["Scale.conv1.weight"] = half = state["Scale.conv1.weight"].half()
    torch.save(state, tmp_path / "x.pth")
    found = convert(tmp_path / "x.pth")
    assert found.notes == ("float16 widened to float32: Scale.conv1/weight",)
    assert np.array_equal(found.weights.state["backbone.conv1.weight"], half.float().numpy())


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_bfloat16_is_widened(
    native: Weights, tmp_path: Path, convert: Callable[..., Native], kind: str
) -> None:
    from safetensors.torch import save_file

    state = {name: data.bfloat16() for name, data in in_layout(native, "isht7").items()}
    path = tmp_path / f"x.{kind}"
    if kind == "pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    found = convert(path)
    for name, data in native.state.items():
        expected = torch.tensor(data).bfloat16().float().numpy()
        assert np.array_equal(found.weights.state[name], expected), name


def test_parameters_that_were_being_trained_are_read(
    native: Weights, tmp_path: Path, convert: Callable[..., Native]
) -> None:
    state = in_layout(native, "isht7")
    trained = {
        name: torch.nn.Parameter(data) if name.endswith("weight") else data
        for name, data in state.items()
    }
    torch.save(trained, tmp_path / "x.pth")
    assert_state(convert(tmp_path / "x.pth"), native)


def test_advsemisegs_unused_branches_are_left_behind(
    native: Weights, tmp_path: Path, convert: Callable[..., Native]
) -> None:
    torch.save(in_layout(native, "advsemiseg"), tmp_path / "x.pth")
    found = convert(tmp_path / "x.pth", numerics="caffe-v2")
    assert found.weights.config.rates == (6, 12)
    reason = "AdvSemiSeg's forward returns after two branches and never adds this one"
    assert dict(found.conversion.dropped) == {
        f"layer5.conv2d_list.{branch}.{kind}": reason
        for branch in (2, 3)
        for kind in ("weight", "bias")
    }
    model = deeplab_zoo.load(tmp_path / "out.safetensors")
    with torch.no_grad():
        features = model.backbone(torch.randn(1, 3, 33, 41))
        expected = sum(
            functional.conv2d(
                features,
                torch.tensor(native.state[f"classifier.convs.{branch}.weight"]),
                torch.tensor(native.state[f"classifier.convs.{branch}.bias"]),
                padding=rate,
                dilation=rate,
            )
            for branch, rate in ((0, 6), (1, 12))
        )
        torch.testing.assert_close(model.classifier(features), expected)


# Ours


@pytest.mark.parametrize("kind", ["safetensors", "pth", "h5"])
def test_our_own_files_say_what_they_are(native: Weights, tmp_path: Path, kind: str) -> None:
    torch.save(in_layout(native, "kazuto1011"), tmp_path / "x.pth")
    path = tmp_path / f"y.{kind}"
    deeplab_zoo.convert_legacy(tmp_path / "x.pth", path)
    found = deeplab_zoo.convert_legacy(path, tmp_path / "z.safetensors")
    assert found is not None
    assert_state(found, native)
    assert found.weights.numerics.name == "torch-halfpixel"
    assert found.weights.config.scales == (1.0, 0.75, 0.5)
    with pytest.raises(MismatchError, match="trained under 'torch-halfpixel', asked for 'caffe-v2"):
        deeplab_zoo.convert_legacy(path, tmp_path / "z.safetensors", numerics="caffe-v2")
    same = deeplab_zoo.convert_legacy(
        path, tmp_path / "z.safetensors", numerics="torch-halfpixel", multi_scale=False
    )
    assert same is not None
    assert same.weights.config.scales == (1.0,)


def test_a_fresh_head_replaces_the_files(
    native: Weights, tmp_path: Path, convert: Callable[..., Native]
) -> None:
    torch.save(in_layout(native, "isht7"), tmp_path / "x.pth")
    found = convert(tmp_path / "x.pth", reset_head=True, num_classes=9)
    assert found.weights.config.classes == 9
    assert len(found.conversion.dropped) == len(found.fresh) == 8


# A network without a native model


@pytest.mark.golden
def test_kazuto1011s_deeplab_v1_is_kept_as_an_archive_only(shared: Path, tmp_path: Path) -> None:
    facts = shared / "facts" / "state-dicts" / "kazuto_deeplabv1_resnet101.json"
    shapes = json.loads(facts.read_text())["entries"]
    state = {
        name: torch.tensor(3)
        if name.endswith("num_batches_tracked")
        else torch.randn([min(size, 3) for size in shape])
        for name, shape in shapes.items()
    }
    path = tmp_path / "checkpoint.pth.tar"
    torch.save({"epoch": 1, "state_dict": state, "best_pred": np.float64(0.7)}, path)
    for name in ("x.safetensors", "x.pth"):
        with pytest.raises(MismatchError, match="looks like DeepLab v1 ResNet in kazuto1011's"):
            deeplab_zoo.convert_legacy(path, tmp_path / name)
    assert deeplab_zoo.convert_legacy(path, tmp_path / "x.h5") is None
    archive = hdf5.read(tmp_path / "x.h5")
    assert archive.numerics is None
    assert archive.origin.framework == "pytorch"
    kept = {source: one for one in archive.tensors for source in one.sources}
    assert set(kept) == {name for name in state if not name.endswith("num_batches_tracked")}
    for name, one in kept.items():
        assert np.array_equal(one.data, state[name].numpy()), name
    roles = {name.rpartition(".")[2]: one.role for name, one in kept.items()}
    assert (roles["running_mean"], roles["running_var"]) == (Role.MEAN, Role.VARIANCE)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.pth.tar", "x.h5"}
    with pytest.raises(MismatchError, match="looks like DeepLab v1"):
        deeplab_zoo.load(tmp_path / "x.h5")


# Bad input


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("pwned"),)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("old", [False, True])
def test_a_pth_that_calls_something_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, wrapped: bool, old: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    bad = {"Scale.conv1.weight": Malicious()}
    path = tmp_path / "x.pth"
    torch.save(
        {"state_dict": bad} if wrapped else bad, path, _use_new_zipfile_serialization=not old
    )
    with pytest.raises(FormatError, match=r"x.pth: cannot be read as a state dict"):
        deeplab_zoo.convert_legacy(path, tmp_path / "y.safetensors")
    assert [one.name for one in tmp_path.iterdir()] == ["x.pth"]


def test_an_npy_and_an_h5_that_call_something_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "x.npy", np.array({"conv1": Malicious()}, object), allow_pickle=True)
    as_deepdish(tmp_path / "x.h5", {"conv1/weights": Malicious()}, nodes=False)  # type: ignore[dict-item]
    for name in ("x.npy", "x.h5"):
        with pytest.raises(FormatError, match=rf"{name}.*: byte \d+: names"):
            deeplab_zoo.convert_legacy(tmp_path / name, tmp_path / "y.safetensors")
    assert {one.name for one in tmp_path.iterdir()} == {"x.npy", "x.h5"}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ([torch.zeros(2)], "holds list, expected a state dict"),
        ({"Scale.conv1.weight": 3}, "holds dict, expected a state dict"),
        ({"state_dict": {"a": "b"}}, "holds dict, expected a state dict"),
        (torch.zeros(2), "holds Tensor, expected a state dict"),
        ({"Scale.conv1.weight": torch.zeros(2, dtype=torch.int32)}, "int32, expected numbers with"),
        ({"Scale.conv1.strange": torch.zeros(2)}, "conv1.strange: expected a weight, bias or"),
        ({3: torch.zeros(2)}, "expected a state dict"),
        ({"a.weight": torch.zeros(2).to_sparse()}, "expected a state dict"),
        ({"a.weight": torch.zeros(2, dtype=torch.complex64)}, "complex64, expected numbers with"),
        ({}, "not a DeepLab v2 ResNet or .*: none of its 0 layers"),
        (
            {"a.b.weight": torch.zeros(2)},
            "not a DeepLab v2 ResNet or .*: none of its 1 layers.*a.b",
        ),
    ],
)
def test_a_pth_of_something_else_is_refused(tmp_path: Path, content: Any, complaint: str) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(deeplab_zoo.ZooError, match=complaint):
        deeplab_zoo.convert_legacy(tmp_path / "x.pth", tmp_path / "y.safetensors")
    assert not (tmp_path / "y.safetensors").exists()


def test_a_name_of_no_layout_is_one_error_with_all(native: Weights, tmp_path: Path) -> None:
    state = in_layout(native, "isht7")
    state |= {"Scale.aux.weight": torch.zeros(2), "Scale.aux.bias": torch.zeros(2)}
    del state["Scale.bn1.running_var"]
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(MismatchError, match="2 tensors have no place") as caught:
        deeplab_zoo.convert_legacy(tmp_path / "x.pth", tmp_path / "y.safetensors")
    assert "Scale.aux/weight [2]: no rule places it" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "command"), [("net.caffemodel", "convert caffe"), ("net.prototxt", "convert caffe")]
)
def test_files_of_other_commands_name_the_command(
    make_net: Callable[..., tuple[Path, Path]],
    tiny_config: DeepLabV2Config,
    tmp_path: Path,
    name: str,
    command: str,
) -> None:
    make_net(tiny_config)
    with pytest.raises(FormatError, match=f"use `deeplab-zoo {command}`"):
        deeplab_zoo.convert_legacy(tmp_path / name, tmp_path / "x.pth")

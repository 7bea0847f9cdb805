"""Checkpoints to the native model: every form TensorFlow wrote, and what is left behind."""

import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import deeplab_zoo
from deeplab_zoo.converters import convert
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config, parameters
from deeplab_zoo.converters.native import Head, Native, to_native
from deeplab_zoo.converters.weights import read as read_weights
from deeplab_zoo.proto.checkpoint_write import write_v1, write_v2
from deeplab_zoo.proto.errors import MismatchError, UsageError, ZooError
from deeplab_zoo.proto.tensorflow_pb2 import ObjectGraph

NETWORK = ("conv1/*", "bn*", "res*", "fc1*")
PARTS = {
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
    ("weight", True): "gamma",
    ("bias", True): "beta",
    ("weight", False): "weights",
    ("bias", False): "biases",
}  # fmt: skip

Arrays = dict[str, np.ndarray[Any, Any]]
Save = Callable[[Arrays], Path]


@pytest.fixture(scope="module")
def tf(shared: Path) -> Path:
    return shared / "golden" / "tf"


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Write variables as a V2 checkpoint; return its prefix."""

    def write(variables: Arrays) -> Path:
        prefix = tmp_path / "model.ckpt"
        with (
            prefix.with_suffix(".ckpt.index").open("wb") as index,
            prefix.with_suffix(".ckpt.data-00000-of-00001").open("wb") as data,
        ):
            write_v2(variables, index, data)
        return prefix

    return write


@pytest.fixture
def tiny(tiny_config: DeepLabV2Config) -> Arrays:
    """A small network's variables, as DrSleep's program would have saved them."""
    return variables_of(tiny_config)


def variables_of(config: DeepLabV2Config) -> Arrays:
    random = np.random.default_rng(7)
    return {
        variable(name, config.blocks): random.uniform(
            0.5, 1.5, (*shape[2:], *shape[1::-1]) if len(shape) == 4 else shape
        ).astype("f4")
        for name, shape in parameters(config).items()
    }


def variable(name: str, blocks: tuple[int, ...] = (3, 4, 23, 3)) -> str:
    """TensorFlow's name of one of our parameters, stated apart from the naming table."""
    module, _, parameter = name.rpartition(".")
    norm = ".bn" in module or module.endswith("downsample.1")
    kind = PARTS.get(parameter) or PARTS[parameter, norm]
    if module.startswith("classifier"):
        return f"fc1_voc12_c{module[-1]}/{kind}"
    if found := re.fullmatch(r"backbone\.layer(\d)\.(\d+)\.(.*)", module):
        stage, block, part = int(found[1]), int(found[2]), found[3]
        letter = "abc"[block] if block == 0 or blocks[stage - 1] <= 3 else f"b{block}"
        branch = "1" if part.startswith("down") else f"2{'abc'[int(part[-1]) - 1]}"
        return f"{'bn' if norm else 'res'}{stage + 1}{letter}_branch{branch}/{kind}"
    return f"{'bn_conv1' if norm else 'conv1'}/{kind}"


def native_of(path: Path, *select: str) -> Native:
    return to_native(convert.read_tensorflow(path, select))


def as_saved(data: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Undo the axis order."""
    return np.ascontiguousarray(data.transpose(2, 3, 1, 0) if data.ndim == 4 else data)


def check_manifest(state: Mapping[str, np.ndarray[Any, Any]], tf: Path) -> None:
    manifest = json.loads((tf / "full" / "manifest_div8.json").read_text())
    found = {
        variable(name): {
            "shape": list(as_saved(data).shape),
            "sha256": hashlib.sha256(as_saved(data).tobytes()).hexdigest(),
        }
        for name, data in state.items()
    }
    assert found == manifest


# Every checkpoint of the real TensorFlow


@pytest.mark.golden
@pytest.mark.parametrize(
    "name",
    ["v2/model.ckpt", "v2/model.ckpt.index", "v2/model.ckpt.data-00000-of-00001",
     "v2/model.ckpt.meta", "v2", "v1/model.ckpt", "v2_sharded/model.ckpt", "object/ckpt-1"],
)  # fmt: skip
def test_every_form_of_a_checkpoint_gives_the_variables_bit_for_bit(tf: Path, name: str) -> None:
    native = native_of(tf / "small" / name)
    check_manifest(native.weights.state, tf)
    assert native.weights.numerics.name == "tf-slim"
    assert native.weights.config == DeepLabV2Config(stem=8, widths=(8, 16, 32, 64))
    assert native.notes == ()


@pytest.mark.golden
@pytest.mark.parametrize(
    "name",
    ["small_v2_snappy", "small_v2_snappy_blocks1024", "small_v2_blocks512_restart1",
     "small_v2_restart64"],
)  # fmt: skip
def test_indexes_with_other_blocks_give_the_same(tf: Path, tmp_path: Path, name: str) -> None:
    data = "model.ckpt.data-00000-of-00001"
    (tmp_path / data).symlink_to(tf / "small" / "v2" / data)
    shutil.copy(tf / "small" / "exotic" / f"{name}.index", tmp_path / "model.ckpt.index")
    check_manifest(native_of(tmp_path / "model.ckpt").weights.state, tf)


@pytest.mark.golden
def test_a_training_state_gives_the_network_and_says_what_was_left(tf: Path) -> None:
    native = native_of(tf / "small" / "v2_train" / "model.ckpt-20000", *NETWORK)
    check_manifest(native.weights.state, tf)
    dropped = dict(native.conversion.dropped)
    assert dropped["conv1/weights/Momentum"] == "an optimizer's slot"
    assert dropped["fc1_voc12_c3/biases/Momentum"] == "an optimizer's slot"
    assert dropped["extras/label"] == dropped["global_step"] == "not selected by --variables"
    assert Counter(dropped.values()) == {
        "an optimizer's slot": 112,
        "not selected by --variables": 25,
    }
    assert len(dropped) + len(native.conversion.state) == 665


@pytest.mark.golden
def test_all_that_is_neither_network_nor_known_is_one_error(tf: Path) -> None:
    with pytest.raises(MismatchError, match=r"^21 variables are neither weights nor") as caught:
        native_of(tf / "small" / "v2_train" / "model.ckpt-20000")
    assert "  extras/label: string []\n" in str(caught.value)
    assert "  partitioned/cols: float32 [4, 10]\n" in str(caught.value)
    assert str(caught.value).endswith("To take only some variables: --variables PATTERN.")
    assert "Momentum" not in str(caught.value)


@pytest.mark.golden
def test_a_checkpoint_of_some_variables_is_no_network(tf: Path) -> None:
    with pytest.raises(MismatchError, match="no weights for whole stages of the backbone"):
        native_of(tf / "small" / "v1_sharded" / "model.ckpt")


@pytest.mark.golden
def test_files_written_from_a_checkpoint_hold_its_values_and_provenance(
    tf: Path, tmp_path: Path
) -> None:
    keep = tmp_path / "keep.h5"
    out = tmp_path / "x.safetensors"
    source = tf / "small" / "v2_sharded" / "model.ckpt"
    deeplab_zoo.convert_tensorflow(source, out, keep_hdf5=keep, multi_scale=True)
    found = read_weights(out)
    check_manifest(found.state, tf)
    assert found.config.scales == (1.0, 0.75, 0.5)
    assert found.numerics.name == "tf-slim"
    assert found.origin.framework == "tensorflow"
    shards = [f"model.ckpt.data-0000{index}-of-00003" for index in range(3)]
    assert sorted(found.origin.files) == [*shards, "model.ckpt.index"]
    digest = hashlib.sha256((source.parent / shards[1]).read_bytes()).hexdigest()
    assert found.origin.files[shards[1]] == digest
    model = deeplab_zoo.load(keep)
    check_manifest(
        {name: model.state_dict()[name].numpy() for name in parameters(model.config)}, tf
    )


# What a checkpoint may hold besides


def test_slots_counters_and_accumulators_are_dropped_by_named_rules(
    tiny: Arrays, save: Save
) -> None:
    one = np.ones(1, "f4")
    extra = {
        "conv1/weights/Momentum": "an optimizer's slot",
        "conv1/weights/Adam": "an optimizer's slot",
        "conv1/weights/Adam_1": "an optimizer's slot",
        "fc1_voc12_c0/biases/RMSProp": "an optimizer's slot",
        "beta1_power": "an optimizer's state",
        "train/beta2_power": "an optimizer's state",
        "Variable": "an unnamed gradient accumulator of train_msc.py",
        "Variable_12": "an unnamed gradient accumulator of train_msc.py",
        "global_step": "a step counter",
    }
    native = native_of(save(tiny | dict.fromkeys(extra, one)))
    assert dict(native.conversion.dropped) == extra
    assert len(native.weights.state) == len(tiny)


END = "/.ATTRIBUTES/VARIABLE_VALUE"


def object_graph(names: Mapping[str, str]) -> np.ndarray[Any, Any]:
    """The variable that tells an object-based checkpoint's names by key."""
    graph = ObjectGraph()
    for key, name in names.items():
        graph.nodes.add().attributes.add(checkpoint_key=key.encode(), full_name=name.encode())
    return np.array(graph.SerializeToString(), object)


def test_an_object_based_checkpoint_goes_by_the_variables_own_names(
    tiny: Arrays, save: Save
) -> None:
    slot = f"net/0/kernel/.OPTIMIZER_SLOT/sgd/momentum{END}"
    keys = {f"net/{index}/kernel{END}": name for index, name in enumerate(tiny)}
    variables: Arrays = {key: tiny[name] for key, name in keys.items()}
    variables |= {slot: tiny["conv1/weights"], f"save_counter{END}": np.array(3, "i8")}
    named = keys | {slot: "SGD/conv1/weights/momentum", f"save_counter{END}": ""}
    variables["_CHECKPOINTABLE_OBJECT_GRAPH"] = object_graph(named)
    native = native_of(save(variables))
    assert native.conversion.sources["backbone.conv1.weight"] == ("conv1/weights",)
    assert dict(native.conversion.dropped) == {
        slot.removesuffix(END): "an optimizer's slot",
        "save_counter": "a step counter",
        "_CHECKPOINTABLE_OBJECT_GRAPH": "bookkeeping of object-based checkpoints",
    }


def test_names_that_variables_share_give_way_to_the_keys(tiny: Arrays, save: Save) -> None:
    variables: Arrays = {f"{name}{END}": data for name, data in tiny.items()}
    variables |= {f"global_step{END}": np.array(3), f"step{END}": np.array(4)}
    named = dict.fromkeys(variables, "shared") | {f"step{END}": "global_step"}
    variables["_CHECKPOINTABLE_OBJECT_GRAPH"] = object_graph(named)
    native = native_of(save(variables))
    assert len(native.weights.state) == len(tiny)
    assert {"global_step", "step"} <= set(dict(native.conversion.dropped))


def test_an_object_based_optimizers_slots_are_dropped(tiny: Arrays, save: Save) -> None:
    variables = {f"model/{name}{END}": data for name, data in tiny.items()}
    slot = f"model/conv1/weights/.OPTIMIZER_SLOT/optimizer/momentum{END}"
    counters = {f"{name}{END}": np.array(3, "i8") for name in ("step", "save_counter")}
    native = native_of(save(variables | counters | {slot: tiny["conv1/weights"]}))
    assert dict(native.conversion.dropped) == {
        "model/conv1/weights/.OPTIMIZER_SLOT/optimizer/momentum": "an optimizer's slot",
        "step": "a step counter",
        "save_counter": "a step counter",
    }


@pytest.mark.parametrize("scope", ["model/", "tower_0/net/", ""])
def test_a_scope_before_every_name_is_taken_off(tiny: Arrays, save: Save, scope: str) -> None:
    native = native_of(save({f"{scope}{name}": data for name, data in tiny.items()}))
    assert native.conversion.sources["backbone.conv1.weight"] == (f"{scope}conv1/weights",)
    for name, data in native.weights.state.items():
        expected = tiny[variable(name, (1, 2, 4, 3))]
        assert np.array_equal(as_saved(data), expected), name


def test_patterns_select_variables_and_one_that_selects_none_is_refused(
    tiny: Arrays, save: Save
) -> None:
    path = save(tiny | {"net2/odd": np.ones(3, "i4")})
    native = native_of(path, "conv1/*", "bn*", "res?*", "fc1_voc12_c?/*")
    assert dict(native.conversion.dropped) == {"net2/odd": "not selected by --variables"}
    with pytest.raises(UsageError, match=r"--variables 'net3/\*' selects none of \d+ variables"):
        native_of(path, "*", "net3/*")


@pytest.mark.parametrize(
    ("dtype", "change"),
    [("float16", "widened"), ("float64", "rounded"), ("bfloat16", "widened")],
)
def test_other_floats_become_float32_with_a_note(
    tiny: Arrays, save: Save, monkeypatch: pytest.MonkeyPatch, dtype: str, change: str
) -> None:
    name = "res2a_branch1/weights"
    expected = tiny[name].astype("f4" if dtype == "bfloat16" else dtype).astype("f4")
    if dtype == "bfloat16":  # NumPy has none, so its bits are written as what they are not.
        from deeplab_zoo.proto import checkpoint_write

        bits = (expected.view("u4") >> 16).astype("u2")
        expected = (bits.astype("u4") << 16).view("f4")
        monkeypatch.setitem(checkpoint_write._NUMBERS, "uint16", 14)
        tiny[name] = bits
    else:
        tiny[name] = tiny[name].astype(dtype)
    archive = convert.read_tensorflow(save(tiny))
    tensor = next(one for one in archive.tensors if one.sources == (name,))
    assert tensor.source_dtype == dtype
    assert tensor.transform == f"{dtype} {change} to float32, axes to out, in, height, width"
    assert np.array_equal(as_saved(tensor.data), expected)
    assert tensor.data.dtype == np.float32
    assert to_native(archive).notes == (f"{dtype} {change} to float32: res2a_branch1/weight",)


def test_values_that_are_not_finite_are_counted(tiny: Arrays, save: Save) -> None:
    tiny["bn_conv1/gamma"][1:3] = np.nan, np.inf
    assert native_of(save(tiny)).notes == (
        "bn_conv1/gamma: 2 of 4 values are NaN or infinite",
    )  # fmt: skip


def test_numbers_without_a_fraction_are_no_weights(tiny: Arrays, save: Save) -> None:
    tiny["bn_conv1/gamma"] = np.arange(4, dtype="i4")
    with pytest.raises(MismatchError, match="bn_conv1/gamma: int32, expected numbers with a frac"):
        native_of(save(tiny))


def test_missing_variables_are_one_error_with_all(tiny: Arrays, save: Save) -> None:
    del tiny["res3b_branch2b/weights"], tiny["bn5a_branch1/moving_variance"]
    with pytest.raises(MismatchError, match="2 tensors do not fit the model") as caught:
        native_of(save(tiny))
    assert "layer2.1.conv2.weight: missing" in str(caught.value)
    assert "layer4.0.downsample.1.running_var: missing" in str(caught.value)


def test_a_checkpoint_without_a_head_needs_a_fresh_one(tiny: Arrays, save: Save) -> None:
    path = save({name: data for name, data in tiny.items() if not name.startswith("fc1")})
    with pytest.raises(MismatchError, match=r"no classifier.*--reset-head"):
        native_of(path)
    native = to_native(convert.read_tensorflow(path), Head(7, reset=True))
    assert native.weights.config.classes == 7
    assert len(native.fresh) == 8


# Other networks


SLIM = (
    "resnet_v1_101/conv1/weights",
    "resnet_v1_101/conv1/BatchNorm/gamma",
    "resnet_v1_101/block1/unit_1/bottleneck_v1/conv1/weights",
    "resnet_v1_101/block1/unit_1/bottleneck_v1/shortcut/weights",
    "resnet_v1_101/logits/biases",
)
XCEPTION = (
    "xception_65/entry_flow/conv1_1/weights",
    "xception_65/entry_flow/conv1_1/BatchNorm/moving_mean",
)


@pytest.mark.parametrize(
    ("names", "family"),
    [
        (SLIM, "ImageNet ResNet v1 of TensorFlow-Slim"),
        ((*SLIM, "resnet_v1_101/mean_rgb", "global_step"), "ImageNet ResNet v1 of TensorFlow-Slim"),
        (XCEPTION, "Xception of TensorFlow's own DeepLab"),
        (("vgg_16/conv1/conv1_1/weights", "vgg_16/fc8/biases"), "VGG of TensorFlow-Slim"),
        (("MobilenetV2/Conv/weights", "MobilenetV2/Conv/BatchNorm/beta"), "MobileNet"),
    ],
)
@pytest.mark.parametrize("version", ["V1", "V2"])
def test_another_network_is_told_what_it_looks_like(
    save: Save, names: tuple[str, ...], family: str, version: str
) -> None:
    variables: Arrays = {name: np.ones((1, 1, 2, 2), "f4") for name in names}
    path = save(variables)
    if version == "V1":
        with path.open("wb") as file:
            write_v1(variables, file)
    with pytest.raises(MismatchError, match=f"looks like {re.escape(family)}"):
        native_of(path)


def test_an_unknown_network_is_refused_with_its_first_names(save: Save) -> None:
    with pytest.raises(MismatchError, match=r"none of its 1 layers.*They begin: dense/kernel"):
        native_of(save({"dense/kernel/weights": np.ones((2, 3), "f4")}))


@pytest.mark.parametrize("name", ["none.ckpt", "none/"])
def test_a_checkpoint_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ZooError, match=f"{name.rstrip('/')}: no TensorFlow checkpoint of this"):
        deeplab_zoo.convert_tensorflow(tmp_path / name, tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())

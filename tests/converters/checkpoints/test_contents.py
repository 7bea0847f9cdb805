"""What a checkpoint may hold besides the network, and in which numbers."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deeplab_zoo.converters import convert
from deeplab_zoo.converters.native import Head, to_native
from deeplab_zoo.converters.tensorflow import stored
from deeplab_zoo.proto.checkpoint import open_checkpoint
from deeplab_zoo.proto.errors import MismatchError, UsageError
from deeplab_zoo.proto.tensorflow_pb2 import ObjectGraph

from .variables import as_saved, native_of, variable

Arrays = dict[str, np.ndarray[Any, Any]]
Save = Callable[..., Path]


def test_slots_counters_and_accumulators_are_dropped_by_named_rules(
    tiny: Arrays, save_checkpoint: Save
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
    native = native_of(save_checkpoint(tiny | dict.fromkeys(extra, one)))
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
    tiny: Arrays, save_checkpoint: Save
) -> None:
    slot = f"net/0/kernel/.OPTIMIZER_SLOT/sgd/momentum{END}"
    keys = {f"net/{index}/kernel{END}": name for index, name in enumerate(tiny)}
    variables: Arrays = {key: tiny[name] for key, name in keys.items()}
    variables |= {slot: tiny["conv1/weights"], f"save_counter{END}": np.array(3, "i8")}
    named = keys | {slot: "SGD/conv1/weights/momentum", f"save_counter{END}": ""}
    variables["_CHECKPOINTABLE_OBJECT_GRAPH"] = object_graph(named)
    native = native_of(save_checkpoint(variables))
    assert native.conversion.sources["backbone.conv1.weight"] == ("conv1/weights",)
    assert dict(native.conversion.dropped) == {
        slot.removesuffix(END): "an optimizer's slot",
        "save_counter": "a step counter",
        "_CHECKPOINTABLE_OBJECT_GRAPH": "bookkeeping of object-based checkpoints",
    }


def test_a_key_that_is_a_suffix_alone_costs_the_others_nothing(save_checkpoint: Save) -> None:
    one = np.ones(1, "f4")
    graph = object_graph({f"a{END}": "a"})
    path = save_checkpoint({END: one, f"b{END}": one, "_CHECKPOINTABLE_OBJECT_GRAPH": graph})
    assert {"", "b"} < set(stored(open_checkpoint(path)))


def test_names_that_variables_share_give_way_to_the_keys(
    tiny: Arrays, save_checkpoint: Save
) -> None:
    variables: Arrays = {f"{name}{END}": data for name, data in tiny.items()}
    variables |= {f"global_step{END}": np.array(3), f"step{END}": np.array(4)}
    named = dict.fromkeys(variables, "shared") | {f"step{END}": "global_step"}
    variables["_CHECKPOINTABLE_OBJECT_GRAPH"] = object_graph(named)
    native = native_of(save_checkpoint(variables))
    assert len(native.weights.state) == len(tiny)
    assert {"global_step", "step"} <= set(dict(native.conversion.dropped))


def test_an_object_based_optimizers_slots_are_dropped(tiny: Arrays, save_checkpoint: Save) -> None:
    variables = {f"model/{name}{END}": data for name, data in tiny.items()}
    slot = f"model/conv1/weights/.OPTIMIZER_SLOT/optimizer/momentum{END}"
    counters = {f"{name}{END}": np.array(3, "i8") for name in ("step", "save_counter")}
    native = native_of(save_checkpoint(variables | counters | {slot: tiny["conv1/weights"]}))
    assert dict(native.conversion.dropped) == {
        "model/conv1/weights/.OPTIMIZER_SLOT/optimizer/momentum": "an optimizer's slot",
        "step": "a step counter",
        "save_counter": "a step counter",
    }


@pytest.mark.parametrize("scope", ["model/", "tower_0/net/", ""])
def test_a_scope_before_every_name_is_taken_off(
    tiny: Arrays, save_checkpoint: Save, scope: str
) -> None:
    native = native_of(save_checkpoint({f"{scope}{name}": data for name, data in tiny.items()}))
    assert native.conversion.sources["backbone.conv1.weight"] == (f"{scope}conv1/weights",)
    for name, data in native.weights.state.items():
        expected = tiny[variable(name, (1, 2, 4, 3))]
        assert np.array_equal(as_saved(data), expected), name


def test_patterns_select_variables_and_one_that_selects_none_is_refused(
    tiny: Arrays, save_checkpoint: Save
) -> None:
    path = save_checkpoint(tiny | {"net2/odd": np.ones(3, "i4")})
    native = native_of(path, "conv1/*", "bn*", "res?*", "fc1_voc12_c?/*")
    assert dict(native.conversion.dropped) == {"net2/odd": "not selected by --variables"}
    with pytest.raises(UsageError, match=r"--variables 'net3/\*' selects none of \d+ variables"):
        native_of(path, "*", "net3/*")


@pytest.mark.parametrize(
    ("dtype", "change"),
    [("float16", "widened"), ("float64", "rounded"), ("bfloat16", "widened")],
)
def test_other_floats_become_float32_with_a_note(
    tiny: Arrays, save_checkpoint: Save, monkeypatch: pytest.MonkeyPatch, dtype: str, change: str
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
    archive = convert.read_tensorflow(save_checkpoint(tiny))
    tensor = next(one for one in archive.tensors if one.sources == (name,))
    assert tensor.source_dtype == dtype
    assert tensor.transform == f"{dtype} {change} to float32, axes to out, in, height, width"
    assert np.array_equal(as_saved(tensor.data), expected)
    assert tensor.data.dtype == np.float32
    assert to_native(archive).notes == (f"{dtype} {change} to float32: res2a_branch1/weight",)


def test_values_that_are_not_finite_are_counted(tiny: Arrays, save_checkpoint: Save) -> None:
    tiny["bn_conv1/gamma"][1:3] = np.nan, np.inf
    assert native_of(save_checkpoint(tiny)).notes == (
        "bn_conv1/gamma: 2 of 4 values are NaN or infinite",
    )  # fmt: skip


def test_numbers_without_a_fraction_are_no_weights(tiny: Arrays, save_checkpoint: Save) -> None:
    tiny["bn_conv1/gamma"] = np.arange(4, dtype="i4")
    with pytest.raises(MismatchError, match="bn_conv1/gamma: int32, expected numbers with a frac"):
        native_of(save_checkpoint(tiny))


def test_missing_variables_are_one_error_with_all(tiny: Arrays, save_checkpoint: Save) -> None:
    del tiny["res3b_branch2b/weights"], tiny["bn5a_branch1/moving_variance"]
    with pytest.raises(MismatchError, match="2 tensors do not fit the model") as caught:
        native_of(save_checkpoint(tiny))
    assert "layer2.1.conv2.weight: missing" in str(caught.value)
    assert "layer4.0.downsample.1.running_var: missing" in str(caught.value)


def test_a_checkpoint_without_a_head_needs_a_fresh_one(tiny: Arrays, save_checkpoint: Save) -> None:
    path = save_checkpoint(
        {name: data for name, data in tiny.items() if not name.startswith("fc1")}
    )
    with pytest.raises(MismatchError, match=r"no classifier.*--reset-head"):
        native_of(path)
    native = to_native(convert.read_tensorflow(path), Head(7, reset=True))
    assert native.weights.config.classes == 7
    assert len(native.fresh) == 8


def test_one_of_two_networks_is_chosen_whatever_its_scope(
    tiny: Arrays, save_checkpoint: Save
) -> None:
    both: Arrays = {f"a/{name}": data for name, data in tiny.items()}
    both |= {f"longer/{name}": 2 * data for name, data in tiny.items()}
    native = native_of(save_checkpoint(both), "longer/*")
    assert np.array_equal(native.weights.state["backbone.bn1.weight"], 2 * tiny["bn_conv1/gamma"])


def test_a_double_beyond_float32_is_noted_and_no_warning(
    tiny: Arrays, save_checkpoint: Save
) -> None:
    huge = tiny | {"bn_conv1/gamma": np.full_like(tiny["bn_conv1/gamma"], 1e300, "f8")}
    notes = native_of(save_checkpoint(huge)).notes
    assert any(note.startswith("bn_conv1/gamma: ") and "infinite" in note for note in notes)

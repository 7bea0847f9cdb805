"""Checkpoints of jfzhang95 and rloss: names, second names, what is damaged."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import deeplab_zoo
from deeplab_zoo.converters import hdf5
from deeplab_zoo.converters.deeplab_v3 import DeepLabV3Config, parameters
from deeplab_zoo.converters.naming.deeplab_v3 import NAMING
from deeplab_zoo.proto.errors import MismatchError, UsageError

State = dict[str, Tensor]
Make = Callable[[DeepLabV3Config], State]

BACKBONES = {
    "resnet": "resnet101", "mobilenet": "mobilenet_v2", "xception": "xception65", "drn": "drn_d_54",
}  # fmt: skip
MOBILENET = DeepLabV3Config(4, backbone="mobilenet_v2", width=0.0625)


@pytest.fixture
def mobilenet(program_state: Make) -> State:
    return program_state(MOBILENET)


def full(backbone: str) -> DeepLabV3Config:
    if backbone == "drn_d_54":
        return DeepLabV3Config(backbone=backbone, output_stride=8, rates=(12, 24, 36))
    return DeepLabV3Config(backbone=backbone)


@pytest.mark.golden
@pytest.mark.parametrize("theirs", BACKBONES)
def test_names_and_shapes_are_those_of_the_original(shared: Path, theirs: str) -> None:
    facts = shared / "facts" / "state-dicts" / f"rloss_deeplabv3plus_{theirs}.json"
    known = json.loads(facts.read_text())
    found: dict[str, list[int]] = {}
    total = 0
    for name, shape in parameters(full(BACKBONES[theirs])).items():
        module, _, parameter = name.rpartition(".")
        spelled = f"{NAMING.from_canonical('jfzhang95', module, {})}.{parameter}"
        assert NAMING.to_canonical("jfzhang95", spelled.rpartition(".")[0])[0] == module  # type: ignore[index]
        found[spelled] = list(shape)
        if alias := NAMING.alias_of("jfzhang95", spelled):
            assert alias in known["aliases"][spelled]
            found[alias] = list(shape)
        total += int(np.prod(shape)) if "running" not in parameter else 0
    counted = set(known["int64"])
    assert found == {name: one for name, one in known["entries"].items() if name not in counted}
    assert total == known["parameters"]


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES.values())
def test_a_full_size_state_dict_comes_home_and_goes_back(
    program_state: Make, tmp_path: Path, backbone: str
) -> None:
    state = program_state(full(backbone))
    torch.save({"state_dict": state}, tmp_path / "x.pth.tar")
    native = deeplab_zoo.convert_legacy(tmp_path / "x.pth.tar", tmp_path / "x.safetensors")
    assert native is not None
    assert native.weights.config == full(backbone)
    deeplab_zoo.export(tmp_path / "x.safetensors", tmp_path / "back.pth", layout="jfzhang95")
    back = torch.load(tmp_path / "back.pth")
    assert set(back) == set(state)
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_second_names_and_counters_are_left_behind_by_a_rule(
    mobilenet: State, tmp_path: Path
) -> None:
    counters = {
        name.replace("running_mean", "num_batches_tracked"): torch.tensor(9)
        for name in mobilenet
        if name.endswith("running_mean")
    }
    torch.save({"state_dict": mobilenet | counters}, tmp_path / "x.pth.tar")
    native = deeplab_zoo.convert_legacy(tmp_path / "x.pth.tar", tmp_path / "x.h5")
    assert native is not None
    reasons = Counter(reason for _, reason in native.conversion.dropped)
    assert reasons == {
        "a second name of a tensor, and equal to it": 255,
        "a training counter, without effect on a frozen statistic": 51 + 51 + 9,
    }
    dropped = {name for name, reason in native.conversion.dropped if "second" in reason}
    assert {name.split(".")[1] for name in dropped} == {"low_level_features", "high_level_features"}
    kept = {source for one in hdf5.read(tmp_path / "x.h5").tensors for source in one.sources}
    assert kept == set(mobilenet) - dropped


def test_a_tensor_that_differs_under_its_second_name_is_refused(
    mobilenet: State, tmp_path: Path
) -> None:
    for name in ("low_level_features.1.conv.1.bias", "high_level_features.17.conv.6.weight"):
        mobilenet[f"backbone.{name}"] = mobilenet[f"backbone.{name}"] + 1
    torch.save(mobilenet, tmp_path / "x.pth")
    with pytest.raises(MismatchError) as caught:
        deeplab_zoo.convert_legacy(tmp_path / "x.pth", tmp_path / "y.safetensors")
    message = str(caught.value)
    assert "x.pth: 2 tensors differ under their second names" in message
    assert "low_level_features.1.conv.1.bias: differs from backbone.features.1.conv.1" in message
    assert "high_level_features.17.conv.6.weight" in message
    with pytest.raises(MismatchError, match="2 tensors differ"):
        deeplab_zoo.load(tmp_path / "x.pth", numerics="jfzhang95")


def test_the_two_names_are_one_tensor_in_a_pth(mobilenet: State, tmp_path: Path) -> None:
    torch.save(mobilenet, tmp_path / "x.pth")
    deeplab_zoo.convert_legacy(tmp_path / "x.pth", tmp_path / "x.safetensors")
    deeplab_zoo.export(tmp_path / "x.safetensors", tmp_path / "y.pth", layout="jfzhang95")
    back = torch.load(tmp_path / "y.pth")
    first, second = (
        back[f"backbone.{features}.5.conv.3.weight"]
        for features in ("features", "high_level_features")
    )
    assert first.data_ptr() == second.data_ptr()


def test_a_second_name_without_the_first_has_no_place(mobilenet: State, tmp_path: Path) -> None:
    del mobilenet["backbone.features.1.conv.1.bias"]
    torch.save(mobilenet, tmp_path / "x.pth")
    with pytest.raises(MismatchError, match=r"low_level_features.1.conv.1/bias .* no rule places"):
        deeplab_zoo.convert_legacy(tmp_path / "x.pth", tmp_path / "y.safetensors")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda state: state.pop("decoder.bn1.running_var"), "not those of any net of jfzhang95"),
        (
            lambda state: state.update({"aspp.conv1.weight": torch.ones(3, 3, 1, 1)}),
            r"classifier.pyramid.project.conv.weight: shape \[3, 3, 1, 1\], expected \[16, 80, 1, 1\]",
        ),
        (lambda state: state.update({"other.weight": torch.ones(3)}), "other/weight .* no rule"),
        (
            lambda state: state.update({"backbone.layer1.0.conv1.weight": torch.ones(3)}),
            "not those of any net of jfzhang95",
        ),
    ],
    ids=["missing", "misshapen", "unknown", "of two nets"],
)
def test_a_damaged_state_dict_is_refused(
    mobilenet: State, tmp_path: Path, change: Callable[[State], object], problem: str
) -> None:
    change(mobilenet)
    torch.save(mobilenet, tmp_path / "x.pth")
    with pytest.raises(MismatchError, match=problem):
        deeplab_zoo.convert_legacy(tmp_path / "x.pth", tmp_path / "y.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["x.pth"]


def test_a_number_that_numpy_1_pickled_is_read(mobilenet: State, tmp_path: Path) -> None:
    path = tmp_path / "x.pth.tar"
    kept = {"state_dict": mobilenet, "best_pred": np.float64(0.69), "epoch": 60}
    torch.save(kept, path, _use_new_zipfile_serialization=False)
    written = path.read_bytes()
    assert b"numpy._core.multiarray" in written or np.__version__ < "2"
    path.write_bytes(written.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    native = deeplab_zoo.convert_legacy(path, tmp_path / "y.safetensors")
    assert native is not None
    assert native.weights.config == MOBILENET


def test_an_output_stride_can_be_told(mobilenet: State, tmp_path: Path) -> None:
    torch.save(mobilenet, tmp_path / "x.pth")
    for source, out, stride, rates in (
        ("x.pth", "a.safetensors", 8, (12, 24, 36)),
        ("a.safetensors", "b.safetensors", None, (12, 24, 36)),
        ("b.safetensors", "c.safetensors", 16, (6, 12, 18)),
    ):
        native = deeplab_zoo.convert_legacy(tmp_path / source, tmp_path / out, output_stride=stride)
        assert native is not None
        config = native.weights.config
        assert isinstance(config, DeepLabV3Config)
        assert (config.output_stride, config.rates) == (stride or 8, rates)
    with pytest.raises(UsageError, match="output stride 4, expected 8 or 16"):
        deeplab_zoo.convert_legacy(tmp_path / "x.pth", tmp_path / "z.pth", output_stride=4)

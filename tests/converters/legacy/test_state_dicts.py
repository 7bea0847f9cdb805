"""State dicts of PyTorch: other programs', and ours."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

import deeplab_zoo
from deeplab_zoo.converters import hdf5
from deeplab_zoo.converters.archive import Role
from deeplab_zoo.converters.naming.deeplab_v2 import LAYOUTS
from deeplab_zoo.converters.native import Native
from deeplab_zoo.converters.numerics import PROFILES
from deeplab_zoo.converters.weights import Weights
from deeplab_zoo.proto.errors import MismatchError, UsageError

from .programs import assert_state, in_layout

COUNTER = "a training counter, without effect on a frozen statistic"


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

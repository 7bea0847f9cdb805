"""What only looks like a file of weights is refused, and never executed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import deeplab_zoo
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config
from deeplab_zoo.converters.weights import Weights
from deeplab_zoo.proto.errors import FormatError, MismatchError

from .programs import as_deepdish, in_layout


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

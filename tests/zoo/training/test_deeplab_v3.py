"""What a training makes of a DeepLab v3+: its head, its rates, what is computed again."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import deeplab_zoo
from deeplab_zoo.converters.deeplab_v3 import DeepLabV3Config
from deeplab_zoo.converters.weights import Weights
from deeplab_zoo.proto.errors import MismatchError
from deeplab_zoo.zoo.training.config import TrainConfig
from deeplab_zoo.zoo.training.groups import parameter_groups
from deeplab_zoo.zoo.training.model import demand_statistics, fitted, make_model

CLASSES = ("sky", "road", "car")


@pytest.fixture
def weights(
    program_state: Callable[[DeepLabV3Config], dict[str, Tensor]], tmp_path: Path
) -> Weights:
    """Of a narrow MobileNetV2 for five classes."""
    config = DeepLabV3Config(5, backbone="mobilenet_v2", width=0.0625)
    torch.save({"state_dict": program_state(config)}, tmp_path / "x.pth.tar")
    native = deeplab_zoo.convert_legacy(tmp_path / "x.pth.tar", tmp_path / "x.safetensors")
    assert native is not None
    return native.weights


def test_a_new_head_is_the_scores_alone(weights: Weights) -> None:
    found, told = fitted(weights, TrainConfig(reset_head=True), CLASSES)
    drawn = {name for name in weights.state if weights.state[name] is not found.state[name]}
    assert drawn == {"classifier.score.conv.weight", "classifier.score.conv.bias"}
    assert found.state["classifier.score.conv.weight"].shape == (3, 16, 1, 1)
    assert told.startswith("drew a new head of 3 classes (it had 5)")


def test_pyramid_and_decoder_learn_ten_times_as_fast(weights: Weights) -> None:
    model = make_model(weights, TrainConfig(batch_norm="trained"))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model.named_parameters(), "rloss", 5e-4)
    rates: dict[float, set[str]] = {1: set(), 10: set()}
    for group in groups:
        rates[group["factor"]] |= {names[id(one)] for one in group["params"]}
        assert group["weight_decay"] == 5e-4
    assert {name.split(".")[0] for name in rates[1]} == {"backbone"}
    assert {name.split(".")[1] for name in rates[10]} == {"pyramid", "low", "refine", "score"}
    assert len(rates[1] | rates[10]) == len(names)


@pytest.mark.parametrize("batch_norm", ["frozen", "statistics", "trained"])
def test_what_is_fixed_is_fixed(weights: Weights, batch_norm: str) -> None:
    model = make_model(weights, TrainConfig(batch_norm=batch_norm))
    norms = {name for name, _ in model.named_parameters() if ".norm." in name}
    trained = {name for name, one in model.named_parameters() if one.requires_grad}
    assert bool(norms & trained) == (batch_norm == "trained")
    assert model.get_submodule("backbone.block2.project.norm").training == (batch_norm != "frozen")
    model = make_model(weights, TrainConfig(batch_norm=batch_norm, train_last=True))
    trained = {name for name, one in model.named_parameters() if one.requires_grad}
    assert trained == {"classifier.score.conv.weight", "classifier.score.conv.bias"}


def test_statistics_of_one_pooled_value_are_refused(weights: Weights) -> None:
    for way in (
        TrainConfig(batch_norm="frozen"),
        TrainConfig(batch_norm="trained", batch_size=2),
        TrainConfig(batch_norm="trained", train_last=True),
    ):
        demand_statistics(weights, way)
        assert make_model(weights, way)(torch.zeros(way.batch_size, 3, 33, 49)).isfinite().all()
    demand_statistics(weights, TrainConfig(batch_norm="sync"), world=2)
    for batch_norm in ("statistics", "trained", "sync"):
        with pytest.raises(MismatchError, match=f"batch_norm {batch_norm}.*--batch-size 2"):
            demand_statistics(weights, TrainConfig(batch_norm=batch_norm))


def test_computing_blocks_again_changes_no_gradient(weights: Weights) -> None:
    image = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 33, 49), np.float32))
    gradients = []
    for again in (False, True):
        model = make_model(
            weights, TrainConfig(batch_norm="frozen", activation_checkpointing=again)
        )
        wrapped = [part for part in model.backbone.children() if "forward" in vars(part)]
        assert len(wrapped) == (18 if again else 0)
        torch.manual_seed(1)
        model(image).square().mean().backward()
        gradients.append([one.grad for one in model.parameters() if one.requires_grad])
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))

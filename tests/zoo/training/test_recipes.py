"""What each recipe comes to, as its ancestor's program has it."""

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from torch import nn

from deeplab_zoo.cli.finetune import finetune
from deeplab_zoo.converters.numerics import CAFFE_V2
from deeplab_zoo.zoo.data.augment import STEPS
from deeplab_zoo.zoo.models.deeplab_v2 import DeepLabV2
from deeplab_zoo.zoo.training.config import TrainConfig, from_mapping, recipe, recipe_names
from deeplab_zoo.zoo.training.data import way
from deeplab_zoo.zoo.training.groups import parameter_groups
from deeplab_zoo.zoo.training.loop import schedule
from deeplab_zoo.zoo.training.model import train_mode
from deeplab_zoo.zoo.training.objective import make_objective
from deeplab_zoo.zoo.training.schedule import rate
from deeplab_zoo.zoo.training.solver import CaffeSGD, make_solver

CAFFE = {"backbone": (1, 1), "head": (10, 1), "head_bias": (20, 0)}
POLY = {0: 2.5e-4, 10000: 2.5e-4 * 0.5**0.9, 19999: 2.5e-4 * (1 / 20000) ** 0.9}
DREW = {0: 2.5e-4, 10000: 2.5e-4 * (10001 / 20001) ** 0.9, 20000: 2.5e-4 * (1 / 20001) ** 0.9}

# Per group: the factor of the base rate, and of the weight decay; the decay; the rate at three
# updates, by the ancestor's formula; the augmentation; the loss's terms;
# the optimizer; samples to an update; scales.
EXPECTED: dict[str, dict[str, Any]] = {
    "deeplab-v2": {
        "groups": CAFFE, "decay": 5e-4, "rates": POLY, "scales": STEPS, "crop": 321,
        "terms": ["ce"], "solver": "CaffeSGD", "samples": 10, "msc": True, "targets": "interp",
    },
    "isht7": {
        "groups": {"backbone": (1, 1), "head": (10, 1), "head_bias": (10, 1)}, "decay": 5e-4,
        "rates": POLY, "scale": (0.5, 1.3), "crop": 0, "squash": 321, "terms": ["ce"],
        "solver": "SGD", "samples": 10, "msc": True, "targets": "nearest",
    },
    "drsleep": {
        "groups": CAFFE, "decay": 5e-4, "rates": DREW, "scale": (0.5, 1.5), "crop": 321,
        "terms": ["ce"], "solver": "SGD", "samples": 10, "msc": False, "targets": "nearest",
    },
    "drsleep-msc": {
        "groups": CAFFE, "decay": 5e-4, "rates": DREW, "scale": (0.5, 1.5), "crop": 321,
        "terms": ["ce"], "solver": "SGD", "samples": 10, "msc": True, "targets": "nearest",
    },
    "drsleep-fine-tune": {
        "groups": {"head": (1, 1), "head_bias": (1, 1)}, "decay": 0,
        "rates": {0: 1e-4, 10000: 1e-4, 19999: 1e-4}, "scale": (0.5, 1.5), "crop": 321,
        "terms": ["ce"], "solver": "Adam", "samples": 4, "msc": False, "targets": "nearest",
    },
    "jaccard-segment": {
        "groups": {"backbone": (0.1, 1), "head": (1, 1), "head_bias": (1, 1)}, "decay": 0,
        "rates": {0: 5e-4, 10000: 5e-4, 19999: 5e-4}, "scale": (0.5, 1.5), "crop": 321,
        "terms": ["lovasz-hinge"], "solver": "SGD", "samples": 10, "msc": False,
        "targets": "nearest", "binary": True,
    },
    "jaccard-segment-proximal": {
        "groups": {"backbone": (0.1, 1), "head": (1, 1), "head_bias": (1, 1)}, "decay": 0,
        "rates": {0: 1, 10000: 1, 19999: 1}, "scale": (0.5, 1.5), "crop": 321,
        "terms": ["proximal"], "solver": "SGD", "samples": 10, "msc": False,
        "targets": "nearest", "binary": True,
    },
    "rloss-partial": {
        "groups": CAFFE, "decay": 5e-4, "rates": POLY, "scales": STEPS, "crop": 321,
        "terms": ["partial-ce"], "solver": "CaffeSGD", "samples": 10, "msc": False,
        "targets": "interp",
    },
    "rloss-densecrf": {
        "groups": CAFFE, "decay": 5e-4, "rates": {0: 1.5e-4, 5000: 1.5e-4 * 0.5**0.9, 9999: 1.5e-4 * 1e-4**0.9},
        "scales": STEPS, "crop": 321, "terms": ["partial-ce", "densecrf"], "solver": "CaffeSGD",
        "samples": 10, "msc": False, "targets": "interp",
    },
    "rloss-densecrf-half": {
        "groups": CAFFE, "decay": 5e-4, "rates": {0: 1.5e-4, 5000: 1.5e-4 * 0.5**0.9, 9999: 1.5e-4 * 1e-4**0.9},
        "scales": STEPS, "crop": 321, "terms": ["partial-ce", "densecrf"], "solver": "CaffeSGD",
        "samples": 10, "msc": False, "targets": "interp",
    },
    "rloss-pytorch-partial": {
        "groups": {"backbone": (1, 1), "norm": (1, 1), "head": (10, 1), "head_bias": (10, 1)},
        "decay": 5e-4, "rates": {0: 7e-3, 26455: 7e-3 * 0.5**0.9, 52909: 7e-3 * (1 / 52910) ** 0.9},
        "scale": (0.5, 2.0), "base": 513, "crop": 513, "terms": ["partial-ce"],
        "solver": "SGD", "samples": 12, "msc": False, "targets": "full",
    },
    "rloss-pytorch": {
        "groups": {"backbone": (1, 1), "norm": (1, 1), "head": (10, 1), "head_bias": (10, 1)},
        "decay": 5e-4, "rates": {0: 7e-3, 26455: 7e-3 * 0.5**0.9, 52909: 7e-3 * (1 / 52910) ** 0.9},
        "scale": (0.5, 2.0), "base": 513, "crop": 513, "terms": ["partial-ce", "densecrf"],
        "solver": "SGD", "samples": 12, "msc": False, "targets": "full",
    },
    "lovasz-softmax": {
        "groups": CAFFE, "decay": 5e-4, "rates": DREW, "scale": (0.5, 1.5), "crop": 321,
        "terms": ["lovasz"], "solver": "SGD", "samples": 10, "msc": False, "targets": "nearest",
    },
    "kazuto1011": {
        "groups": {"backbone": (1, 1), "head": (10, 1), "head_bias": (20, 0)}, "decay": 5e-4,
        # The rate moves every ten updates: that of 19999 is that of 19990.
        "rates": {0: 2.5e-4, 10005: 2.5e-4 * 0.5**0.9, 19999: 2.5e-4 * (10 / 20000) ** 0.9}, "scales": STEPS, "crop": 321,
        "terms": ["ce"], "solver": "SGD", "samples": 10, "msc": True, "targets": "nearest",
    },
}  # fmt: skip


def test_every_recipe_is_judged() -> None:
    assert recipe_names() == sorted(EXPECTED)


@pytest.fixture(scope="module")
def net() -> DeepLabV2:
    from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config

    return DeepLabV2(DeepLabV2Config(blocks=(1, 1, 1, 1), stem=4, widths=(2, 3, 4, 5)))


def frozen_as_told(net: DeepLabV2, config: TrainConfig) -> nn.Module:
    for name, parameter in net.named_parameters():
        norm = ".bn" in name or ".downsample.1" in name
        trained = name.startswith("classifier.") or not config.train_last
        parameter.requires_grad_(trained and (config.batch_norm == "trained" or not norm))
    return train_mode(net, config)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_recipe_comes_to_what_its_ancestor_does(name: str, net: DeepLabV2) -> None:
    expected = dict(EXPECTED[name])
    binary = "person" if expected.pop("binary", False) else ""
    config = from_mapping({**recipe(name), "binary": binary})

    groups = parameter_groups(
        frozen_as_told(net, config).named_parameters(), config.groups, config.weight_decay
    )
    found = {group["name"]: (group["factor"], group["weight_decay"]) for group in groups}
    assert found == {
        kind: (factor, pytest.approx(decay * expected["decay"]))
        for kind, (factor, decay) in expected["groups"].items()
    }
    for step, value in expected["rates"].items():
        # Near the end 1 - step / steps has three digits left in float32, in Caffe too.
        assert rate(schedule(config), step) == pytest.approx(value, rel=2e-3)
    solver = make_solver(config.solver, groups, config.lr, config.momentum)
    assert type(solver).__name__ == expected["solver"]
    if isinstance(solver, CaffeSGD) or expected["solver"] == "SGD":
        assert solver.defaults["momentum"] == 0.9

    augmentation = way(config)
    for key in ("scale", "scales", "base", "squash", "crop"):
        assert getattr(augmentation, key) == expected.get(
            key, {"scale": (1, 1), "scales": (), "base": 0, "squash": 0}.get(key)
        )
    assert augmentation.mirror
    objective = make_objective(
        config, CAFFE_V2, 2 if binary else 21, channel=15 if binary else None
    )
    assert objective.names == expected["terms"]
    assert objective.targets == expected["targets"]
    assert config.batch_size * config.accumulate == expected["samples"]
    assert config.msc is expected["msc"]


def test_the_densecrf_terms_have_their_ancestors_reach() -> None:
    reach = {}
    for name in ("rloss-densecrf", "rloss-densecrf-half", "rloss-pytorch"):
        loss = make_objective(from_mapping(recipe(name)), CAFFE_V2, 21).regularizer
        assert loss is not None
        reach[name] = loss.weight, loss.sigma_rgb, loss.sigma_xy, loss.scale_factor
        assert loss.normalisation == "none"
    assert reach == {
        "rloss-densecrf": (1e-8, 13, 80, 1),
        "rloss-densecrf-half": (2e-9, 15, 100, 0.5),
        "rloss-pytorch": (2e-9, 15, 100, 0.5),
    }


def test_the_densecrf_term_is_normalised_by_pixel_where_the_config_says_so() -> None:
    config = TrainConfig(regularizer="densecrf", crf_normalisation="pixel", crf_weight=1e-5)
    loss = make_objective(config, CAFFE_V2, 21).regularizer
    assert loss is not None
    assert (loss.normalisation, loss.weight) == ("pixel", 1e-5)


def test_stages_differ_in_nothing_but_the_loss_and_the_schedule() -> None:
    def differing(one: str, other: str) -> set[str]:
        first, second = recipe(one), recipe(other)
        return {key for key in first | second if first.get(key) != second.get(key)}

    crf = {"regularizer", "crf_weight", "crf_sigma_rgb", "crf_sigma_xy", "crf_scale"}
    assert differing("rloss-pytorch-partial", "rloss-pytorch") == crf
    assert differing("rloss-partial", "rloss-densecrf") == {*crf, "lr", "steps"}
    assert differing("rloss-densecrf", "rloss-densecrf-half") == crf - {"regularizer"}


def test_recipes_name_architectures_that_there_are() -> None:
    named = {name: from_mapping(recipe(name)).arch for name in recipe_names()}
    assert {name for name, arch in named.items() if arch == "deeplabv2-resnet101"} == {
        "rloss-partial", "rloss-densecrf", "rloss-densecrf-half",
    }  # fmt: skip
    assert {name for name, arch in named.items() if arch == "deeplabv3plus-mobilenet"} == {
        "rloss-pytorch", "rloss-pytorch-partial",
    }  # fmt: skip


@pytest.mark.golden
@pytest.mark.parametrize("name", EXPECTED)
def test_a_recipe_runs_by_one_command_on_a_picture_of_voc(
    name: str, shared: Path, make_weights: Callable[..., Path], tmp_path: Path
) -> None:
    folder = shared / "data" / "voc"
    (tmp_path / "train.txt").write_text("2007_000129.jpg 2007_000129.png\n")
    words = ["--images", str(folder), "--classes", "voc", "--recipe", name]
    if EXPECTED[name].get("binary"):
        words += ["--binary", "person"]
    # The recipe, cut down to a second, on a small net.
    words += ["--arch="]
    words += ["--crop=65", "--steps=1", "--batch-size=2", "--accumulate=1", "--workers=0",
              "--no-tensorboard", "-o", str(tmp_path / "run")]  # fmt: skip
    given = [str(make_weights(classes=21)), str(tmp_path / "train.txt"), *words]
    found = CliRunner().invoke(finetune, given)
    assert found.exit_code == 0, found.output + repr(found.exception)
    (row,) = csv.DictReader((tmp_path / "run" / "log.csv").read_text().splitlines())
    assert math.isfinite(float(row["loss"]))

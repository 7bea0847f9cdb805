"""What a config takes, refuses and says."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from deeplab_zoo.cli.finetune import finetune
from deeplab_zoo.proto.errors import FormatError, UsageError
from deeplab_zoo.zoo.data.augment import AUGMENTATIONS
from deeplab_zoo.zoo.losses.registry import LOSSES
from deeplab_zoo.zoo.training.config import (
    KEYS,
    TrainConfig,
    differences,
    from_mapping,
    read_yaml,
    recipe,
    refuse_idle,
    to_yaml,
)


def test_unknown_keys_are_refused_with_the_nearest_names_all_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        from_mapping({"momentun": 0.9, "wheels": 4, "lr": "fast", "msc": "yes", "steps": 2.5})
    text = str(caught.value)
    assert "5 keys" in text
    assert "momentun: no key of a config, did you mean 'momentum'?" in text
    assert "wheels: no key of a config, the keys are data, split" in text
    assert "lr: 'fast', expected a number" in text
    assert "msc: 'yes', expected true or false" in text
    assert "steps: 2.5, expected a whole number" in text


def test_a_recipe_of_ones_own_is_named_by_what_is_wrong_in_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("momentun: 0.9\nweight-decay: 1e-4\n")
    found = CliRunner().invoke(finetune, ["w", "d", "--recipe", str(path), "--lr", "1"])
    assert isinstance(found.exception, UsageError)
    assert str(found.exception).startswith(f"{path}: 1 keys are wrong:")


def test_values_that_no_run_can_have_are_refused_all_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        TrainConfig(solver="magic", steps=0, lr=-1, ema=1, sampling="balanced")
    text = str(caught.value)
    assert "5 values" in text
    assert "solver: 'magic', expected one of caffe, sgd, adam, adamw" in text


def test_numbers_and_keys_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(UsageError, match="steps: inf, expected a whole number"):
        from_mapping({"steps": float("inf")})
    with pytest.raises(UsageError) as caught:
        TrainConfig(power=float("nan"), scales=(1.0, 0.0), nesterov=True, sbd="x", labels="y")
    text = str(caught.value)
    assert "4 values" in text
    assert "power: nan, expected finite numbers" in text
    assert "scales: (1.0, 0.0), expected more than 0" in text
    assert "nesterov: with solver caffe and momentum 0.9, expected sgd" in text
    assert "labels: with sbd" in text
    with pytest.raises(UsageError, match=r"scales: \(inf,\), expected finite numbers"):
        TrainConfig(scales=(float("inf"),))
    with pytest.raises(UsageError, match="nesterov: with solver sgd and momentum 0"):
        TrainConfig(nesterov=True, solver="sgd", momentum=0)
    with pytest.raises(UsageError, match=r"(?s)crf_sigma_xy: 0, expected more.*crf_scale: 2, exp"):
        TrainConfig(crf_sigma_xy=0, crf_scale=2)
    with pytest.raises(UsageError, match=r"proximal_lam: -1, expected more than 0"):
        TrainConfig(proximal_lam=-1)


@pytest.mark.parametrize(
    ("keys", "needed"),
    [
        ({"crf_weight": 1e-9}, "--crf-weight: does nothing without --regularizer densecrf"),
        ({"focal_gamma": 1.0}, "--focal-gamma: does nothing without --loss focal"),
        ({"proximal_lam": 1.0}, "--proximal-lam: does nothing without --proximal"),
        ({"per_image": True}, "--per-image: does nothing without --loss lovasz"),
    ],
)
def test_options_of_losses_that_are_not_there_are_refused(
    keys: dict[str, Any], needed: str
) -> None:
    with pytest.raises(UsageError, match=needed):
        refuse_idle(TrainConfig(**keys), keys)
    used = {"crf_weight": {"regularizer": "densecrf"}, "focal_gamma": {"loss": "ce+focal"},
            "proximal_lam": {"proximal": True}, "per_image": {"loss": "ce+lovasz"}}  # fmt: skip
    refuse_idle(TrainConfig(**keys, **used[next(iter(keys))]), keys)


def test_a_recipes_options_may_wait_for_their_loss_but_no_flag() -> None:
    asked = ["w", "d", "--recipe", "rloss-densecrf", "--regularizer", "none", "--crf-weight", "1"]
    found = CliRunner().invoke(finetune, asked)
    assert "1 options have no use:\n  --crf-weight: does" in str(found.exception)


def test_what_is_saved_reads_back_as_it_was() -> None:
    given = TrainConfig(data="x", scales=(1.0, 0.5), lr=1e-3, msc=True, only="12")
    assert from_mapping(yaml.safe_load(to_yaml(given))) == given


def test_yaml_numbers_without_a_point_and_with_dashes_in_keys_are_read() -> None:
    found = from_mapping(yaml.safe_load("weight-decay: 5e-4\nprecision: 32\nscales: [1, 0.5]"))
    assert (found.weight_decay, found.precision, found.scales) == (5e-4, "32", (1.0, 0.5))


def test_files_that_are_no_config_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    with pytest.raises(UsageError, match="no such file"):
        read_yaml(path)
    path.write_text("- a list")
    with pytest.raises(FormatError, match="list, expected keys and values"):
        read_yaml(path)
    path.write_text("a: [")
    with pytest.raises(FormatError, match="cannot be read as YAML"):
        read_yaml(path)


def test_an_unknown_recipe_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match=r"Did you mean 'isht7'\?"):
        recipe("isht")


def test_only_keys_that_change_what_is_computed_hinder_a_resume() -> None:
    one = TrainConfig(lr=1e-3, workers=1, keep=2)
    assert differences(one, TrainConfig(lr=2e-3, workers=5, keep=9)) == ["lr: 0.001, now 0.002"]


def test_every_key_has_help_and_a_heading() -> None:
    for key in fields(TrainConfig):
        assert key.metadata["help"].endswith("."), key.name
        assert key.metadata["group"] in {"Data", "Loss", "Model", "Solver", "Engine", "Output"}
    assert len(KEYS) == len(fields(TrainConfig))


def test_the_help_names_every_loss_and_augmentation() -> None:
    said = KEYS["loss"].metadata["help"].partition("with --binary")
    for name, row in LOSSES.items():
        assert re.search(rf"(?<![\w-]){name}(?![\w-])", said[2 if row.binary else 0]), name
    for name in AUGMENTATIONS:
        assert name in KEYS["augmentation"].metadata["help"]

"""Runs from end to end: what they write, what they train, what they move."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import deeplab_zoo
from deeplab_zoo.converters import weights as weights_file
from deeplab_zoo.zoo.training.config import TrainConfig, from_mapping, read_yaml
from deeplab_zoo.zoo.training.job import finetune

Make = Callable[..., TrainConfig]
Rows = Callable[[Path], list[dict[str, str]]]
Same = Callable[[Path, Path], bool]


def test_a_run_leaves_weights_that_load_its_config_and_its_log(
    weights: Path, config: Make, tmp_path: Path, rows: Rows, same: Same
) -> None:
    given = config(loss="ce+lovasz", msc=True, accumulate=2)
    result = finetune(weights, given, tmp_path / "run")
    model = deeplab_zoo.load(tmp_path / "run" / "model.safetensors")
    assert model.config.scales == (1.0, 0.75, 0.5)
    assert model.predict(np.zeros((41, 57, 3), np.uint8)).shape == (41, 57)
    assert from_mapping(read_yaml(tmp_path / "run" / "config.yaml")) == given
    *told, last = rows(tmp_path / "run")
    assert [int(row["step"]) for row in told] == [1, 2, 3, 4, 5, 6]
    for row in told:
        assert float(row["loss"]) == pytest.approx(float(row["ce"]) + float(row["lovasz"]))
    assert float(last["miou"]) == pytest.approx(result.miou, abs=1e-6)
    assert result.best >= result.miou > 0
    assert not same(weights, tmp_path / "run" / "model.safetensors")


def test_a_person_sees_the_scan_and_the_bar(
    weights: Path, config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[tuple[int, int]] = []
    way = config(steps=2, val_samples=2)
    finetune(weights, way, tmp_path / "run", progress=lambda *now: told.append(now), bar=True)
    assert told == [(one, 6) for one in range(1, 7)] + [(1, 2), (2, 2)]
    shown = capsys.readouterr().err
    assert "step 2: mIoU" in shown
    assert "2/2" in shown
    assert "validated 2 of 2" in shown


def test_training_lowers_the_loss_and_raises_the_miou(
    weights: Path, config: Make, tmp_path: Path, rows: Rows
) -> None:
    way = config(
        loss="ce+lovasz", steps=40, batch_size=4, lr=1e-2, solver="adamw", groups="flat",
        batch_norm="trained", val_start=True, save_every=100,
    )  # fmt: skip
    finetune(weights, way, tmp_path / "run")
    told = rows(tmp_path / "run")
    scores = [float(row["miou"]) for row in told if row["miou"]]
    losses = [float(row["loss"]) for row in told if row["loss"]]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    assert scores[-1] > scores[0] + 0.1


def test_train_last_moves_the_last_layer_only(weights: Path, config: Make, tmp_path: Path) -> None:
    finetune(weights, config(train_last=True, batch_norm="trained", steps=2), tmp_path / "run")
    before = weights_file.read(weights).state
    after = weights_file.read(tmp_path / "run" / "model.safetensors").state
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert moved == {name for name in before if name.startswith("classifier.")}


@pytest.mark.parametrize(
    ("batch_norm", "moving"),
    [("frozen", ()), ("statistics", ("running_mean", "running_var")),
     ("trained", ("running_mean", "running_var", "weight", "bias"))],
)  # fmt: skip
def test_batch_norm_moves_as_told(
    weights: Path, config: Make, tmp_path: Path, batch_norm: str, moving: tuple[str, ...]
) -> None:
    finetune(weights, config(batch_norm=batch_norm, steps=2), tmp_path / "run")
    before = weights_file.read(weights).state
    after = weights_file.read(tmp_path / "run" / "model.safetensors").state
    norm = "backbone.layer3.0.bn2."
    moved = tuple(
        part
        for part in ("running_mean", "running_var", "weight", "bias")
        if not np.array_equal(before[norm + part], after[norm + part])
    )
    assert moved == moving


@pytest.mark.parametrize(
    "way",
    [
        {"binary": "disc", "loss": "lovasz-hinge", "sampling": "balanced"},
        {"binary": "disc", "loss": "jaccard", "only": "disc"},
        {"binary": "disc", "proximal": True, "loss": "lovasz-hinge", "lr": 0.1},
        {"loss": "focal", "class_weights": "balanced", "targets": "full"},
        {"loss": "partial-ce", "regularizer": "densecrf", "crf_weight": 1e-7},
        {"loss": "ce", "targets": "interp", "msc": True, "scales": (1.0, 0.5, 0.75)},
        {"loss": "lovasz", "per_image": True, "augmentation": "rloss"},
        {"schedule": "cosine", "activation_checkpointing": True},
    ],
    ids=lambda way: " ".join(f"{key}={value}" for key, value in way.items()),
)  # fmt: skip
def test_every_kind_of_loss_trains(
    weights: Path, config: Make, tmp_path: Path, way: dict[str, object], rows: Rows
) -> None:
    result = finetune(weights, config(steps=2, val_split="val", **way), tmp_path / "run")
    assert result.step == 2
    assert all(np.isfinite(float(row["loss"])) for row in rows(tmp_path / "run") if row["loss"])


def test_activation_checkpointing_changes_no_bit(
    weights: Path, config: Make, tmp_path: Path, same: Same
) -> None:
    for name, way in (("less", True), ("more", False)):
        finetune(weights, config(steps=2, activation_checkpointing=way), tmp_path / name)
    assert same(tmp_path / "less" / "model.safetensors", tmp_path / "more" / "model.safetensors")


def test_accumulated_batches_are_one_update_of_their_mean(
    weights: Path, config: Make, tmp_path: Path
) -> None:
    # Without void pixels the mean of two batches' means is the mean of both: no crop beyond the
    # picture, and masks without a rim.
    folder = tmp_path / "plain"
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(4):
        pixels = random.integers(0, 256, (49, 65, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        mask = random.integers(0, 4, (49, 65)).astype(np.uint8)
        Image.fromarray(mask).save(folder / "labels" / f"{number}.png")
    way = {"data": str(folder), "classes": "4", "val_split": "", "augmentation": "none", "crop": 0,
           "steps": 2, "sampling": "sequential"}  # fmt: skip
    finetune(weights, config(**way, batch_size=2, accumulate=2), tmp_path / "two")
    finetune(weights, config(**way, batch_size=4, accumulate=1), tmp_path / "one")
    two = weights_file.read(tmp_path / "two" / "model.safetensors").state
    one = weights_file.read(tmp_path / "one" / "model.safetensors").state
    for name, data in one.items():
        np.testing.assert_allclose(two[name], data, rtol=1e-5, atol=1e-6)


def test_one_logit_is_enough_for_one_class(weights: Path, config: Make, tmp_path: Path) -> None:
    way = config(binary="disc", loss="lovasz-hinge", num_classes=1, steps=1)
    result = finetune(weights, way, tmp_path / "run")
    assert result.path is not None
    assert deeplab_zoo.load(result.path).config.classes == 1
    again = config(binary="disc", loss="lovasz-hinge", steps=1)
    assert finetune(result.path, again, tmp_path / "again").step == 1


def test_tensorboard_gets_numbers_and_pictures(weights: Path, config: Make, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    finetune(weights, config(steps=1, tensorboard=True, panels=2), tmp_path / "run")
    (file,) = (tmp_path / "run" / "tensorboard").iterdir()
    told = file.read_bytes()
    for tag in (b"train/loss", b"val/miou", b"val_iou/disc", b"val/shape006", b"val/shape007"):
        assert tag in told
    assert b"val/shape008" not in told


def test_a_deterministic_run_asks_torch_for_it_and_changes_no_value_on_the_cpu(
    weights: Path, config: Make, tmp_path: Path, same: Same
) -> None:
    way = {"steps": 2, "loss": "ce+lovasz", "val_split": ""}
    finetune(weights, config(**way), tmp_path / "free")
    try:
        finetune(weights, config(**way, deterministic=True), tmp_path / "bound")
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"]
    finally:
        torch.use_deterministic_algorithms(False)
    assert same(tmp_path / "free" / "model.safetensors", tmp_path / "bound" / "model.safetensors")

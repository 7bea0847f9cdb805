"""Real pictures: CamVid on the CPU, a narrow net, a small budget."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deeplab_zoo.zoo.training.config import TrainConfig
from deeplab_zoo.zoo.training.job import finetune

pytestmark = pytest.mark.golden


@pytest.mark.parametrize(
    "way",
    [
        pytest.param({"loss": "ce+lovasz", "steps": 50}, marks=pytest.mark.slow),
        {"loss": "ce", "regularizer": "densecrf", "crf_weight": 1e-8, "steps": 15},
    ],
    ids=["ce+lovasz", "densecrf"],
)
def test_on_camvid_the_loss_falls_and_the_miou_rises(
    shared: Path, make_weights: Callable[..., Path], tmp_path: Path, way: dict[str, Any]
) -> None:
    config = TrainConfig(
        data=str(shared / "data" / "camvid"), crop=161, batch_size=6, accumulate=1, lr=1e-2,
        solver="adamw", groups="flat", batch_norm="trained", val_samples=8, val_start=True,
        val_every=0, save_every=100, log_every=1, workers=0, tensorboard=False, **way,
    )  # fmt: skip
    finetune(make_weights(classes=11, stem=8, widths=(8, 12, 16, 16)), config, tmp_path / "run")
    with (tmp_path / "run" / "log.csv").open(newline="") as file:
        told = list(csv.DictReader(file))
    losses = [float(row["loss"]) for row in told if row["loss"]]
    before, after = (float(row["miou"]) for row in told if row["miou"])
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    assert after > before + 0.05
    if "regularizer" in way:
        assert all(float(row["densecrf"]) < 0 for row in told if row["loss"])

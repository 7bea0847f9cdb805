"""What a run starts from: weights of a named architecture, or drawn ones; on which masks."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from click.testing import CliRunner

from deeplab_zoo.cli.finetune import finetune as command
from deeplab_zoo.converters import weights as weights_file
from deeplab_zoo.converters.architectures import ARCHITECTURES, Architecture
from deeplab_zoo.proto.errors import MismatchError, UsageError
from deeplab_zoo.zoo.data.legend import find_legend
from deeplab_zoo.zoo.data.scribbles import scribble_masks
from deeplab_zoo.zoo.training.config import TrainConfig
from deeplab_zoo.zoo.training.data import opened
from deeplab_zoo.zoo.training.job import finetune

Make = Callable[..., TrainConfig]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the table a net that takes a second."""
    sizes = {"blocks": [1, 1, 1, 1], "stem": 6, "widths": [4, 5, 6, 7]}
    row = Architecture("deeplab_v2", sizes, "torch-halfpixel")
    monkeypatch.setitem(cast(dict[str, Architecture], ARCHITECTURES), "tiny", row)


def test_weights_of_another_net_than_the_one_named_are_refused(
    weights: Path, config: Make, tmp_path: Path
) -> None:
    with pytest.raises(MismatchError, match="another architecture than deeplabv2-resnet101"):
        finetune(weights, config(arch="deeplabv2-resnet101"), tmp_path / "run")
    assert not list((tmp_path / "run").glob("*"))


@pytest.mark.usefixtures("tiny")
def test_weights_of_the_net_named_are_trained(weights: Path, config: Make, tmp_path: Path) -> None:
    assert finetune(weights, config(arch="tiny", steps=1), tmp_path / "run").path


@pytest.mark.usefixtures("tiny")
def test_scratch_draws_a_net_that_learns(config: Make, tmp_path: Path) -> None:
    way = config(
        arch="tiny", reset_head=True, batch_norm="trained", solver="adamw", groups="flat", lr=1e-2,
        steps=30, batch_size=4, val_start=True, save_every=100,
    )  # fmt: skip
    said: list[str] = []
    result = finetune("scratch", way, tmp_path / "run", show=said.append)
    before = next(float(line.rpartition(" ")[2]) for line in said if "mIoU" in line)
    assert result.miou > before + 0.1
    found = weights_file.read(tmp_path / "run" / "model.safetensors")
    assert (found.numerics.name, dict(found.origin.files)) == ("torch-halfpixel", {})
    assert found.config.classes == 4
    assert all(np.isfinite(one).all() for one in found.state.values())


@pytest.mark.usefixtures("tiny")
def test_scratch_needs_a_net_and_statistics_that_move(config: Make, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"of which net\? Name one of .*, tiny \(--arch"):
        finetune("scratch", config(), tmp_path / "a")
    with pytest.raises(UsageError, match="statistics that nobody took"):
        finetune("scratch", config(arch="tiny"), tmp_path / "b")


def test_the_command_line_lists_the_architectures() -> None:
    shown = "".join(CliRunner().invoke(command, ["--help"]).output.split())  # Lines end anywhere.
    assert f"of:{','.join(ARCHITECTURES)}." in shown
    found = CliRunner().invoke(command, ["scratch", "x", "--arch", "resnet"])
    assert isinstance(found.exception, UsageError)
    assert f"arch: 'resnet', expected one of {', '.join(ARCHITECTURES)}" in str(found.exception)


def test_scribbles_are_trained_on_and_full_masks_judged_by(
    weights: Path, shapes: Path, config: Make, tmp_path: Path
) -> None:
    legend = find_legend(["background", "disc", "square", "stripe"])
    list(scribble_masks(shapes / "labels", tmp_path / "scribbles", legend))
    way = config(
        images="images", labels=str(tmp_path / "scribbles"), val_labels="labels", steps=2,
        loss="partial-ce", targets="full", regularizer="densecrf", crf_weight=1e-5,
        crf_normalisation="pixel",
    )  # fmt: skip
    train, val = opened(way)
    assert {one.label.parent.name for one in train.samples if one.label} == {"scribbles"}
    assert val is not None
    assert {one.label.parent.name for one in val.samples if one.label} == {"labels"}
    assert finetune(weights, way, tmp_path / "run").miou > 0

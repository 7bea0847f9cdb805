"""What a run refuses before it trains, and says why."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import deeplab_zoo
from deeplab_zoo.proto.errors import MismatchError, UsageError, ZooError
from deeplab_zoo.zoo.training.config import TrainConfig
from deeplab_zoo.zoo.training.job import finetune

Make = Callable[..., TrainConfig]


def test_another_number_of_classes_is_refused_unless_the_head_is_reset(
    weights: Path, config: Make, tmp_path: Path, shapes: Path
) -> None:
    five = tmp_path / "five.txt"
    five.write_text("a\nb\nc\nd\ne\n")
    way = {"classes": str(five), "steps": 1}
    with pytest.raises(MismatchError, match=r"a head of 4 classes, the dataset has 5.*reset-head"):
        finetune(weights, config(**way), tmp_path / "refused")
    said: list[str] = []
    result = finetune(weights, config(**way, reset_head=True), tmp_path / "reset", show=said.append)
    assert result.path is not None
    assert deeplab_zoo.load(result.path).config.classes == 5
    assert any("drew a new head of 5 classes" in line for line in said)
    assert shapes.is_dir()


@pytest.mark.parametrize(
    "way", [{"classes": "5"}, {"class_weights": "1,2"}, {"only": "disk"}, {"without": "7"}]
)
def test_what_the_classes_forbid_is_refused_before_the_scan(
    weights: Path, config: Make, tmp_path: Path, way: dict[str, object]
) -> None:
    scanned: list[tuple[int, int]] = []
    with pytest.raises(ZooError, match="class"):
        finetune(
            weights, config(**way), tmp_path / "run", progress=lambda *now: scanned.append(now)
        )
    assert scanned == []


def test_bad_samples_are_named_or_left_out_and_counted(
    weights: Path, config: Make, tmp_path: Path, shapes: Path
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(shapes, folder)
    (folder / "images" / "shape002.png").write_bytes(b"not a picture")
    (folder / "labels" / "shape004.png").unlink()
    way = config(data=str(folder), steps=1)
    with pytest.raises(ZooError, match=r"(?s)2 of 6 samples.*shape002.*shape004"):
        finetune(weights, way, tmp_path / "refused")
    said: list[str] = []
    finetune(
        weights,
        config(data=str(folder), steps=1, skip_bad=True),
        tmp_path / "run",
        show=said.append,
    )
    assert any("left out 2 bad samples" in line for line in said)


def test_one_list_for_both_is_refused(weights: Path, config: Make, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"one list of samples.*--val-split ''"):
        finetune(weights, config(val_split="train"), tmp_path / "run")


@pytest.mark.parametrize(
    ("way", "complaint"),
    [
        ({"num_classes": 7}, "num_classes: 7, the dataset has 4 classes"),
        ({"num_classes": 3, "binary": "disc"}, r"the dataset has 4 classes \(1 will do"),
        ({"device": "tpu"}, "expected auto, cpu or cuda"),
        ({"precision": "fp16", "device": "cpu"}, "on the CPU expected 32 or bf16"),
        ({"data": ""}, "no folder or list to train on"),
        ({"loss": "lovas", "data": "none"}, "loss: 'lovas', expected one of ce"),
        ({"loss": "hinge", "data": "none"}, "go with --binary CLASS"),
        ({"augmentation": "cafe", "data": "none"}, "augmentation 'cafe' is unknown"),
        ({"binary": "disk"}, "Did you mean 'disc'"),
        (
            {
                "batch_norm": "sync",
                "devices": 2,
                "device": "cpu",
                "strategy": "fsdp",
                "compile": True,
                "precision": "fp16",
            },
            r"(?s)GPUs only.*on the CPU expected.*with strategy fsdp.*does not go with strategy fsdp",
        ),
    ],
    ids=lambda way: str(way),
)
def test_what_cannot_be_is_refused_before_training(
    weights: Path, config: Make, tmp_path: Path, way: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ZooError, match=complaint):
        finetune(weights, config(**way), tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []  # So that the next try is not refused.


def test_processes_that_torchrun_started_for_nothing_are_refused(
    weights: Path, config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UsageError, match="2 x 1, but torchrun started 4 processes"):
        finetune(weights, config(devices=2, device="cpu"), tmp_path / "run")


def test_more_devices_than_there_are_are_refused(
    weights: Path, config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    with pytest.raises(UsageError, match="devices: 4, this machine has 3"):
        finetune(weights, config(devices=4), tmp_path / "run")

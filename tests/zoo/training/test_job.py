"""Runs from end to end: what they write, how they go on, what they refuse."""

import csv
import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import deeplab_zoo
from deeplab_zoo.converters import weights as weights_file
from deeplab_zoo.proto.errors import MismatchError, StorageError, UsageError, ZooError
from deeplab_zoo.zoo.training import checkpoints, engine, job
from deeplab_zoo.zoo.training.config import TrainConfig, from_mapping, read_yaml
from deeplab_zoo.zoo.training.job import finetune

Make = Callable[..., TrainConfig]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def same(one: Path, other: Path) -> bool:
    first, second = weights_file.read(one).state, weights_file.read(other).state
    return all(np.array_equal(first[name], second[name]) for name in first)


def test_a_run_leaves_weights_that_load_its_config_and_its_log(
    weights: Path, config: Make, tmp_path: Path
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
    weights: Path, config: Make, tmp_path: Path
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


@pytest.mark.parametrize(
    "way",
    [
        {"solver": "caffe"},
        {"solver": "sgd", "nesterov": True, "ema": 0.9, "clip": 1.0},
        {"solver": "adamw", "groups": "flat", "batch_norm": "trained"},
    ],
    ids=["caffe", "sgd, running mean", "adamw, trained norms"],
)
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(
    weights: Path, config: Make, tmp_path: Path, way: dict[str, object]
) -> None:
    whole = config(**way)
    finetune(weights, whole, tmp_path / "whole")
    for suffix in ("pt", "safetensors"):
        other = tmp_path / "cut"
        other.mkdir(exist_ok=True)
        source = tmp_path / "whole" / f"step-00000002.{suffix}"
        (other / source.name).write_bytes(source.read_bytes())
    finetune(weights, whole, tmp_path / "cut", resume="auto")
    assert same(tmp_path / "whole" / "model.safetensors", tmp_path / "cut" / "model.safetensors")
    assert [row["step"] for row in rows(tmp_path / "cut")] == ["3", "4", "5", "6", "6"]


COMMAND = "from deeplab_zoo.cli.main import main; import sys; main()"


def started(weights: Path, shapes: Path, folder: Path, *more: str) -> subprocess.Popen[str]:
    flags = {
        "crop": 49, "steps": 30, "batch-size": 2, "accumulate": 1, "lr": 1e-3, "workers": 0,
        "save-every": 2, "keep": 2, "val-every": 0, "log-every": 1, "val-split": "", "threads": 1,
    }  # fmt: skip
    words = [f"--{name}={value}" for name, value in flags.items()]
    command = [sys.executable, "-c", COMMAND, "finetune", str(weights), str(shapes), *words]
    return subprocess.Popen(
        [*command, "--no-tensorboard", "-o", str(folder), *more],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def waited(process: subprocess.Popen[str], step: int) -> None:
    """Read what the process says until it has done a step."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(f"step {step}/"):
            return
    raise AssertionError(f"never reached step {step}")


def test_kill_minus_nine_at_random_steps_changes_no_bit(
    weights: Path, shapes: Path, tmp_path: Path
) -> None:
    whole = started(weights, shapes, tmp_path / "whole")
    random = np.random.default_rng(time.time_ns())
    for low, high in ((3, 10), (12, 25)):
        process = started(weights, shapes, tmp_path / "cut", "--resume", "auto")
        waited(process, int(random.integers(low, high)))
        process.kill()
        process.communicate()
    last = started(weights, shapes, tmp_path / "cut", "--resume", "auto")
    assert "Traceback" not in last.communicate()[1]
    assert "Traceback" not in whole.communicate()[1]
    assert (last.returncode, whole.returncode) == (0, 0)
    assert same(tmp_path / "whole" / "model.safetensors", tmp_path / "cut" / "model.safetensors")
    told, again = rows(tmp_path / "whole"), rows(tmp_path / "cut")
    assert [row["loss"] for row in told] == [row["loss"] for row in again]
    kept = sorted(path.name for path in (tmp_path / "cut").glob("step-*.pt"))
    assert kept == ["step-00000028.pt", "step-00000030.pt"]


def test_sigterm_saves_and_exits(weights: Path, shapes: Path, tmp_path: Path) -> None:
    process = started(weights, shapes, tmp_path / "run", "--steps", "100000")
    waited(process, 3)
    process.send_signal(signal.SIGTERM)
    said = process.communicate()[1]
    assert process.returncode == 130
    assert "--resume auto" in said
    assert checkpoints.steps(tmp_path / "run")[-1] == int(rows(tmp_path / "run")[-1]["step"])
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_full_disk_leaves_the_checkpoint_before(
    weights: Path, config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if "step-00000004.pt" in path.name:
            real(path, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="the disk is full"):
        finetune(weights, config(keep=1), tmp_path / "run")
    monkeypatch.undo()
    assert checkpoints.steps(tmp_path / "run") == [2]
    assert checkpoints.read(tmp_path / "run" / "step-00000002.pt").step == 2
    assert not list((tmp_path / "run").glob(".*.part"))
    result = finetune(weights, config(keep=1), tmp_path / "run", resume="auto")
    assert result.step == 6


def test_a_loss_that_is_not_a_number_stops_the_run_and_says_where(
    weights: Path, config: Make, tmp_path: Path
) -> None:
    with pytest.raises(ZooError, match=r"update \d+: the loss is not a number \(ce .*shape\d+"):
        finetune(weights, config(lr=1e18, steps=50), tmp_path / "run")
    for step in checkpoints.steps(tmp_path / "run"):
        state = checkpoints.read(tmp_path / "run" / f"step-{step:08d}.pt").model
        assert step < 50, state.keys()


def test_a_folder_with_a_run_is_not_overwritten(
    weights: Path, config: Make, tmp_path: Path
) -> None:
    finetune(weights, config(steps=1), tmp_path / "run")
    with pytest.raises(UsageError, match="holds a run already"):
        finetune(weights, config(steps=1), tmp_path / "run")
    with pytest.raises(UsageError, match=r"(?s)another config.*lr: 0.001, now 0.002"):
        finetune(weights, config(steps=1, lr=2e-3), tmp_path / "run", resume="auto")
    with (
        checkpoints.owned(tmp_path / "run"),
        pytest.raises(UsageError, match="another run is writing"),
    ):
        finetune(weights, config(steps=1), tmp_path / "run", resume="auto")


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
    weights: Path, config: Make, tmp_path: Path, way: dict[str, object]
) -> None:
    result = finetune(weights, config(steps=2, val_split="val", **way), tmp_path / "run")
    assert result.step == 2
    assert all(np.isfinite(float(row["loss"])) for row in rows(tmp_path / "run") if row["loss"])


def test_activation_checkpointing_changes_no_bit(
    weights: Path, config: Make, tmp_path: Path
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


def test_machines_that_see_other_checkpoints_do_not_go_on(
    weights: Path, config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finetune(weights, config(steps=3, val_split=""), tmp_path / "run")
    monkeypatch.setattr(engine.Solo, "broadcast", lambda _, obj: 1 if obj == 2 else obj)
    (tmp_path / "run" / "step-00000003.pt").unlink()
    with pytest.raises(UsageError, match="the checkpoint of update 2, the first one that of 1"):
        finetune(weights, config(steps=3, val_split=""), tmp_path / "run", resume="auto")


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


def test_dropout_is_a_function_of_the_step_so_a_vgg_goes_on_to_the_same_bits(
    make_vgg: Callable[[], Path], config: Make, tmp_path: Path
) -> None:
    way = config(loss="lovasz", groups="caffe", keep=0, val_split="")
    finetune(make_vgg(), way, tmp_path / "whole")
    (tmp_path / "cut").mkdir()
    for suffix in ("pt", "safetensors"):
        source = tmp_path / "whole" / f"step-00000004.{suffix}"
        (tmp_path / "cut" / source.name).write_bytes(source.read_bytes())
    finetune(make_vgg(), way, tmp_path / "cut", resume="auto")
    assert same(tmp_path / "whole" / "model.safetensors", tmp_path / "cut" / "model.safetensors")
    with pytest.raises(MismatchError, match="msc: DeepLab v2 has several scales"):
        finetune(make_vgg(), config(msc=True), tmp_path / "msc")


def test_a_deterministic_run_asks_torch_for_it_and_changes_no_value_on_the_cpu(
    weights: Path, config: Make, tmp_path: Path
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


def test_half_precision_skips_updates_that_overflow_and_goes_on_with_its_scale(
    weights: Path, config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a GPU but for the device: a scale this large overflows in the first updates.
    fabric = pytest.importorskip("lightning.fabric")
    plugins = pytest.importorskip("lightning.fabric.plugins")

    def halves(_: TrainConfig) -> engine.Engine:
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**18)
        halved = plugins.MixedPrecision("16-mixed", "cpu", scaler)
        made = fabric.Fabric(accelerator="cpu", plugins=halved)
        made.launch()
        return made

    monkeypatch.setattr(job, "make_engine", halves)
    way = config(precision="fp16", clip=1.0, keep=0, val_split="", save_every=1, steps=10)
    said: list[str] = []
    finetune(weights, way, tmp_path / "whole", show=said.append)
    assert "step 1: skipped, its gradients overflow in half precision" in said
    saved = {step: checkpoints.read(tmp_path / "whole" / f"step-{step:08d}.pt") for step in (1, 10)}
    assert saved[1].precision["scale"] == 2.0**17
    assert same(weights, tmp_path / "whole" / "step-00000001.safetensors")
    assert saved[10].precision["scale"] < 2.0**17
    assert not same(weights, tmp_path / "whole" / "model.safetensors")
    (tmp_path / "cut").mkdir()
    for suffix in ("pt", "safetensors"):
        shutil.copy(tmp_path / "whole" / f"step-00000008.{suffix}", tmp_path / "cut")
    finetune(weights, way, tmp_path / "cut", resume="auto")
    assert same(tmp_path / "whole" / "model.safetensors", tmp_path / "cut" / "model.safetensors")

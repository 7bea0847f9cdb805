"""Runs that are stopped, killed or fail: what stays, and how they go on."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deeplab_zoo.converters import weights as weights_file
from deeplab_zoo.converters.numerics import CAFFE_V2, TORCH_HALFPIXEL
from deeplab_zoo.proto.errors import MismatchError, StorageError, UsageError, ZooError
from deeplab_zoo.zoo.training import checkpoints, engine, job
from deeplab_zoo.zoo.training.config import TrainConfig
from deeplab_zoo.zoo.training.job import finetune

Make = Callable[..., TrainConfig]
Rows = Callable[[Path], list[dict[str, str]]]
Same = Callable[[Path, Path], bool]


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
    weights: Path, config: Make, tmp_path: Path, way: dict[str, object], rows: Rows, same: Same
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
        start_new_session=True,
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
    weights: Path, shapes: Path, tmp_path: Path, rows: Rows, same: Same
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


def test_sigterm_to_all_processes_saves_and_exits(
    weights: Path, shapes: Path, tmp_path: Path, rows: Rows
) -> None:
    process = started(weights, shapes, tmp_path / "run", "--steps=100000", "--workers=1")
    waited(process, 3)
    os.killpg(process.pid, signal.SIGTERM)
    said = process.communicate()[1]
    assert process.returncode == 130
    assert "--resume auto" in said
    assert checkpoints.steps(tmp_path / "run")[-1] == int(rows(tmp_path / "run")[-1]["step"])
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_sigterm_cuts_a_validation_short_and_the_last_one_is_made_up_for(
    weights: Path, config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: Rows
) -> None:
    way = config(steps=2, val_every=1)
    whole = finetune(weights, way, tmp_path / "whole")
    monkeypatch.setattr(job.Log, "judging", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    for step in (2, 2):  # At the validation after update 1, then at the last one.
        assert finetune(weights, way, tmp_path / "cut", resume="auto").path is None
        assert checkpoints.steps(tmp_path / "cut")[-1] == step
    monkeypatch.undo()
    again = finetune(weights, way, tmp_path / "cut", resume="auto")
    assert (again.path, again.miou) == (tmp_path / "cut" / "model.safetensors", whole.miou)
    assert [row["miou"] != "" for row in rows(tmp_path / "cut")] == [False, False, True]
    finetune(weights, way, tmp_path / "cut", resume="auto")  # Is done: nothing is left to do.
    assert len(rows(tmp_path / "cut")) == 3


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


def test_a_run_does_not_go_on_under_another_profile(
    weights: Path, config: Make, tmp_path: Path
) -> None:
    finetune(weights, config(steps=1), tmp_path / "run")
    other = tmp_path / "other.safetensors"
    weights_file.write(replace(weights_file.read(weights), numerics=CAFFE_V2), other)
    with pytest.raises(MismatchError, match=f"under caffe-v2, .* under {TORCH_HALFPIXEL.name}"):
        finetune(other, config(steps=1), tmp_path / "run", resume="auto")


def test_machines_that_see_other_checkpoints_do_not_go_on(
    weights: Path, config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finetune(weights, config(steps=3, val_split=""), tmp_path / "run")
    monkeypatch.setattr(engine.Solo, "broadcast", lambda _, obj: 1 if obj == 2 else obj)
    (tmp_path / "run" / "step-00000003.pt").unlink()
    with pytest.raises(UsageError, match="the checkpoint of update 2, the first one that of 1"):
        finetune(weights, config(steps=3, val_split=""), tmp_path / "run", resume="auto")


def test_dropout_is_a_function_of_the_step_so_a_vgg_goes_on_to_the_same_bits(
    make_vgg: Callable[[], Path], config: Make, tmp_path: Path, same: Same
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
    with pytest.raises(MismatchError, match="activation_checkpointing: of a VGG"):
        finetune(make_vgg(), config(activation_checkpointing=True), tmp_path / "again")


def test_half_precision_skips_updates_that_overflow_and_goes_on_with_its_scale(
    weights: Path, config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same: Same
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

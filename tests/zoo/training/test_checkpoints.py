"""What is a checkpoint and what is none, and whose the folder is that it lies in."""

import errno
import fcntl
import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from deeplab_zoo.converters import weights as weights_file
from deeplab_zoo.proto.errors import FormatError, MismatchError, UsageError, ZooError
from deeplab_zoo.zoo.training import checkpoints
from deeplab_zoo.zoo.training.config import TrainConfig
from deeplab_zoo.zoo.training.job import finetune

Make = Callable[..., TrainConfig]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_process_that_decodes_and_outlives_a_killed_run_does_not_hold_its_folder(
    tmp_path: Path,
) -> None:
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()

    def decode() -> None:
        theirs.send("here")
        time.sleep(60)

    with checkpoints.owned(tmp_path):
        child = fork.Process(target=decode)
        child.start()
        assert ours.recv() == "here"
    try:
        with checkpoints.owned(tmp_path):
            assert child.is_alive()
    finally:
        child.kill()
        child.join()


def test_what_a_killed_run_had_half_written_is_removed_by_the_next(tmp_path: Path) -> None:
    left = [".step-00000002.pt.x7_a.part", ".best.safetensors.x7_b.part"]
    kept = [".movie.mp4.part", "step-00000001.safetensors", "notes.txt"]
    for name in (*left, *kept):
        (tmp_path / name).touch()
    with checkpoints.owned(tmp_path):
        assert {one.name for one in tmp_path.iterdir()} == {*kept, ".lock"}


def test_a_folder_on_a_file_system_without_locks_is_trained_in(
    weights: Path, config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert finetune(weights, config(steps=1, val_split=""), tmp_path / "run").path


def test_a_file_that_is_no_checkpoint_is_refused_by_name(
    weights: Path, config: Make, tmp_path: Path
) -> None:
    finetune(weights, config(steps=1, val_split=""), tmp_path / "run")
    whole = (tmp_path / "run" / "step-00000001.pt").read_bytes()
    path = tmp_path / "x.pt"
    with pytest.raises(UsageError, match="no such file, expected a checkpoint"):
        checkpoints.read(tmp_path / "run")
    for content in (b"", b"hello", b"\x80\x02.", whole[:-300], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(FormatError, match=r"x\.pt: cannot be read as a checkpoint \(\S"):
            checkpoints.read(path)
    for other in (torch.zeros(3), [1], {"state_dict": {}}):
        torch.save(other, path)
        with pytest.raises(FormatError, match=r"x\.pt: cannot be read as a checkpoint \(\S"):
            checkpoints.read(path)


def test_a_checkpoint_of_another_net_is_refused(
    weights: Path, config: Make, make_weights: Callable[..., Path], tmp_path: Path
) -> None:
    for ema in (0.0, 0.5):  # With a running mean the weights lie in the other file.
        way, folder = config(steps=1, val_split="", ema=ema), tmp_path / f"run{ema}"
        finetune(weights, way, folder)
        with pytest.raises(MismatchError, match="of another net than the checkpoint's"):
            finetune(make_weights(blocks=(1, 2, 1, 1)), way, folder, resume="auto")


def test_weights_that_are_no_numbers_are_not_written_over_those_that_are(
    weights: Path, config: Make, tmp_path: Path
) -> None:
    finetune(weights, config(steps=2, val_split=""), tmp_path)
    before = checkpoints.read(tmp_path / "step-00000002.pt")
    name = "classifier.convs.0.weight"
    broken = {**before.model, name: torch.full_like(before.model[name], torch.nan)}
    like = weights_file.read(weights)
    with pytest.raises(ZooError, match=rf"(?s)1 of \d+ tensors hold.*{name}.*--lr"):
        checkpoints.save(tmp_path, replace(before, step=3, model=broken), like, keep=1)
    assert checkpoints.steps(tmp_path) == [2]
    assert not list(tmp_path.glob("step-00000003*"))

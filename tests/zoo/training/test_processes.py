"""Two processes are one with the doubled batch."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deeplab_zoo.converters import weights as weights_file

COMMAND = "from deeplab_zoo.cli.main import main; main()"
FLAGS = ["--crop=57", "--steps=3", "--accumulate=2", "--lr=1e-3", "--workers=0", "--save-every=100",
         "--val-every=0", "--threads=1", "--no-tensorboard", "--log-every=1", "--device=cpu",
         "--loss=ce+lovasz", "--class-weights=1,2,3,4", "--clip=1", "--msc"]  # fmt: skip


def run(weights: Path, shapes: Path, folder: Path, *more: str) -> None:
    script = folder.parent / "run.py"  # Lightning starts the second process with the same script.
    script.write_text(COMMAND)
    command = [sys.executable, str(script), "finetune", str(weights), str(shapes), *FLAGS]
    found = subprocess.run(
        [*command, "-o", str(folder), *more], check=False, capture_output=True, text=True,
        timeout=200, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert found.returncode == 0, found.stderr


def test_two_processes_equal_one_with_the_doubled_batch(
    weights: Path, shapes: Path, tmp_path: Path
) -> None:
    # The crop is larger than the pictures and these are scaled at random, so each process has
    # another number of void pixels.
    pytest.importorskip("lightning")
    for name, way in (("two", ("--batch-size=1", "--devices=2")), ("one", ("--batch-size=2",))):
        run(weights, shapes, tmp_path / name, *way)
    first = weights_file.read(tmp_path / "one" / "model.safetensors").state
    second = weights_file.read(tmp_path / "two" / "model.safetensors").state
    started = weights_file.read(weights).state
    for name, data in first.items():
        np.testing.assert_allclose(second[name], data, rtol=1e-5, atol=1e-6, err_msg=name)
    assert not np.array_equal(
        started["classifier.convs.0.weight"], first["classifier.convs.0.weight"]
    )
    logs = [(tmp_path / name / "log.csv").read_text().splitlines() for name in ("one", "two")]
    for ours, theirs in zip(*(each[1:] for each in logs), strict=True):
        numbers = [np.array(line.split(",")[:5]) for line in (ours, theirs)]
        if numbers[0][1]:  # A row of a loss: step, loss, its two terms, rate.
            np.testing.assert_allclose(*(one.astype(float) for one in numbers), rtol=1e-5)
        else:
            assert ours == theirs  # mIoU, to the last digit.

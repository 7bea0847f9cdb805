"""Two processes are one with the doubled batch."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deeplab_zoo.cli.finetune import finetune
from deeplab_zoo.converters import weights as weights_file

FLAGS = ["--crop=57", "--steps=3", "--accumulate=2", "--lr=1e-3", "--workers=0", "--save-every=100",
         "--val-every=0", "--threads=1", "--no-tensorboard", "--log-every=1", "--device=cpu",
         "--loss=ce+lovasz", "--class-weights=1,2,3,4", "--clip=1", "--msc"]  # fmt: skip


def test_two_processes_equal_one_with_the_doubled_batch(
    weights: Path, shapes: Path, tmp_path: Path
) -> None:
    # The crop is larger than the pictures and these are scaled at random, so each process has
    # another number of void pixels.
    pytest.importorskip("lightning")
    given = [str(weights), str(shapes), *FLAGS]
    script = tmp_path / "run.py"  # Lightning starts the second process with the same script.
    script.write_text("from deeplab_zoo.cli.main import main; main()")
    command = [sys.executable, str(script), "finetune", *given, "-o", str(tmp_path / "two")]
    found = subprocess.run(
        [*command, "--batch-size=1", "--devices=2"], check=False, capture_output=True, text=True,
        timeout=200, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    finetune.main([*given, "-o", str(tmp_path / "one"), "--batch-size=2"], standalone_mode=False)

    first = weights_file.read(tmp_path / "one" / "model.safetensors").state
    second = weights_file.read(tmp_path / "two" / "model.safetensors").state
    start = weights_file.read(weights).state
    head = "classifier.convs.0.weight"
    assert not np.array_equal(start[head], first[head])
    for name, data in first.items():
        np.testing.assert_allclose(second[name], data, rtol=1e-5, atol=1e-6, err_msg=name)
    logs = [(tmp_path / name / "log.csv").read_text().splitlines() for name in ("one", "two")]
    assert logs[0][0] == logs[1][0] == "step,loss,ce,lovasz,lr,images_per_second,miou"
    for ours, theirs in zip(*(each[1:] for each in logs), strict=True):
        numbers = [[float(cell or 0) for cell in line.split(",")] for line in (ours, theirs)]
        for values in numbers:
            values[5] = 0  # Images per second.
        # The last row is the mIoU, of which a pixel between two classes may move a digit.
        np.testing.assert_allclose(*numbers, rtol=1e-5, atol=1e-6 if numbers[0][1] else 1e-3)

"""Two processes are one with the doubled batch, however they are started and share the weights."""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from deeplab_zoo.cli.finetune import finetune
from deeplab_zoo.converters import weights as weights_file

pytest.importorskip("lightning")

# The crop is larger than the pictures and these are scaled at random, so each process has
# another number of void pixels.
FLAGS = ["--crop=57", "--steps=3", "--accumulate=2", "--lr=1e-3", "--workers=0", "--save-every=1",
         "--keep=0", "--val-every=2", "--threads=1", "--no-tensorboard", "--log-every=1",
         "--device=cpu", "--loss=ce+lovasz", "--class-weights=1,2,3,4", "--clip=1", "--msc",
         "--ema=0.5"]  # fmt: skip


# Says how much of the weights this process holds.
SCRIPT = """
from deeplab_zoo.zoo.training import engine
real = engine.shard
def shard(model, mesh):
    real(model, mesh)
    sizes = [(one.to_local().numel(), one.numel()) for one in model.parameters()]
    own, all = map(sum, zip(*sizes))
    print(f"holds {own / all:.0%}")
    return model
engine.shard = shard
from deeplab_zoo.cli.main import main; main()
"""


def start(folder: Path, before: Sequence[str], *after: object) -> subprocess.Popen[str]:
    """Start a process that trains; Lightning starts others with the same script."""
    script = folder / "run.py"
    script.write_text(SCRIPT)
    return subprocess.Popen(
        [sys.executable, *before, str(script), "finetune", *map(str, after)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def said(process: subprocess.Popen[str]) -> str:
    """Return what a process printed, once it ended well."""
    out, err = process.communicate(timeout=250)
    assert process.returncode == 0, err
    return out


@pytest.fixture(scope="module")
def alone(weights: Path, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process comes to."""
    folder = tmp_path_factory.mktemp("one")
    given = [str(weights), str(shapes), *FLAGS, "--batch-size=2", "-o", str(folder)]
    finetune.main(given, standalone_mode=False)
    head = "classifier.convs.0.weight"
    first, last = (weights_file.read(one).state for one in (weights, folder / "model.safetensors"))
    assert not np.array_equal(first[head], last[head])
    return folder


def demand_same(one: Path, two: Path) -> None:
    """Compare everything that two runs left."""
    for name in ("model", "best", "step-00000002"):
        first, second = (
            weights_file.read(folder / f"{name}.safetensors").state for folder in (one, two)
        )
        for key, data in first.items():
            np.testing.assert_allclose(second[key], data, rtol=1e-5, atol=1e-6, err_msg=key)
    logs = [(folder / "log.csv").read_text().splitlines() for folder in (one, two)]
    assert logs[0][0] == logs[1][0] == "step,loss,ce,lovasz,lr,images_per_second,miou"
    for ours, theirs in zip(*(each[1:] for each in logs), strict=True):
        numbers = [[float(cell or 0) for cell in line.split(",")] for line in (ours, theirs)]
        for values in numbers:
            values[5] = 0  # Images per second.
        # Some rows are the mIoU, of which a pixel between two classes may move a digit.
        np.testing.assert_allclose(*numbers, rtol=1e-5, atol=1e-6 if numbers[0][1] else 1e-3)


@pytest.mark.slow
def test_two_processes_equal_one_with_the_doubled_batch(
    weights: Path, shapes: Path, alone: Path, tmp_path: Path
) -> None:
    given = [weights, shapes, *FLAGS, "--batch-size=1", "--devices=2", "-o", tmp_path / "two"]
    told = said(start(tmp_path, [], *given))
    assert told.count("after 3 updates") == 1
    demand_same(alone, tmp_path / "two")


@pytest.mark.slow
def test_two_machines_with_spread_weights_equal_one_process(
    weights: Path, shapes: Path, alone: Path, tmp_path: Path
) -> None:
    # What docs/training.md says for torchrun on two machines, on one.
    with socket.socket() as free:
        free.bind(("localhost", 0))
        place = f"localhost:{free.getsockname()[1]}"
    torchrun = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1",
                "--rdzv-backend=c10d", f"--rdzv-endpoint={place}"]  # fmt: skip
    given = [weights, shapes, *FLAGS, "--batch-size=1", "--devices=1", "--nodes=2",
             "--strategy=fsdp", "-o", tmp_path / "two"]  # fmt: skip
    machines = [start(tmp_path, torchrun, *given) for _ in range(2)]
    told = [said(one) for one in machines]
    assert "".join(told).count("after 3 updates") == 1
    for one in told:  # Weights are cut along their first axis, which may be odd.
        share = re.search(r"holds (\d+)%", one)
        assert share is not None
        assert 35 <= int(share[1]) <= 65
    demand_same(alone, tmp_path / "two")


@pytest.mark.slow
@pytest.mark.parametrize("after", ["fsdp", "ddp"])
def test_a_run_with_spread_weights_goes_on_to_the_same_weights(
    weights: Path, shapes: Path, tmp_path: Path, after: str
) -> None:
    given = [weights, shapes, *FLAGS, "--batch-size=1", "--devices=2", "--solver=adamw"]
    said(start(tmp_path, [], *given, "--strategy=fsdp", "-o", tmp_path / "whole"))
    (tmp_path / "cut").mkdir()
    for suffix in ("pt", "safetensors"):
        shutil.copy(tmp_path / "whole" / f"step-00000001.{suffix}", tmp_path / "cut")
    more = [f"--strategy={after}", "--resume=auto", "-o", tmp_path / "cut"]
    said(start(tmp_path, [], *given, *more))
    whole, cut = (
        weights_file.read(tmp_path / name / "model.safetensors").state for name in ("whole", "cut")
    )
    for name, data in whole.items():
        if after == "fsdp":
            np.testing.assert_array_equal(cut[name], data)
        else:  # Sums in another order.
            np.testing.assert_allclose(cut[name], data, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_disk_that_is_full_stops_all_processes_with_one_reason(
    weights: Path, shapes: Path, tmp_path: Path
) -> None:
    full = tmp_path / "full.py"
    full.write_text(
        "from deeplab_zoo.proto.errors import StorageError\n"
        "from deeplab_zoo.zoo.training import checkpoints\n"
        "def save(*_): raise StorageError('the disk is full')\n"
        "checkpoints.save = save\n"
        "from deeplab_zoo.cli.main import main; main()\n"
    )
    given = [weights, shapes, *FLAGS, "--batch-size=1", "--devices=2", "-o", tmp_path / "two"]
    process = subprocess.run(
        [sys.executable, str(full), "finetune", *map(str, given)],
        check=False, capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    assert process.returncode == 6
    assert "Traceback" not in process.stderr
    assert process.stderr.count("the disk is full") == 2

"""Two processes with half a batch each compute the loss of the whole batch."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from deeplab_zoo import LovaszHingeLoss, LovaszSoftmaxLoss

RUN_BY_EACH = """
import os, sys
import numpy as np
import torch
from torch import distributed as dist
from deeplab_zoo import LovaszHingeLoss, LovaszSoftmaxLoss, ZooError

rank = int(sys.argv[1])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method="file://" + os.path.abspath("meeting"), rank=rank, world_size=2)
data = np.load("batch.npz")
images, labels = (torch.from_numpy(data[key][rank * 2 : rank * 2 + 2]) for key in ("images", "labels"))
out = {}
for name, module in {
    "softmax": LovaszSoftmaxLoss(distributed=True),
    "hinge": LovaszHingeLoss(per_image=False, distributed=True),
}.items():
    torch.manual_seed(0)
    model = torch.nn.Conv2d(3, 4 if name == "softmax" else 1, 1)
    truth = labels if name == "softmax" else (labels == 1).long().masked_fill(labels == 255, 255)
    loss = module(model(images), truth)
    loss.backward()
    dist.all_reduce(model.weight.grad)  # As DistributedDataParallel, whose import takes seconds.
    out[name] = np.append(model.weight.grad.numpy().ravel() / 2, loss.item())
for scores, truth in (
    (torch.zeros(1 + rank, 4, 2, 2), torch.zeros(1 + rank, 2, 2)),
    (torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2 - rank)),
    (torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2, dtype=(torch.int64, torch.uint8)[rank])),
):
    try:
        LovaszSoftmaxLoss(distributed=True)(scores, truth)
    except ZooError as error:
        assert "scores and labels: (1, 4, 2, 2) torch.float32 and (1, 2, 2)" in str(error), error
        out["refused"] = out.get("refused", 0) + np.ones(1)
np.savez(f"found{rank}.npz", **out)
dist.destroy_process_group()
"""


def test_two_processes_give_the_loss_and_gradient_of_one(tmp_path: Path) -> None:
    torch.manual_seed(1)
    images = torch.randn(4, 3, 5, 6)
    labels = torch.randint(0, 3, (4, 5, 6))
    labels[0, :2] = 255
    labels[2:] += labels[2:] < 2  # The halves have different classes.
    np.savez(tmp_path / "batch.npz", images=images, labels=labels)
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", RUN_BY_EACH, str(rank)],
            cwd=tmp_path,
            env=os.environ | {"GLOO_SOCKET_IFNAME": "lo"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    for run in runs:
        _, complaint = run.communicate(timeout=120)
        assert run.returncode == 0, complaint[-2000:]
    for name, module in {
        "softmax": LovaszSoftmaxLoss(),
        "hinge": LovaszHingeLoss(per_image=False),
    }.items():
        torch.manual_seed(0)
        model = torch.nn.Conv2d(3, 4 if name == "softmax" else 1, 1)
        truth = labels
        if name == "hinge":
            truth = (labels == 1).long().masked_fill(labels == 255, 255)
        loss = module(model(images), truth)
        loss.backward()
        assert model.weight.grad is not None
        expected = np.append(model.weight.grad.numpy().ravel(), loss.item())
        for rank in (0, 1):
            with np.load(tmp_path / f"found{rank}.npz") as found:
                np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-7)
                assert found["refused"] == 3


def test_a_process_alone_needs_no_group() -> None:
    logits, labels = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    assert LovaszSoftmaxLoss(distributed=True)(logits, labels) == LovaszSoftmaxLoss()(
        logits, labels
    )

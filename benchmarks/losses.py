"""How fast are the Lovász losses beside a sort per class and beside kornia, and how near is the
proximal step to the truth?

Takes turns in interleaved rounds of one process, forward and backward together, and prints each
median and its ratio. Values and gradients of all are compared first. On the CPU:

    pip install 'kornia==0.9.*' kornia_rs --no-deps
    python benchmarks/losses.py [--rounds 7] [--threads 2] [--device cuda] [--skip proximal]
"""  # noqa: D205

import argparse
import importlib.util
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from deeplab_zoo import LovaszSoftmaxLoss, lovasz_softmax, prox_lovasz_hinge
from deeplab_zoo.zoo.losses.proximal import duality_gap

BOUND = 4.0
Run = Callable[[], Tensor]


def jaccard_growth(truth: Tensor) -> Tensor:
    """Return the growth of the Jaccard loss along sorted pixels."""
    overlap = truth.sum() - truth.cumsum(0)
    union = truth.sum() + (1 - truth).cumsum(0)
    loss = 1 - overlap / union
    return torch.cat([loss[:1], loss[1:] - loss[:-1]])


def sort_per_class(probas: Tensor, labels: Tensor, present: bool) -> Tensor:
    """Do what the original does: for each class one sort, one gather, one dot product."""
    classes = probas.shape[1]
    probas, labels = probas.movedim(1, -1).reshape(-1, classes), labels.reshape(-1)
    losses = []
    for label in range(classes):
        truth = (labels == label).to(probas.dtype)
        if present and truth.sum() == 0:
            continue
        errors, order = torch.sort((truth - probas[:, label]).abs(), 0, descending=True)
        losses.append(torch.dot(errors, jaccard_growth(truth[order])))
    return torch.stack(losses).mean()


def timed(run: Run, leaf: Tensor) -> float:
    """Return the seconds of a forward and a backward pass."""
    leaf.grad = None
    synchronise(leaf)
    start = time.perf_counter()
    run().backward()
    synchronise(leaf)
    return time.perf_counter() - start


def synchronise(leaf: Tensor) -> None:
    """Wait for the device."""
    if leaf.is_cuda:
        torch.cuda.synchronize()


def compared(title: str, leaf: Tensor, runs: dict[str, Run], rounds: int) -> None:
    """Print medians of interleaved rounds, ratios to the first run, and differences from it."""
    values, gradients = {}, {}
    for name, run in runs.items():
        leaf.grad = None
        value = run()
        value.backward()
        values[name], gradients[name] = value.item(), leaf.grad
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(timed(run, leaf))
    print(
        f"\n### {title}\n\n| run | median | best | ratio | loss | gradients differ by |\n"
        "|---|---|---|---|---|---|"
    )
    ours = next(iter(runs))
    base = statistics.median(times[ours])
    for name in runs:
        median = statistics.median(times[name])
        apart = (gradients[name] - gradients[ours]).abs().max().item()
        print(
            f"| {name} | {1e3 * median:.0f} ms | {1e3 * min(times[name]):.0f} ms "
            f"| {median / base:.1f} | {values[name]:.6f} | {apart:.1e} |"
        )


def lovasz(options: argparse.Namespace, classes: int, present: int | None) -> None:
    """Compare at one number of classes, of which some are in the labels."""
    size, device = options.size, options.device
    torch.manual_seed(0)
    logits = 2 * torch.randn(options.batch, classes, size, size, device=device)
    # Blobs, as masks are: low frequencies, argmax.
    seeds = torch.randn(options.batch, present or classes, 9, 9, device=device)
    labels = torch.nn.functional.interpolate(seeds, (size, size), mode="bicubic").argmax(1)
    probas = logits.softmax(1).requires_grad_()
    mode = "present" if present else "all"
    shape = f"{options.batch}x{classes}x{size}x{size}"
    runs: dict[str, Run] = {
        "deeplab_zoo": lambda: lovasz_softmax(probas, labels, mode),
        "a sort per class": lambda: sort_per_class(probas, labels, bool(present)),
    }
    if device != "cpu":
        keys = probas.detach().transpose(0, 1).reshape(classes, -1)
        runs["torch.sort of the keys"] = lambda: (
            keys.sort(-1, descending=True)[0].sum() + 0 * probas.sum()
        )
    title = (
        f"Lovász softmax, {shape}, {mode} classes ({int(labels.unique().numel())} in the labels)"
    )
    compared(title, probas, runs, options.rounds)
    if importlib.util.find_spec("kornia") and not present:
        from kornia.losses import lovasz_softmax_loss

        leaf = logits.requires_grad_()
        module = LovaszSoftmaxLoss("all", per_image=True, ignore_index=None)
        runs = {
            "deeplab_zoo": lambda: module(leaf, labels),
            "kornia": lambda: lovasz_softmax_loss(leaf, labels),
        }
        compared(f"From logits, per image, {shape}, all classes", leaf, runs, options.rounds)


def proximal(options: argparse.Namespace) -> None:
    """Time the proximal step of one image, with its certificate."""
    torch.manual_seed(0)
    size = options.size
    seeds = torch.randn(1, 2, 9, 9, dtype=torch.float64)
    labels = torch.nn.functional.interpolate(seeds, (size, size), mode="bicubic").argmax(1)[0]
    logits = torch.randn(size, size, dtype=torch.float64) * 2 + labels - 0.5
    margins = 1 - logits * (2 * labels - 1)
    print(f"\n### Proximal step, {size}x{size}, float64\n\n| lam | method | median | duality gap |")
    print("|---|---|---|---|")
    for lam in (1e-4, 1e-2, 0.5, 10.0):
        for method in ("exact", "path"):
            x = prox_lovasz_hinge(margins, labels, lam, method)
            times = []
            for _ in range(options.rounds):
                start = time.perf_counter()
                prox_lovasz_hinge(margins, labels, lam, method)
                times.append(time.perf_counter() - start)
            gap = duality_gap(x, margins, labels, lam)
            print(f"| {lam:g} | {method} | {1e3 * statistics.median(times):.0f} ms | {gap:.1e} |")


MEMORY = """
import sys
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[1])
from losses import lovasz_softmax, sort_per_class
torch.set_num_threads(int(sys.argv[3]))
batch, classes, size = map(int, sys.argv[4:])
probas = torch.full((batch, classes, size, size), 1 / classes)
probas += torch.rand(probas.shape) / 100 / classes
probas.requires_grad_()
labels = torch.randint(0, classes, (batch, size, size))
small = probas[:, :, :9, :9].detach().requires_grad_()
run = {"deeplab_zoo": lovasz_softmax, "sort": lambda p, l: sort_per_class(p, l, False)}[sys.argv[2]]
run(small, labels[:, :9, :9]).backward()
def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))

Path("/proc/self/clear_refs").write_text("5")  # Linux forgets the highest mark.
before = status("VmRSS:")
run(probas, labels).backward()
print((status("VmHWM:") - before) / 1024)
"""


def memory(options: argparse.Namespace) -> None:
    """Print by how much a forward and backward pass raises the process's peak."""
    scores = options.batch * 21 * options.size**2 * 4 / 2**20
    print(
        f"\n### Peak memory of a forward and backward pass, {options.batch}x21x{options.size}x"
        f"{options.size}\n\nScores take {scores:.0f} MiB; their gradient is counted.\n"
    )
    print("| run | above the scores |\n|---|---|")
    for name in ("deeplab_zoo", "sort"):
        numbers = [str(n) for n in (options.threads, options.batch, 21, options.size)]
        folder = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
        command = [sys.executable, "-c", MEMORY, folder, name, *numbers]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        print(f"| {name} | {float(done.stdout):.0f} MiB |")


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=321)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--skip", nargs="*", default=[], choices=["lovasz", "proximal", "memory"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, ", end="")
    print(f"{options.threads} threads, medians of {options.rounds} interleaved rounds; ", end="")
    print(f"ratios are to deeplab_zoo, wanted: {BOUND:g}")
    if importlib.util.find_spec("kornia") is None:
        print("kornia is not installed and left out")
    if "lovasz" not in options.skip:
        lovasz(options, 21, None)
        lovasz(options, 21, 5)
    if "proximal" not in options.skip:
        proximal(options)
    if "memory" not in options.skip and options.device == "cpu":
        memory(options)


if __name__ == "__main__":
    main()

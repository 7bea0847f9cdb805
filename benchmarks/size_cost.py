"""What one inference and one training step cost, against pixels, batch and classes.

Each point runs in a process of its own, whose peak memory is then that point's: what came on
top of the model. An inference ends with class ids at the image's own size; a training step is cross
entropy + Lovász and SGD, BatchNorm frozen, on labels of the scores' size, as `finetune` does
by default. Times are medians. One of the three is changed while the others stay at their base.

    python benchmarks/size_cost.py [--plot benchmarks/results/size_cost.png]
    python benchmarks/size_cost.py --device cuda --full --sides 161 321 513 769 1025 --base 513 4 21
"""

import argparse
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from math import log, prod
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import torch
from torch import Tensor, nn

from deeplab_zoo import DeepLabV2, DeepLabV2Config, LovaszSoftmaxLoss
from deeplab_zoo.zoo.demo import NARROW
from deeplab_zoo.zoo.evaluation.protocol import Protocol, decide, score

KINDS = {"inference": "tab:blue", "training step": "tab:orange"}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
AXES = ("pixels", "batch", "classes")


class Point(NamedTuple):
    """What is run."""

    side: int
    batch: int
    classes: int

    def on(self, axis: str) -> int:
        """Return where the point lies on an axis."""
        return {"pixels": self.side**2, "batch": self.batch, "classes": self.classes}[axis]


class Cost(NamedTuple):
    """Seconds, MiB beyond the model."""

    seconds: float
    memory: float


def network(classes: int, *, full: bool) -> DeepLabV2:
    """Make a net whose activations and scores stay in range, as those of `random_blobs`.

    Scores far apart would make probabilities that are denormal numbers, which are slow.
    """
    torch.manual_seed(0)
    config = DeepLabV2Config() if full else NARROW
    model = DeepLabV2(replace(config, classes=classes, scales=(1.0,)))
    gains = {"backbone.conv1": 1 / 64, "conv3": 0.25, "classifier": 0.1}
    for name, part in model.named_modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_uniform_(part.weight, nonlinearity="relu")
            part.weight.data *= prod(gain for end, gain in gains.items() if end in name)
    return model.eval()


def inference(model: DeepLabV2, images: Tensor) -> Callable[[], object]:
    """Return one inference: class ids at the image's size."""

    @torch.inference_mode()
    def run() -> Tensor:
        return decide(score(model, images, Protocol(size=0)))

    return run


def training(model: DeepLabV2, images: Tensor) -> Callable[[], object]:
    """Return one training step."""
    lovasz = LovaszSoftmaxLoss()
    optimizer = torch.optim.SGD(model.parameters(), 1e-6, momentum=0.9)
    side = (images.shape[-1] - 1) // 8 + 1
    labels = torch.randint(0, model.config.classes, (len(images), side, side)).to(images.device)

    def run() -> None:
        scores = model(images)
        loss = nn.functional.cross_entropy(scores, labels) + lovasz(scores, labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def measured(kind: str, point: Point, options: argparse.Namespace) -> Cost:
    """Measure a point; in a process of its own."""
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    model = network(point.classes, full=options.full).to(device)
    images = torch.randn(point.batch, 3, point.side, point.side, device=device) * 60
    make = inference if kind == "inference" else training
    make(model, images[..., :33, :33])()  # What the libraries load and the optimizer keeps.
    run = make(model, images)
    times = []
    before = peak(device)
    for _ in range(options.rounds + 1):
        start = CLOCKS[options.clock]()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(CLOCKS[options.clock]() - start)
    return Cost(statistics.median(times[1:]), peak(device) - before)


def peak(device: torch.device) -> float:
    """Return the most MiB that this process has had so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def apart(kind: str, point: Point, options: argparse.Namespace) -> Cost:
    """Measure a point in a new process; this one has run nothing, so that it may fork."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(measured, (kind, point, options))


def growth(points: Sequence[Point], values: Sequence[float], axis: str) -> list[float]:
    """Return between neighbours the power with which a cost grows; 1 is linear."""
    at = [point.on(axis) for point in points]
    pairs = zip(pairwise(at), pairwise(values), strict=True)
    return [log(max(b, 1e-9) / max(a, 1e-9)) / log(y / x) for (x, y), (a, b) in pairs]


def draw(found: dict[str, dict[str, list[tuple[Point, Cost]]]], title: str, path: Path) -> None:
    """Draw time and memory against each axis, both logarithmic, with a line that is linear."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, rows = plt.subplots(2, 3, figsize=(10, 6), sharey="row", layout="constrained")
    for column, axis in enumerate(AXES):
        for row, what in enumerate(("seconds", "memory")):
            place = rows[row][column]
            for kind, colour in KINDS.items():
                at = [point.on(axis) for point, _ in found[axis][kind]]
                values = [getattr(cost, what) for _, cost in found[axis][kind]]
                place.loglog(at, values, "o-", color=colour, label=kind)
                line = [values[-1] * one / at[-1] for one in at]
                place.loglog(at, line, ":", color=colour, linewidth=1)
            place.grid(visible=True, which="both", alpha=0.2)
            if row:
                place.set_xlabel(axis)
        rows[0][0].set_ylabel("seconds")
        rows[1][0].set_ylabel("MiB beyond the model")
    rows[0][0].legend(title="dotted: linear", fontsize="small")
    figure.suptitle(title, fontsize="medium")
    figure.savefig(path, dpi=80)


def main() -> None:
    """Measure every point, print the tables and draw them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[65, 97, 129, 193, 257, 385])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--classes", type=int, nargs="+", default=[2, 21, 60, 120, 182])
    parser.add_argument("--base", type=int, nargs=3, default=[129, 2, 21])
    parser.add_argument("--full", action="store_true", help="the published width, not an eighth")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: for a busy machine, with --threads 1"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--plot", type=Path, default=Path("benchmarks/results/size_cost.png"))
    options = parser.parse_args()
    base = Point(*options.base)
    series = {
        "pixels": [base._replace(side=one) for one in options.sides],
        "batch": [base._replace(batch=one) for one in options.batches],
        "classes": [base._replace(classes=one) for one in options.classes],
    }
    title = (
        f"DeepLab v2 ResNet-101, {'full size' if options.full else 'an eighth as wide'}, "
        f"{options.device}; base {base.side}x{base.side}, batch {base.batch}, "
        f"{base.classes} classes"
    )
    print(
        f"{title}\n{platform.platform()}, torch {torch.__version__}, {options.threads} threads, "
        f"{options.clock} time\n"
    )
    found: dict[str, dict[str, list[tuple[Point, Cost]]]] = {}
    for axis, points in series.items():
        print(f"| {axis} | kind | seconds | grows with | MiB | grows with |")
        print("|---:|---|---:|---:|---:|---:|")
        found[axis] = {}
        for kind in KINDS:
            costs = [apart(kind, point, options) for point in points]
            found[axis][kind] = list(zip(points, costs, strict=True))
            slow = ["", *(f"^{x:.2f}" for x in growth(points, [c.seconds for c in costs], axis))]
            big = ["", *(f"^{x:.2f}" for x in growth(points, [c.memory for c in costs], axis))]
            for point, cost, time_power, memory_power in zip(points, costs, slow, big, strict=True):
                print(
                    f"| {point.on(axis)} | {kind} | {cost.seconds:.4f} | {time_power} | "
                    f"{cost.memory:.0f} | {memory_power} |",
                    flush=True,
                )
        print()
    draw(found, title, options.plot)
    print(f"drawn in {options.plot}")


if __name__ == "__main__":
    main()

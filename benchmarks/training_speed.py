"""How fast does a full-size DeepLab v2 train, and what of a step are the losses?

A step is `finetune`'s own, from a batch in memory to moved weights: three scales, four losses,
BatchNorm frozen, Caffe's solver. The first table has precisions and ways to compute, run in
interleaved rounds, and on a GPU the most memory; "of peak" is the share of a large matrix product
in the same rounds (in float32 on a CPU, in bfloat16 on a GPU), at three forward passes' operations
to a step. The second has losses: each one's time alone, from the outputs to their gradients, and
what it adds to cross entropy as a share of its step.

    python benchmarks/training_speed.py --device cuda [--no-tf32]
    python benchmarks/training_speed.py --narrow --batch 2 --no-compile
"""

import argparse
import os
import platform
import statistics
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import cast

import torch
from inference_speed import PRODUCT, converted, memory, product, roofline, rounds, work
from torch import Tensor, nn

from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config
from deeplab_zoo.converters.export import open_weights
from deeplab_zoo.converters.weights import Weights
from deeplab_zoo.zoo.data.loader import Batch
from deeplab_zoo.zoo.demo import NARROW
from deeplab_zoo.zoo.models.inference import prepare
from deeplab_zoo.zoo.parity.cases import photo
from deeplab_zoo.zoo.training.config import TrainConfig
from deeplab_zoo.zoo.training.engine import make_engine
from deeplab_zoo.zoo.training.groups import parameter_groups
from deeplab_zoo.zoo.training.loop import Run, updates
from deeplab_zoo.zoo.training.model import MSC_SCALES, make_model
from deeplab_zoo.zoo.training.objective import make_objective
from deeplab_zoo.zoo.training.solver import make_solver

CLASSES = 21
BASE = "eager fp32"
WAYS: dict[str, dict[str, object]] = {
    BASE: {},
    "compiled fp32": {"compile": True},
    "bf16": {"precision": "bf16"},
    "compiled bf16": {"precision": "bf16", "compile": True},
    "bf16, activations computed twice": {"precision": "bf16", "activation_checkpointing": True},
}
LOSSES: dict[str, dict[str, object]] = {
    "ce": {},
    "ce+lovasz": {"loss": "ce+lovasz"},
    "ce+densecrf": {"regularizer": "densecrf"},
}


def drawn_batch(given: Weights, size: int, count: int) -> Batch:
    """Draw photos, and labels in patches, a tenth of them void."""
    images = torch.cat([prepare(photo(size, size, seed), given.numerics) for seed in range(count)])
    random = torch.Generator().manual_seed(0)
    patches = torch.randint(0, CLASSES, (count, 1, 6, 6), generator=random).float()
    patches[torch.rand(patches.shape, generator=random) < 0.1] = 255
    labels = nn.functional.interpolate(patches, (size, size)).long()[:, 0]
    sizes = torch.full((count, 2), size)
    return Batch(image=images, label=labels, size=sizes, id=[str(one) for one in range(count)])


def ready(given: Weights, batch: int, device: str, changes: Mapping[str, object]) -> Run:
    """Return a run before its first update."""
    config = TrainConfig(**{
        "msc": True, "batch_size": batch, "accumulate": 1, "device": device, "steps": 10**6,
        "lr": 1e-7, **changes,
    })  # fmt: skip
    engine = make_engine(config)
    model = make_model(given, config)
    objective = make_objective(config, given.numerics, CLASSES).to(engine.device)
    module = engine.setup_module(model)
    groups = parameter_groups(model.named_parameters(), config.groups, config.weight_decay)
    solver = engine.setup_optimizers(make_solver(config.solver, groups, config.lr, config.momentum))
    return Run(config, engine, model, module, solver, objective)


def step(run: Run, batch: Batch) -> Callable[[], object]:
    """Return an update with a batch."""
    return lambda: next(updates(run, repeat(batch)))


def loss(run: Run, batch: Batch) -> Callable[[], object]:
    """Return the loss alone, from a batch's outputs to their gradients."""
    held = {key: one.to(run.engine.device) for key, one in batch.items() if isinstance(one, Tensor)}
    outputs = [one.detach().requires_grad_() for one in run.module(held["image"])]

    def call() -> None:
        terms = run.objective(outputs, cast(Batch, held))
        sum(terms.values(), torch.zeros((), device=run.engine.device)).backward()

    return call


def ways(given: Weights, batch: Batch, options: argparse.Namespace) -> None:
    """Print images a second and memory of each way to compute."""
    device = torch.device(options.device)
    names = [name for name in WAYS if options.compile or "compiled" not in name]
    multiply, multiplied = product(device)
    calls: dict[str, Callable[[], object]] = {PRODUCT: multiply}
    used: dict[str, str] = {}
    operations = 0.0
    for name in names:
        before = memory(device)
        run = ready(given, options.batch, options.device, WAYS[name])
        if not operations:
            with torch.no_grad():
                operations = 3 * work(run.model, batch["image"].to(device))
        calls[name] = step(run, batch)
        for _ in range(2):  # The second has the solver's memory.
            calls[name]()
        if device.type == "cuda":
            used[name] = f"{memory(device, most=True) - before:.0f}"
    found = rounds(calls, options.rounds, device)
    peaks = [multiplied / seconds for seconds in found.pop(PRODUCT)]
    print("| way | step, ms | images/s | x eager | of peak | memory, MiB |\n|---|" + "---:|" * 5)
    for name, times in found.items():
        middle = statistics.median(times)
        faster = statistics.median(a / b for a, b in zip(found[BASE], times, strict=True))
        reached = statistics.median(
            operations / one / peak for one, peak in zip(times, peaks, strict=True)
        )
        print(
            f"| {name} | {1e3 * middle:.1f} | {options.batch / middle:.2f} | {faster:.2f} | "
            f"{reached:.0%} | {used.get(name, '')} |"
        )


def losses(given: Weights, batch: Batch, precision: str, options: argparse.Namespace) -> None:
    """Print what each loss takes alone, and adds to a step."""
    device = torch.device(options.device)
    calls = {}
    for name, changes in LOSSES.items():
        run = ready(given, options.batch, options.device, {**changes, "precision": precision})
        calls[name, "step"], calls[name, "alone"] = step(run, batch), loss(run, batch)
    for call in calls.values():
        call()
    found = rounds(calls, options.rounds, device)
    print(f"\n| loss, precision {precision} | step, ms | alone, ms | adds, of its step |")
    print("|---|---:|---:|---:|")
    for name in LOSSES:
        more = statistics.median(
            (own - plain) / whole
            for own, plain, whole in zip(
                found[name, "alone"], found["ce", "alone"], found[name, "step"], strict=True
            )
        )
        whole, alone = (1e3 * statistics.median(found[name, one]) for one in ("step", "alone"))
        print(f"| {name} | {whole:.1f} | {alone:.1f} | {more:.1%} |", flush=True)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=321)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--narrow", action="store_true", help="an eighth as wide, for a trial")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--tf32", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = options.tf32
    device = torch.device(options.device)
    name = "an eighth as wide" if options.narrow else "full size"
    print(
        f"{platform.platform()}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"{options.threads} threads\nDeepLab v2 ResNet-101, {name}, {options.size}x{options.size}, "
        f"batch {options.batch}, scales {MSC_SCALES}, {options.rounds} rounds"
    )
    if device.type == "cuda":
        roofline(device)
    print()
    with tempfile.TemporaryDirectory() as folder:
        config = replace(NARROW if options.narrow else DeepLabV2Config(), scales=MSC_SCALES)
        given = open_weights(converted(config, options.size, Path(folder))[2])
    batch = drawn_batch(given, options.size, options.batch)
    ways(given, batch, options)
    torch.compiler.reset()
    for precision in ("32", "bf16"):
        losses(given, batch, precision, options)


if __name__ == "__main__":
    main()

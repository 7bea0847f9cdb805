"""What many processes cost: measured with two on this CPU, computed for many GPUs.

``--measure`` runs a training step of a narrow net on one process and on two (gloo, a thread
each), and each part of what the second adds. Without it the tables of docs/scaling.md are
printed: every number in them follows from the `Assumptions`, which are printed too, and each
can be set, as in ``--mfu 0.2``.

    python benchmarks/scaling.py [--NAME VALUE ...]
    python benchmarks/scaling.py --measure [--processes 2]
"""

import argparse
import os
import platform
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from math import prod

import numpy as np
import torch
from size_cost import network
from torch import distributed, multiprocessing, nn

from deeplab_zoo import DeepLabV2, DeepLabV2Config, LovaszSoftmaxLoss
from deeplab_zoo.converters.deeplab_v2 import parameters

GPUS = (8, 64, 512)
NODE = 8  # GPUs of a node.
SCALES = (1.0, 0.75, 0.5)
DAY = 86400
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What is not measured here; rates in bytes, operations, images or decodes a second."""

    peak: float = 990e12  # bf16 of an H100 SXM, dense, as its maker states.
    mfu: float = 0.3  # Share of it that a training step reaches,
    mfu_inference: float = 0.4  # and that inference reaches.
    nvlink: float = 300e9  # Each GPU to the others of its node; 450e9 stated.
    infiniband: float = 40e9  # Each GPU's own 400 Gb/s adapter; 50e9 stated.
    latency: float = 10e-6  # Of one exchange between neighbours.
    overlap: float = 0.6  # Share of a step that is backward and can hide an all-reduce.
    jitter: float = 0.02  # Standard deviation of a process's step; all wait for the slowest.
    sort: float = 2e9  # Numbers a second that the Lovász losses rank, with what goes with it.
    decode: float = 180  # Pictures a second that a CPU core decodes and crops (data_speed.md).
    picture: float = 100e3  # Bytes of a JPEG.
    mask: float = 5e3  # Bytes of a predicted mask as PNG.
    record: float = 150  # Bytes of memory for an image's id and IoU in the result.
    failures: float = 50000 * 3600  # Seconds between two failures of a GPU or its node's share.
    shard: float = 100e3  # Images that are evaluated as one job.
    weights: float = 176e6  # Bytes of a model's file.
    fetches: float = 3  # Times a month that a user's machines fetch a file, without a cache,
    kept: float = 0.1  # and with one: new machines, new versions.
    rush: float = 5  # The busiest hour against the mean.


def operations(side: int, scales: tuple[float, ...]) -> float:
    """Return the operations of one forward pass of the published net."""
    with torch.device("meta"):
        model = DeepLabV2(DeepLabV2Config(scales=scales)).eval()
        found = 0

        def count(module: nn.Module, _: object, output: torch.Tensor) -> None:
            nonlocal found
            found += 2 * output.numel() * prod(module.weight.shape[1:])

        for part in model.modules():
            if isinstance(part, nn.Conv2d):
                part.register_forward_hook(count)
        model(torch.zeros(1, 3, side, side))
    return float(found)


def training(given: Assumptions, side: int = 321, batch: int = 10) -> Iterator[str]:
    """Train DeepLab v2 at three scales on parts of each batch: a row for each number of GPUs."""
    shapes = parameters(DeepLabV2Config()).items()
    volume = 4 * sum(prod(shape) for name, shape in shapes if "running_" not in name)
    step = 3 * batch * operations(side, SCALES) / (given.peak * given.mfu)
    random = np.random.default_rng(0)
    # Scores of the four outputs, gathered from all by `whole_batch`, and ranked by all.
    cells = [21 * batch * ((side - 1) // shrink + 1) ** 2 for shrink in (8, 8, 16, 8)]
    yield (
        f"{volume / 1e6:.0f} MB of gradients, {side}x{side}, {batch} images a GPU, three scales, "
        f"a step alone {step * 1e3:.1f} ms"
    )
    yield "| GPUs | all-reduce, ms | not hidden, ms | slowest adds, ms | step with ce, ms | images/s | efficiency | Lovász of the whole batch adds, ms | efficiency | of each process's batch | cores to decode |"  # noqa: E501
    yield "|---:|" + "---:|" * 10
    for gpus in GPUS:
        reduce = all_reduce(given, volume, gpus)
        # A bucket of 25 MB of the first layers has nothing left to hide behind.
        exposed = max(reduce - given.overlap * step, reduce * 25e6 / volume)
        slowest = random.normal(step, given.jitter * step, (1000, gpus)).max(1).mean() - step
        plain = step + exposed + slowest
        gathered = 4 * sum(cells) * (gpus - 1)
        link = given.nvlink if gpus <= NODE else given.infiniband
        lovasz = gathered / link + gpus * sum(cells) / given.sort
        alone = sum(cells) / given.sort
        rates = [(step + extra) / (plain + more) for extra, more in
                 ((0, 0), (alone, lovasz), (alone, alone))]  # fmt: skip
        images = gpus * batch / plain
        yield (
            f"| {gpus} | {reduce * 1e3:.1f} | {exposed * 1e3:.1f} | {slowest * 1e3:.1f} | "
            f"{plain * 1e3:.1f} | {images:.0f} | {rates[0]:.0%} | {lovasz * 1e3:.1f} | "
            f"{rates[1]:.0%} | {rates[2]:.0%} | {images / given.decode:.0f} |"
        )


def all_reduce(given: Assumptions, volume: float, gpus: int) -> float:
    """Return the seconds of a sum over all GPUs: within nodes, across, within again.

    Each GPU of a node carries its share of the volume to the same GPU of the other nodes.
    """
    within = min(gpus, NODE)
    nodes = gpus // within
    inner = 2 * (within - 1) * (volume / within / given.nvlink + given.latency)
    share = volume / within
    outer = 2 * (nodes - 1) * (share / nodes / given.infiniband + given.latency)
    return inner + outer


def evaluation(given: Assumptions, images: float = 1e9, side: int = 513) -> Iterator[str]:
    """Judge 10^9 images once, at one scale: a row for each number of GPUs."""
    rate = given.peak * given.mfu_inference / operations(side, (1.0,))
    lost = given.shard / rate / 2 / given.failures
    shards = images / given.shard
    sizes = " or ".join(f"{shards * classes**2 * 8 / 1e9:.2f}" for classes in (21, 182))
    yield (
        f"{images:.0e} images, {side}x{side}, single-scale, {rate:.0f} images/s a GPU; "
        f"{shards:.0f} shards of {given.shard / rate:.0f} s, whose matrices of 21 or 182 classes "
        f"are {sizes} GB; half a shard lost with each failure is {lost:.1e} of the work; masks "
        f"{images * given.mask / 1e12:.0f} TB; every image's IoU in one process "
        f"{images * given.record / 1e9:.0f} GB"
    )
    yield "| GPUs | days | images/s | read, GB/s | cores to decode | a failure every, h |"
    yield "|---:|" + "---:|" * 5
    for gpus in GPUS:
        yield (
            f"| {gpus} | {images / rate / gpus / DAY:.2f} | {gpus * rate:.0f} | "
            f"{gpus * rate * given.picture / 1e9:.1f} | {gpus * rate / given.decode:.0f} | "
            f"{given.failures / gpus / 3600:.0f} |"
        )


def traffic(given: Assumptions) -> Iterator[str]:
    """Say what hosts of weights send in a month: a row for each number of users."""
    yield f"{given.weights / 1e6:.0f} MB a file"
    yield "| users of a file | without a cache, TB | Gb/s in the busiest hour | with one, TB | Gb/s | mirrors of 1 Gb/s |"  # noqa: E501
    yield "|---:|" + "---:|" * 5
    for users in (1e3, 1e5, 1e7):
        sent = [users * times * given.weights for times in (given.fetches, given.kept)]
        rush = [8 * one / (30 * DAY) * given.rush / 1e9 for one in sent]
        yield (
            f"| {users:.0e} | {sent[0] / 1e12:.2f} | {rush[0]:.3f} | {sent[1] / 1e12:.2f} | "
            f"{rush[1]:.3f} | {max(1, -(-rush[1] // 1)):.0f} |"
        )


def median(call: Callable[[], object], rounds: int, clock: Callable[[], float]) -> float:
    """Return the median seconds of a call after a first one; all processes start together."""
    times = []
    for _ in range(rounds + 1):
        if distributed.is_initialized():
            distributed.barrier()
        start = clock()
        call()
        times.append(clock() - start)
    return statistics.median(times[1:])


def step_parts(
    rank: int, world: int, port: int, rounds: int, clock: str, told: dict[str, float]
) -> None:
    """Measure a training step and its parts as one of the processes; the first one tells."""
    torch.set_num_threads(1)
    if world > 1:
        os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(port))
        distributed.init_process_group("gloo", rank=rank, world_size=world)
    model: nn.Module = network(21, full=False)
    images, labels = torch.randn(2, 3, 161, 161) * 60, torch.randint(0, 21, (2, 21, 21))
    entropy, lovasz = nn.CrossEntropyLoss(), LovaszSoftmaxLoss()
    gradients = torch.zeros(sum(one.numel() for one in model.parameters()))
    run = nn.parallel.DistributedDataParallel(model) if world > 1 else model
    leaf = torch.randn(2, 21, 21, 21, requires_grad=True)
    parts: dict[str, Callable[[], object]] = {
        "a step with ce": lambda: entropy(run(images), labels).backward(),
        "a step with Lovász": lambda: lovasz(run(images), labels).backward(),
        "ce alone": lambda: entropy(leaf, labels).backward(),
        "Lovász alone": lambda: lovasz(leaf, labels).backward(),
    }
    if world > 1:
        parts["all-reduce alone"] = lambda: distributed.all_reduce(gradients)
    for name, call in parts.items():
        seconds = median(call, rounds, CLOCKS[clock])
        if rank == 0:
            told[name] = seconds
    told["parameters"] = gradients.numel()
    if world > 1:
        distributed.destroy_process_group()


def measure(processes: int, rounds: int, clock: str) -> None:
    """Print what a step takes on one process and on several with a batch of their own each."""
    found = []
    with multiprocessing.Manager() as manager:
        for world in (1, processes):
            told = manager.dict()
            with socket.socket() as free:
                free.bind(("localhost", 0))
                port = free.getsockname()[1]
            multiprocessing.spawn(step_parts, (world, port, rounds, clock, told), nprocs=world)
            found.append(dict(told))
    print(
        f"{platform.platform()}, torch {torch.__version__}, gloo, one thread a process, "
        f"{found[0]['parameters'] / 1e6:.2f} M parameters, 161x161, 2 images a process, medians "
        f"of {rounds}, {clock} time\n\n"
        f"| | 1 process, ms | {processes} processes, ms |\n|---|---:|---:|"
    )
    for name, several in found[1].items():
        if name != "parameters":
            one = f"{found[0][name] * 1e3:.1f}" if name in found[0] else ""
            print(f"| {name} | {one} | {several * 1e3:.1f} |")
    for kind in ("ce", "Lovász"):
        name = f"a step with {kind}"
        print(f"efficiency with {kind}: {found[0][name] / found[1][name]:.0%}")


def main() -> None:
    """Print the measured table, or the computed ones."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: on a busy machine, without waiting"
    )
    for field in fields(Assumptions):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=float, default=field.default)
    options = parser.parse_args()
    if options.measure:
        measure(options.processes, options.rounds, options.clock)
        return
    given = Assumptions(**{one.name: getattr(options, one.name) for one in fields(Assumptions)})
    print(", ".join(f"{one.name} {getattr(given, one.name):g}" for one in fields(Assumptions)))
    for table in (training(given), evaluation(given), traffic(given)):
        print()
        for number, line in enumerate(table):
            print(line + ("\n" if not number else ""))


if __name__ == "__main__":
    main()

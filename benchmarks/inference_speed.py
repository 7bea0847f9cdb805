"""How fast is a full-size DeepLab v2 at inference, as it is loaded and as it is optimised?

Weights are drawn so that activations stay in range (a fresh initialisation gives denormal
numbers, which cost many times as much). All variants run in one process, in interleaved rounds
whose order turns; times are medians, ratios medians of the rounds' ratios to eager float32.
"Same" is the share of pixels of drawn photos that get eager float32's class.

"Of peak" is the share of what a large matrix product does on this machine, timed in the same
rounds: in float32 on a CPU, in bfloat16 on a GPU. There cuDNN picks its kernels by trial,
convolutions in float32 may use TF32 (torch's default) unless told otherwise, and the best copy
of the card is printed too, for its roofline.

    python benchmarks/inference_speed.py [--sizes 321 513] [--no-compile] [--narrow]
    python benchmarks/inference_speed.py --device cuda --sizes 513 --batches 1 16 [--no-tf32]
    python benchmarks/inference_speed.py --multi-scale ...
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from deeplab_zoo import convert_caffe, load, load_caffe
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config
from deeplab_zoo.converters.write_caffe import deploy_net, filled
from deeplab_zoo.zoo.demo import NARROW, random_blobs, write_net
from deeplab_zoo.zoo.models.inference import prepare
from deeplab_zoo.zoo.models.load import Native
from deeplab_zoo.zoo.models.optimize import folded, optimized, quickest
from deeplab_zoo.zoo.parity.cases import photo

Forward = Callable[[Tensor], Tensor]
BASE = "eager fp32"
PRODUCT = "matrix product"


def variants(
    model: Native, device: torch.device, *, compiled: bool
) -> dict[str, Callable[[], Forward]]:
    """Return how each variant is made, in the table's order."""
    made: dict[str, Callable[[], Forward]] = {
        BASE: lambda: model,
        "folded fp32": lambda: folded(model).to(device),
        "optimised fp32": lambda: optimized(model, device, precision="fp32"),
        "compiled fp32": lambda: optimized(model, device, "compiled", "fp32"),
        "optimised bf16": lambda: optimized(model, device, precision="bf16"),
        "compiled bf16": lambda: optimized(model, device, "compiled", "bf16"),
    }
    return {name: make for name, make in made.items() if compiled or "compiled" not in name}


def opencv(files: tuple[Path, Path], image: Tensor, scores: str, threads: int) -> Forward:
    """Return OpenCV's forward pass of the same files and image."""
    import cv2
    from graph_speed import opencv_engine

    cv2.setNumThreads(threads)
    run = opencv_engine(load_caffe(*files), *files, image.numpy(), scores)
    return lambda _: torch.from_numpy(run())


def converted(config: DeepLabV2Config, size: int, folder: Path) -> tuple[Path, Path, Path]:
    """Write a net with drawn weights as Caffe keeps it, and what it becomes."""
    text, binary, native = (
        folder / name for name in ("net.prototxt", "x.caffemodel", "x.safetensors")
    )
    write_net(filled(deploy_net(config, size, size), random_blobs(config, 0)), text, binary)
    convert_caffe(text, binary, native)
    return text, binary, native


def work(model: nn.Module, image: Tensor) -> float:
    """Return the floating-point operations that the convolutions do for a batch."""
    found = 0.0

    def count(module: nn.Module, _: object, output: Tensor) -> None:
        nonlocal found
        found += 2 * output.numel() * module.weight[0].numel()

    hooks = [
        part.register_forward_hook(count) for part in model.modules() if isinstance(part, nn.Conv2d)
    ]
    model(image)
    for hook in hooks:
        hook.remove()
    return found


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of a call; of ten in a row on a GPU, whose clock starts late."""
    times = 10 if device.type == "cuda" else 1
    wait(device)
    start = time.perf_counter()
    for _ in range(times):
        call()
    wait(device)
    return (time.perf_counter() - start) / times


def wait(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def memory(device: torch.device, *, most: bool = False) -> float:
    """Return the MiB in use: the process's; on a GPU what is allocated, or the most of late."""
    if device.type == "cuda":
        if most:
            return torch.cuda.max_memory_allocated(device) / 2**20
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device) / 2**20
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def product(device: torch.device) -> tuple[Callable[[], object], float]:
    """Return a matrix product at this device's best, and its operations."""
    edge, dtype = (8192, torch.bfloat16) if device.type == "cuda" else (2048, torch.float32)
    a, b = (torch.randn(edge, edge, device=device, dtype=dtype) for _ in range(2))
    return lambda: a @ b, 2.0 * edge**3


def roofline(device: torch.device) -> None:
    """Print a card's best product and copy, and where one bounds the work and where the other."""
    multiply, operations = product(device)
    big = torch.empty(2**28, device=device)
    peak = operations / min(timed(multiply, device) for _ in range(5))
    moved = 2 * big.nbytes / min(timed(big.clone, device) for _ in range(5))
    print(
        f"{torch.cuda.get_device_name(device)}: bf16 product {peak / 1e12:.0f} TFLOP/s, copy "
        f"{moved / 1e12:.2f} TB/s, so work below {peak / moved:.0f} operations a byte is memory's"
    )


def rounds(
    calls: Mapping[str, Callable[[], object]], number: int, device: torch.device
) -> dict[str, list[float]]:
    """Time every call once in each round, in an order that turns."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    for _ in range(number):
        for name in order:
            found[name].append(timed(calls[name], device))
        order = [*order[1:], order[0]][::-1]
    return found


def table(
    model: Native, files: tuple[Path, Path], size: int, batch: int, options: argparse.Namespace
) -> None:
    """Measure all variants at a size and print them."""
    device = torch.device(options.device)
    photos = [prepare(photo(size, size, seed), model.numerics) for seed in range(batch)]
    image = torch.cat(photos).to(device)
    operations = work(model, image)
    if device.type == "cuda":
        roofline(device)
    makes = variants(model, device, compiled=options.compile)
    if device.type == "cpu" and batch == 1 and options.opencv:
        blob = "fc_fusion" if options.multi_scale else "fc1_voc12"
        makes["OpenCV fp32"] = lambda: opencv(files, image, blob, options.threads)
    expected = model(image)
    made, first, used, same = {}, {}, {}, {}
    for name, make in makes.items():
        before = memory(device)
        start = time.perf_counter()
        made[name] = make()
        scores = made[name](image)
        wait(device)
        first[name] = time.perf_counter() - start
        used[name] = memory(device, most=True) - before
        same[name] = float((scores.argmax(1) == expected.argmax(1)).double().mean())
    multiply, multiplied = product(device)
    calls = {PRODUCT: multiply}
    calls |= {name: (lambda run=run: run(image)) for name, run in made.items()}
    for call in calls.values():
        call()
    found = rounds(calls, options.rounds, device)
    print(
        f"\n{size}x{size}, batch {batch}, {operations / batch / 1e9:.0f} GFLOP an image; "
        f"{options.rounds} rounds\n"
    )
    print("| variant | seconds | fastest | images/s | x eager | x OpenCV | of peak | same | made "
          "and first run, s | memory, MiB |")  # fmt: skip
    print("|---|" + "---:|" * 9)
    peaks = [multiplied / seconds for seconds in found.pop(PRODUCT)]
    for name, times in found.items():
        middle = statistics.median(times)
        reached = statistics.median(
            operations / one / peak for one, peak in zip(times, peaks, strict=True)
        )
        faster = [
            statistics.median(a / b for a, b in zip(found[base], times, strict=True))
            if base in found else None
            for base in (BASE, "OpenCV fp32")
        ]  # fmt: skip
        cells = [
            name, f"{middle:.4f}", f"{min(times):.4f}", f"{batch / middle:.2f}",
            *(f"{one:.2f}" if one else "" for one in faster), f"{reached:.0%}",
            f"{same[name]:.2%}", f"{first[name]:.1f}", f"{used[name]:.0f}",
        ]  # fmt: skip
        print(f"| {' | '.join(cells)} |", flush=True)


@torch.inference_mode()
def main() -> None:
    """Print a table for each size and batch."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[321, 513])
    parser.add_argument("--batches", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--multi-scale", action="store_true")
    parser.add_argument("--narrow", action="store_true", help="an eighth as wide, for a trial")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--opencv", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--tf32", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = options.tf32
    scales = (1.0, 0.75, 0.5) if options.multi_scale else (1.0,)
    config = replace(NARROW if options.narrow else DeepLabV2Config(), scales=scales)
    device = torch.device(options.device)
    print(
        f"{platform.platform()}, {options.threads} threads, Python {platform.python_version()}, "
        f"torch {torch.__version__}\n"
        f"AVX-512 BF16 {torch.cpu._is_avx512_bf16_supported()}, "
        f"AMX {torch.cpu._is_amx_tile_supported()}; quickest on {device}: {quickest(device)}; "
        f"{'an eighth as wide' if options.narrow else 'full size'}, scales {scales}"
    )
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as name:
            text, binary, native = converted(config, size, Path(name))
            model = load(native, device=device)
            for batch in options.batches:
                torch.compiler.reset()
                table(model, (text, binary), size, batch, options)


if __name__ == "__main__":
    main()

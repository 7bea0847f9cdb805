"""How fast are the lattice, the DenseCRF loss and DenseCRF inference, beside their peers?

Runs interleaved rounds in one process and prints medians and the medians of the rounds' ratios:
the lattice filter with its construction, beside rloss's C++ filter where its extension module
``bilateralfilter`` can be imported and beside our own filter one channel at a time; inference
beside pydensecrf2 where it is installed; the loss with both gradients; the lattice's error
against the Gaussian. With a GPU, its times stand beside ``torch.sort`` of the lattice's keys.

    OMP_NUM_THREADS=2 python benchmarks/densecrf.py [--rounds 7] [--images photo.jpg ...]
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from deeplab_zoo import DenseCRF, DenseCRFLoss, PermutohedralLattice
from deeplab_zoo.zoo.lattice.features import bilateral_features

try:
    from bilateralfilter import bilateralfilter_batch
except ImportError:
    bilateralfilter_batch = None
try:
    from pydensecrf.densecrf import DenseCRF2D
except ImportError:
    DenseCRF2D = None

Calls = dict[str, Callable[[], object]]

_REST = 0.05  # seconds: OpenMP's threads spin on after a call, in the cores of the next one


def photos(paths: list[Path]) -> Iterator[Tensor]:
    """Yield images (3, height, width) in 0..255 from files, or smooth noise with edges."""
    if paths:
        import cv2

        for path in paths:
            picture = cv2.imread(str(path))
            yield torch.from_numpy(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)).movedim(2, 0).float()
        return
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        coarse = 255 * torch.rand(1, 3, 9, 13, generator=generator)
        regions = F.interpolate(coarse, (334, 500), mode="bicubic")[0].div(40).round() * 40
        yield (regions + 6 * torch.randn(3, 334, 500, generator=generator)).clamp(0, 255).round()


def resized(images: list[Tensor], batch: int, height: int, width: int) -> Tensor:
    """Return a batch of the images, in turn."""
    scaled = [F.interpolate(i[None], (height, width), mode="area").round() for i in images]
    return torch.cat([scaled[i % len(scaled)] for i in range(batch)])


def compare(title: str, calls: Calls, rounds: int, device: torch.device) -> None:
    """Time the calls in turn, print their medians and their ratios to the first."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name in list(calls) if turn % 2 else reversed(calls):
            start = time.perf_counter()
            calls[name]()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn:  # The first round warms up and compiles.
                seconds[name].append(time.perf_counter() - start)
            time.sleep(_REST)
    print(f"\n### {title}\n\n| | seconds, median | least | times the first, median |")
    print("|---|---:|---:|---:|")
    first = seconds[next(iter(calls))]
    for name, taken in seconds.items():
        ratio = statistics.median(other / own for own, other in zip(first, taken, strict=True))
        print(f"| {name} | {statistics.median(taken):.4f} | {min(taken):.4f} | {ratio:.2f} |")


def lattice_filter(images: list[Tensor], rounds: int, device: torch.device) -> None:
    """12 x 21 x 257 x 257, sigma_rgb 15, sigma_xy 50, construction included."""
    batch, classes, size = 12, 21, 257
    pictures = resized(images, batch, size, size)
    values = torch.rand(batch, classes, size, size).softmax(1)
    on_device = pictures.to(device), values.to(device)

    def ours() -> Tensor:
        lattice = PermutohedralLattice(bilateral_features(on_device[0], 50.0, 15.0))
        return lattice.filter(on_device[1].flatten(2).transpose(1, 2))

    def one_channel_at_a_time() -> None:
        lattice = PermutohedralLattice(bilateral_features(on_device[0], 50.0, 15.0))
        for channel in on_device[1].flatten(2).split(1, 1):
            lattice.filter(channel.transpose(1, 2))

    def rloss() -> np.ndarray:
        result = np.zeros(values.numel(), np.float32)
        flat = pictures.numpy().ravel(), values.numpy().ravel()
        bilateralfilter_batch(*flat, result, batch, classes, size, size, 15.0, 50.0)
        return result

    calls: Calls = {"all channels at once": ours, "one channel at a time": one_channel_at_a_time}
    if bilateralfilter_batch:
        calls["rloss, C++"] = rloss
        expected = torch.from_numpy(rloss()).view(batch, classes, -1).transpose(1, 2)
        error = (ours().cpu() - expected).norm() / expected.norm()
        print(f"\nrelative difference of the filter from rloss's: {error:.1e}")
    if device.type == "cuda":
        keys = torch.randint(2**40, (batch * size * size * 6,), device=device)
        calls["torch.sort of as many keys"] = lambda: torch.sort(keys)
    compare("Lattice filter, 12x21x257x257, (50, 15), built and run", calls, rounds, device)


def loss(images: list[Tensor], rounds: int, device: torch.device) -> None:
    """Forward and backward of the DenseCRF loss on the same sizes, from logits."""
    pictures = resized(images, 12, 257, 257).to(device)
    logits = torch.randn(12, 21, 257, 257, device=device, requires_grad=True)

    def step(gradient: str) -> None:
        module = DenseCRFLoss(2e-9, 15.0, 50.0, 1.0, from_logits=True, gradient=gradient)  # type: ignore[arg-type]
        module(pictures, logits).backward()

    calls: Calls = {
        f"gradient={form}": lambda form=form: step(form) for form in ("true", "original")
    }
    compare("DenseCRF loss, forward and backward, 12x21x257x257", calls, rounds, device)
    if device.type == "cuda":
        print(f"\npeak memory: {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB")


def inference(images: list[Tensor], rounds: int, device: torch.device) -> None:
    """500 x 334, 21 classes, 10 iterations."""
    classes, height, width = 21, 334, 500
    noise = np.random.default_rng(0).dirichlet(np.ones(classes), height * width).T
    energies = -np.log(noise.astype(np.float32) + 1e-6)
    for sxy, srgb, weight in ((67.0, 3.0, 4.0), (80.0, 13.0, 10.0)):
        for number, picture in enumerate(images):
            image = resized([picture], 1, height, width).to(device)
            unary = torch.from_numpy(energies).view(1, classes, height, width).to(device)

            def ours(image: Tensor = image, unary: Tensor = unary) -> Tensor:
                crf = DenseCRF(unary)
                crf.add_pairwise_gaussian(3.0, 3.0)
                crf.add_pairwise_bilateral(sxy, srgb, image, weight)  # noqa: B023
                return crf.inference(10)

            def peer(image: Tensor = image) -> np.ndarray:
                crf = DenseCRF2D(width, height, classes)
                crf.setUnaryEnergy(np.ascontiguousarray(energies))
                crf.addPairwiseGaussian(sxy=3, compat=3)
                picture = image[0].cpu().byte().movedim(0, 2).contiguous().numpy()
                crf.addPairwiseBilateral(sxy=sxy, srgb=srgb, rgbim=picture, compat=weight)  # noqa: B023
                return np.array(crf.inference(10))

            calls: Calls = {"DenseCRF": ours}
            if DenseCRF2D:
                calls["pydensecrf2"] = peer
                same = ours()[0].argmax(0).cpu().numpy() == peer().argmax(0).reshape(height, width)
                print(f"\nargmax equal to pydensecrf2's: {same.mean():.4%}")
            compare(f"Inference at ({sxy:g}, {srgb:g}), image {number}", calls, rounds, device)


def errors(images: list[Tensor]) -> None:
    """Against the Gaussian on a small image, where the double sum is feasible."""
    print("\n### Error against the Gaussian, 97x129\n")
    print("| sigma_xy, sigma_rgb | relative L2 error | gain | error without the gain |")
    print("|---|---:|---:|---:|")
    picture = resized(images, 1, 97, 129)
    values = torch.rand(1, 97 * 129, 3)
    for sxy, srgb in ((50.0, 15.0), (67.0, 3.0), (80.0, 13.0), (20.0, 40.0)):
        features = bilateral_features(picture, sxy, srgb)
        exact = PermutohedralLattice(features, backend="exact").filter(values)
        found = PermutohedralLattice(features).filter(values)
        gain = float((found * exact).sum() / exact.square().sum())
        error, rest = ((part - exact).norm() / exact.norm() for part in (found, found / gain))
        print(f"| {sxy:g}, {srgb:g} | {error:.3f} | {gain:.3f} | {rest:.3f} |")


def main() -> None:
    """Run everything that can run here."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--images", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{options.threads} threads"
    print(f"{platform.platform()}, Python {platform.python_version()}, torch {torch.__version__}")
    print(name)
    images = list(photos(options.images))
    errors(images)
    lattice_filter(images, options.rounds, device)
    loss(images, options.rounds, device)
    inference(images, options.rounds, device)


if __name__ == "__main__":
    main()

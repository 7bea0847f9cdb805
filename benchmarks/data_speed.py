"""How many images a second does one core decode and augment, and how many does a network need?

Writes photos of VOC's size from a seed (or takes a dataset), then times one core on each
ancestor's augmentation, beside the usual pipeline of Pillow and torch: decode, resize the whole
picture and mask, mirror, pad, crop, to float, subtract the mean, transpose. Both do the same work
on the same files in interleaved rounds of one process. Then batches through worker processes.

    python benchmarks/data_speed.py [--data ../shared/data/camvid] [--rounds 7] [--need 20 100 400]
"""

import argparse
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image, ImageOps

from deeplab_zoo.converters.numerics import CAFFE_V2
from deeplab_zoo.zoo.data.augment import AUGMENTATIONS, Augmentation
from deeplab_zoo.zoo.data.dataset import Dataset
from deeplab_zoo.zoo.data.layouts import open_dataset
from deeplab_zoo.zoo.data.loader import Samples, loader
from deeplab_zoo.zoo.data.samplers import sampling
from deeplab_zoo.zoo.parity.cases import photo as drawn

CASES = (("caffe", 321), ("drsleep", 321), ("jaccard-segment", 321), ("rloss", 513), ("caffe", 513))


def write_photos(folder: Path, count: int) -> Dataset:
    """Write pictures and masks of 375 x 500 pixels, JPEG quality 95 as VOC's are."""
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for one in range(count):
        photo = drawn(375, 500, one)
        Image.fromarray(photo).save(folder / "images" / f"{one}.jpg", quality=95)
        mask = (photo[..., 0] // 64 * 5).astype(np.uint8)
        Image.fromarray(mask).save(folder / "labels" / f"{one}.png")
    return open_dataset(folder, classes="voc")


def usual(dataset: Dataset, index: int, way: Augmentation) -> tuple[torch.Tensor, torch.Tensor]:
    """Read and augment a sample in the usual way."""
    sample = dataset.samples[index]
    assert sample.label
    photo, mask = Image.open(sample.image).convert("RGB"), Image.open(sample.label)
    if way.mirror and random.random() < 0.5:
        photo = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        mask = mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    width, height = photo.size
    factor = random.choice(way.scales) if way.scales else random.uniform(*way.scale)
    if way.base:
        factor = int(way.base * factor) / min(width, height)
    size = int(width * factor), int(height * factor)
    photo = photo.resize(size, Image.Resampling.BILINEAR)
    mask = mask.resize(size, Image.Resampling.NEAREST)
    pad = max(way.crop - size[0], 0), max(way.crop - size[1], 0)
    if any(pad):
        photo = ImageOps.expand(photo, (0, 0, *pad), fill=(123, 117, 104))
        mask = ImageOps.expand(mask, (0, 0, *pad), fill=255)
    left = random.randint(0, photo.size[0] - way.crop)
    top = random.randint(0, photo.size[1] - way.crop)
    box = (left, top, left + way.crop, top + way.crop)
    photo, mask = photo.crop(box), mask.crop(box)
    if way.blur and random.random() < 0.5:
        photo = photo.filter(PIL.ImageFilter.GaussianBlur(random.random()))
    pixels = np.array(photo).astype(np.float32)[..., ::-1]
    pixels = (pixels - np.array(CAFFE_V2.mean, np.float32)).transpose(2, 0, 1)
    return torch.from_numpy(pixels.copy()), torch.from_numpy(np.array(mask).astype(np.int64))


def seconds(function: Callable[[int], object], count: int) -> float:
    """Return the seconds of one core that each of ``count`` calls takes."""
    start = time.process_time()
    for one in range(count):
        function(one)
    return (time.process_time() - start) / count


def compare(dataset: Dataset, way: Augmentation, rounds: int) -> tuple[float, float, float]:
    """Return images a second, ours and in the usual way, and the median ratio of rounds."""
    samples = Samples(dataset, way, CAFFE_V2, 0)
    count = len(dataset.samples)
    ours, theirs = [], []
    for number in range(rounds):
        calls = [
            (ours, lambda one, at=number * count: samples[at + one, one]),
            (theirs, lambda one: usual(dataset, one, way)),
        ]
        for times, call in calls if number % 2 else calls[::-1]:
            times.append(seconds(call, count))
    ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
    return 1 / statistics.median(ours), 1 / statistics.median(theirs), ratio


def batches_a_second(dataset: Dataset, way: Augmentation, workers: int, batches: int) -> float:
    """Return images a second through the loader, from the first batch on."""
    order = sampling("shuffle", len(dataset.samples))
    stream = iter(loader(dataset, way, CAFFE_V2, order, 10, workers=workers))
    next(stream)
    start = time.perf_counter()
    for _ in islice(stream, batches):
        pass
    return 10 * batches / (time.perf_counter() - start)


def main() -> None:
    """Run the rounds and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", help="a dataset in place of written photos")
    parser.add_argument("--count", type=int, default=40, help="samples a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--need", type=float, nargs="*", default=[20, 100, 400])
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        if options.data:
            dataset = open_dataset(options.data)
            dataset = replace(dataset, samples=dataset.samples[: options.count])
        else:
            dataset = write_photos(Path(name), options.count)
        print(
            f"{platform.platform()}, Python {platform.python_version()}, torch "
            f"{torch.__version__}, Pillow {PIL.__version__}, numpy {np.__version__}"
        )
        print(
            f"{options.data or 'written photos, 375x500'}: {len(dataset.samples)} samples, medians "
            f"of {options.rounds} interleaved rounds; processor time of one core"
        )
        print(
            f"{'augmentation':<16} {'crop':>4} {'images/s':>9} {'usual':>9} {'ratio':>6}  cores for"
        )
        for kind, crop in CASES:
            way = replace(AUGMENTATIONS[kind], crop=crop)
            ours, theirs, ratio = compare(dataset, way, options.rounds)
            cores = ", ".join(f"{need:g}/s: {need / ours:.2f}" for need in options.need)
            print(f"{kind:<16} {crop:>4} {ours:>9.1f} {theirs:>9.1f} {ratio:>6.2f}  {cores}")
        for kind, crop in (CASES[0], CASES[3]):
            way = replace(AUGMENTATIONS[kind], crop=crop)
            rate = batches_a_second(dataset, way, options.workers, 20)
            print(
                f"{kind} {crop}, batches of 10 from {options.workers} workers: {rate:.1f} images/s"
            )


if __name__ == "__main__":
    main()

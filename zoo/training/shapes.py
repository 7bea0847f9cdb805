"""A dataset that needs no download: shapes on a noisy ground, drawn from a seed."""

from pathlib import Path

import numpy as np
from PIL import Image

from ..data.legend import VOID

NAMES = ("background", "disc", "square", "stripe")
COLOURS = ((110, 120, 115), (190, 90, 80), (80, 100, 190), (90, 180, 90))


def write_shapes(
    folder: Path, train: int = 12, val: int = 4, size: tuple[int, int] = (81, 113), seed: int = 0
) -> Path:
    """Write pictures, masks with a void rim, lists and class names in the ``folders`` layout."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in NAMES))
    for split, first, count in (("train", 0, train), ("val", train, val)):
        ids = [f"shape{number:03}" for number in range(first, first + count)]
        (folder / f"{split}.txt").write_text("".join(f"{one}.png\n" for one in ids))
        for number, one in enumerate(ids, first):
            image, label = _drawn(size, np.random.Generator(np.random.PCG64([seed, number])))
            Image.fromarray(image).save(folder / "images" / f"{one}.png")
            Image.fromarray(label).save(folder / "labels" / f"{one}.png")
    return folder


def _drawn(size: tuple[int, int], random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw two of the three shapes: RGB uint8 (height, width, 3) and ids (height, width)."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    label = np.zeros(size, np.uint8)
    reach = min(size)
    for shape in random.permutation(np.arange(1, len(NAMES)))[:2]:
        row, column = random.integers(height), random.integers(width)
        radius = random.uniform(0.15, 0.3) * reach
        across, down = np.abs(x - column), np.abs(y - row)
        distance = (
            np.hypot(across, down), np.maximum(across, down), np.abs(across - down) * 1.5
        )[shape - 1]  # fmt: skip
        label[distance < radius + 1] = VOID
        label[distance < radius] = shape
    shades = np.array(COLOURS, np.float64)[np.where(label == VOID, 0, label)]
    noisy = shades + random.normal(0, 12, (*size, 3)) + random.normal(0, 15, 3)
    return noisy.clip(0, 255).astype(np.uint8), label

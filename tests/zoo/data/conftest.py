"""Small datasets on the disk, written anew for each test."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Put = Callable[..., None]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Write a picture, or a mask if it is given values, under the test's folder."""

    def write(
        name: str, values: np.ndarray | None = None, *, size: tuple[int, int] = (5, 7)
    ) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if values is None:
            random = np.random.default_rng(len(name))
            values = random.integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(values).save(path)

    return write


@pytest.fixture
def put_pair(put: Put) -> Put:
    """Write a picture and a mask with the given classes in its upper rows."""

    def write(image: str, label: str, *classes: int, size: tuple[int, int] = (5, 7)) -> None:
        put(image, size=size)
        ids = np.zeros(size, np.uint8)
        for row, one in enumerate(classes):
            ids[row] = one
        put(label, ids)

    return write


@pytest.fixture
def voc(tmp_path: Path, put_pair: Put) -> Path:
    """A VOC folder of four training and two validation samples, sizes unequal."""
    root = tmp_path / "VOC2012"
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    ids = {"train": ["a1", "a2", "a3", "a4"], "val": ["b1", "b2"], "train_aug": ["a1", "s1"]}
    for split, names in ids.items():
        (lists / f"{split}.txt").write_text("".join(f"{one}\n" for one in names))
    for number, one in enumerate(ids["train"] + ids["val"]):
        shown = (15, 255) if number % 2 else (number + 1,)
        put_pair(
            f"VOC2012/JPEGImages/{one}.jpg",
            f"VOC2012/SegmentationClass/{one}.png",
            *shown,
            size=(5 + number, 7),
        )
    return root

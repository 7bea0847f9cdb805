"""A quick network with the grid of a DeepLab, and a dataset on the disk."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from deeplab_zoo import open_dataset
from deeplab_zoo.converters.numerics import CAFFE_V2, Numerics
from deeplab_zoo.zoo.data.dataset import Dataset

SMALL = replace(CAFFE_V2, test_size=33)


class Toy(nn.Module):
    """Scores of an eighth of the size, k + 1 for 8 k + 1, by one random convolution."""

    def __init__(self, classes: int = 5, numerics: Numerics = SMALL) -> None:
        super().__init__()
        self.numerics = numerics
        self.config = SimpleNamespace(classes=classes)
        self.convolution = nn.Conv2d(3, classes, 9, 8, 4)
        random = torch.Generator().manual_seed(classes)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=random) / 100

    def forward(self, image: Tensor) -> Tensor:
        """Score (batch, 3, h, w)."""
        scores: Tensor = self.convolution(image)
        return scores


Make = Callable[..., Toy]


@pytest.fixture
def toy() -> Make:
    """Make the quick network."""
    return Toy


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Seven photos of unequal sizes whose masks have five classes and void."""
    random = np.random.default_rng(3)
    for folder in ("images", "labels"):
        (tmp_path / "set" / folder).mkdir(parents=True)
    for number in range(7):
        height, width = 19 + 6 * (number // 2), 41 - number // 2
        photo = random.integers(0, 256, (height, width, 3), np.uint8)
        mask = random.integers(0, 5, (height, width), np.uint8)
        mask[: 2 + number] = 255
        mask[8:16, 8:24] = number % 5
        Image.fromarray(photo).save(tmp_path / "set" / "images" / f"p{number}.png")
        Image.fromarray(mask).save(tmp_path / "set" / "labels" / f"p{number}.png")
    return open_dataset(tmp_path / "set", "val", classes=5)

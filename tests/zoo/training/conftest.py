"""A tiny net and a tiny dataset, made once, and runs that take a second."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deeplab_zoo.converters import weights as weights_file
from deeplab_zoo.converters.archive import Origin
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config
from deeplab_zoo.converters.families import of_config
from deeplab_zoo.converters.largefov import LargeFOVConfig
from deeplab_zoo.converters.numerics import TORCH_HALFPIXEL
from deeplab_zoo.converters.weights import Weights
from deeplab_zoo.zoo.training.config import TrainConfig
from deeplab_zoo.zoo.training.shapes import NAMES, write_shapes

CONFIG = DeepLabV2Config(classes=len(NAMES), blocks=(1, 1, 1, 1), stem=6, widths=(4, 5, 6, 7))


def random_weights(config: DeepLabV2Config | LargeFOVConfig, seed: int = 0) -> Weights:
    """Draw weights that keep activations in range; an odd net for every convolution."""
    random = np.random.default_rng(seed)
    state = {}
    for name, shape in of_config(config).parameters(config).items():
        if len(shape) == 4:
            bound = np.sqrt(6 / np.prod(shape[1:])) / (64 if name == "backbone.conv1.weight" else 1)
            values = random.uniform(-bound, bound, shape)
        elif name.endswith(("running_var", "weight")):
            values = random.uniform(0.7, 1.3, shape)
        else:
            values = random.normal(0, 0.1, shape)
        state[name] = values.astype(np.float32)
    return Weights(state, config, TORCH_HALFPIXEL, Origin("pytorch", {"none": "0"}, "a test"))


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A net that takes the shapes, under the profile whose test size is the picture's own."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    weights_file.write(random_weights(CONFIG), path)
    return path


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures to train on and three to judge on."""
    return write_shapes(tmp_path_factory.mktemp("shapes"), 6, 3, size=(49, 65))


@pytest.fixture
def config(shapes: Path) -> Callable[..., TrainConfig]:
    """A config of a few small updates."""

    def make(**changes: Any) -> TrainConfig:
        values: dict[str, Any] = {
            "data": str(shapes), "crop": 49, "steps": 6, "batch_size": 2, "accumulate": 1,
            "lr": 1e-3, "workers": 0, "save_every": 2, "val_every": 0, "log_every": 1,
            "tensorboard": False, "threads": 1, "augmentation": "caffe",
        }  # fmt: skip
        return TrainConfig(**{**values, **changes})

    return make


@pytest.fixture
def make_weights(tmp_path: Path) -> Callable[..., Path]:
    """Write random weights with other sizes."""

    def make(**sizes: Any) -> Path:
        weights_file.write(random_weights(replace(CONFIG, **sizes)), tmp_path / "made.safetensors")
        return tmp_path / "made.safetensors"

    return make


@pytest.fixture
def make_vgg(tmp_path: Path) -> Callable[[], Path]:
    """Write a LargeFOV of random weights."""

    def make() -> Path:
        sizes = LargeFOVConfig(classes=len(NAMES), widths=(4, 5, 6, 7, 8), hidden=9)
        weights_file.write(random_weights(sizes), tmp_path / "vgg.safetensors")
        return tmp_path / "vgg.safetensors"

    return make


@pytest.fixture(scope="session")
def rows() -> Callable[[Path], list[dict[str, str]]]:
    """Read a run's log."""

    def read(folder: Path) -> list[dict[str, str]]:
        with (folder / "log.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    return read


@pytest.fixture(scope="session")
def same() -> Callable[[Path, Path], bool]:
    """Say whether two weights files hold the same values."""

    def compare(one: Path, other: Path) -> bool:
        first, second = weights_file.read(one).state, weights_file.read(other).state
        return all(np.array_equal(first[name], second[name]) for name in first)

    return compare

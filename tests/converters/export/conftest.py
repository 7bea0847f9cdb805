"""Random native weights in a file, to be exported."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deeplab_zoo.converters import weights
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config
from deeplab_zoo.converters.numerics import TF_SLIM, Numerics
from deeplab_zoo.converters.weights import Weights

Store = Callable[..., Path]


@pytest.fixture
def store(
    tmp_path: Path, tiny_config: DeepLabV2Config, random_weights: Callable[..., Weights]
) -> Store:
    """Write random native weights; return the file."""

    def write(
        config: DeepLabV2Config = tiny_config,
        numerics: Numerics = TF_SLIM,
        name: str = "native.safetensors",
        **how: Any,
    ) -> Path:
        weights.write(random_weights(config, numerics), tmp_path / name, **how)
        return tmp_path / name

    return write

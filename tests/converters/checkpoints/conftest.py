"""The variables of a small network."""

from typing import Any

import numpy as np
import pytest

from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config, parameters

from .variables import variable

Arrays = dict[str, np.ndarray[Any, Any]]


@pytest.fixture
def tiny(tiny_config: DeepLabV2Config) -> Arrays:
    """A small network's variables, as DrSleep's program would have saved them."""
    random = np.random.default_rng(7)
    return {
        variable(name, tiny_config.blocks): random.uniform(
            0.5, 1.5, (*shape[2:], *shape[1::-1]) if len(shape) == 4 else shape
        ).astype("f4")
        for name, shape in parameters(tiny_config).items()
    }

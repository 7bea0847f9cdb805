"""Weights to write as other programs would, and the way home."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import deeplab_zoo
from deeplab_zoo.converters import weights
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config
from deeplab_zoo.converters.native import Native
from deeplab_zoo.converters.weights import Weights


@pytest.fixture
def native(tiny_config: DeepLabV2Config, random_weights: Callable[..., Weights]) -> Weights:
    return random_weights(tiny_config)


@pytest.fixture
def convert(tmp_path: Path) -> Callable[..., Native]:
    """Convert to safetensors, read that back, and return the account."""

    def run(path: Path, **how: Any) -> Native:
        out = tmp_path / "out.safetensors"
        native = deeplab_zoo.convert_legacy(path, out, **how)
        assert native is not None
        back = weights.read(out)
        assert back.state.keys() == native.weights.state.keys()
        assert (back.config, back.numerics) == (native.weights.config, native.weights.numerics)
        for name, data in back.state.items():
            assert np.array_equal(data, native.weights.state[name], equal_nan=True)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert digest in back.origin.files.values()
        return native

    return run

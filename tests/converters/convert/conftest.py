"""A net of Caffe's, to be converted or damaged."""

from collections.abc import Callable
from pathlib import Path

import pytest

from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config

Make = Callable[..., tuple[Path, Path]]


@pytest.fixture
def files(make_net: Make, tiny_config: DeepLabV2Config) -> tuple[Path, Path]:
    """A prototxt and its caffemodel."""
    return make_net(tiny_config)

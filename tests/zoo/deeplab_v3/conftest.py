"""The way home of a checkpoint."""

from collections.abc import Callable
from pathlib import Path

import pytest

import deeplab_zoo
from deeplab_zoo.converters.native import Native

Convert = Callable[[Path], Native]


@pytest.fixture
def convert(tmp_path: Path) -> Convert:
    """Convert a checkpoint or a frozen graph to a file of the test's own."""
    return lambda path: deeplab_zoo.convert_tensorflow(path, tmp_path / "x.safetensors")

from collections.abc import Callable
from pathlib import Path

import pytest

from deeplab_zoo.proto import caffemodel, prototxt

DATA = "input: 'data' input_shape { dim: 1 dim: 3 dim: 9 dim: 8 } "


@pytest.fixture
def spell(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Write a net of few layers, without weights: its prototxt and an empty caffemodel."""

    def write(layers: str, inputs: str = DATA) -> tuple[Path, Path]:
        text, binary = tmp_path / "few.prototxt", tmp_path / "few.caffemodel"
        text.write_text(inputs + layers)
        with binary.open("wb") as file:
            caffemodel.write(prototxt.read(text), file)
        return text, binary

    return write

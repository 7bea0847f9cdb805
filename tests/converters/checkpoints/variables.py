"""A network's variables as DrSleep's program saves them, and what comes of a checkpoint."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from deeplab_zoo.converters import convert
from deeplab_zoo.converters.native import Native, to_native

PARTS = {
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
    ("weight", True): "gamma",
    ("bias", True): "beta",
    ("weight", False): "weights",
    ("bias", False): "biases",
}


def variable(name: str, blocks: tuple[int, ...] = (3, 4, 23, 3)) -> str:
    """TensorFlow's name of one of our parameters, stated apart from the naming table."""
    module, _, parameter = name.rpartition(".")
    norm = ".bn" in module or module.endswith("downsample.1")
    kind = PARTS.get(parameter) or PARTS[parameter, norm]
    if module.startswith("classifier"):
        return f"fc1_voc12_c{module[-1]}/{kind}"
    if found := re.fullmatch(r"backbone\.layer(\d)\.(\d+)\.(.*)", module):
        stage, block, part = int(found[1]), int(found[2]), found[3]
        letter = "abc"[block] if block == 0 or blocks[stage - 1] <= 3 else f"b{block}"
        branch = "1" if part.startswith("down") else f"2{'abc'[int(part[-1]) - 1]}"
        return f"{'bn' if norm else 'res'}{stage + 1}{letter}_branch{branch}/{kind}"
    return f"{'bn_conv1' if norm else 'conv1'}/{kind}"


def native_of(path: Path, *select: str) -> Native:
    return to_native(convert.read_tensorflow(path, select))


def as_saved(data: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Undo the axis order."""
    return np.ascontiguousarray(data.transpose(2, 3, 1, 0) if data.ndim == 4 else data)

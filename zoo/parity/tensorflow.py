"""Real TensorFlow as an independent reference for DrSleep's network.

The checkpoint is read by TensorFlow's own reader and run with plain TensorFlow operations, as
DrSleep's ``deeplab_resnet/model.py`` and ``evaluate_msc.py`` put them together. Blobs have
Caffe's names, which the network took over.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...converters.naming.deeplab_v2 import SCALES
from ...proto.errors import MismatchError, MissingDependencyError
from .engine import Arrays, Engine

EPS = 1e-3  # tf.contrib.slim's default.
RATES = (6, 12, 18, 24)
STAGES = ((2, 1, 1), (3, 2, 1), (4, 1, 2), (5, 1, 4))  # Stage, stride, dilation.
SUFFIXES = {scale: suffix for suffix, scale in SCALES.items()}


def engine(checkpoint: Path, scales: Sequence[float] = (1.0,)) -> Engine:
    """Open a checkpoint of DrSleep's DeepLab-ResNet in TensorFlow.

    Raises
    ------
    MissingDependencyError
        TensorFlow is not installed.
    MismatchError
        TensorFlow cannot read the checkpoint, or it is of another network.

    """
    # Read when TensorFlow is imported: without it sums are in the plain order.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import tensorflow as tf
    except ImportError:
        raise MissingDependencyError(
            "TensorFlow is not installed. Install it: pip install 'deeplab-zoo[tensorflow]'."
        ) from None
    try:
        reader = tf.train.load_checkpoint(str(checkpoint))
    except (ValueError, tf.errors.OpError) as error:
        raise MismatchError(f"{checkpoint}: TensorFlow cannot read it ({error}).") from None
    stored = reader.get_variable_to_shape_map()
    if "res2a_branch1/weights" not in stored:
        raise MismatchError(f"{checkpoint}: no res2a_branch1/weights, expected DrSleep's network.")

    def run(inputs: Arrays) -> Arrays:
        image = tf.constant(inputs["data"].transpose(0, 2, 3, 1))
        blobs: dict[str, Any] = {"data": image}
        try:
            for scale in scales:
                _branch(tf, reader.get_tensor, stored, blobs, image, scale)
            _fuse(tf, blobs, scales)
        except tf.errors.OpError as error:
            size = "x".join(map(str, image.shape[1:3]))
            raise MismatchError(
                f"{checkpoint}: TensorFlow cannot run it at {size} ({error.message})."
            ) from None
        return {
            name: np.ascontiguousarray(value.numpy().transpose(0, 3, 1, 2))
            for name, value in blobs.items()
        }

    return Engine("TensorFlow", str(tf.__version__), run)


def _branch(
    tf: Any,
    read: Callable[[str], Any],
    stored: Mapping[str, Sequence[int]],
    blobs: dict[str, Any],
    image: Any,
    scale: float,
) -> None:
    """Add one scale's blobs."""
    suffix = SUFFIXES[scale]

    def convolution(name: str, x: Any, stride: int = 1, rate: int = 1) -> Any:
        kernel = read(f"{name}/weights")
        return tf.nn.conv2d(x, kernel, stride, "SAME", dilations=rate)

    def normalised(name: str, x: Any, stride: int = 1, rate: int = 1) -> Any:
        norm = f"bn_{name}" if name == "conv1" else f"bn{name.removeprefix('res')}"
        mean, variance, beta, gamma = (
            read(f"{norm}/{kind}") for kind in ("moving_mean", "moving_variance", "beta", "gamma")
        )
        y = convolution(name, x, stride, rate)
        return tf.nn.batch_normalization(y, mean, variance, beta, gamma, EPS)

    def keep(name: str, value: Any) -> Any:
        blobs[f"{name}{suffix}"] = value
        return value

    if scale != 1:
        height, width = (int(size * scale) for size in image.shape[1:3])
        image = keep("data", _resized(tf, image, (height, width)))
    x = keep("conv1", tf.nn.relu(normalised("conv1", image, 2)))
    x = keep("pool1", tf.nn.max_pool2d(x, 3, 2, "SAME"))
    for stage, stride, rate in STAGES:
        for block in _blocks(stored, stage):
            at = f"res{stage}{block}"
            first = block == "a"
            step = stride if first else 1
            shortcut = x
            if first:
                shortcut = keep(f"{at}_branch1", normalised(f"{at}_branch1", x, step))
            y = keep(f"{at}_branch2a", tf.nn.relu(normalised(f"{at}_branch2a", x, step)))
            y = keep(f"{at}_branch2b", tf.nn.relu(normalised(f"{at}_branch2b", y, 1, rate)))
            y = keep(f"{at}_branch2c", normalised(f"{at}_branch2c", y))
            x = keep(at, tf.nn.relu(shortcut + y))
    scores = []
    for index, rate in enumerate(RATES):
        name = f"fc1_voc12_c{index}"
        y = convolution(name, x, rate=rate) + read(f"{name}/biases")
        scores.append(y)
        blobs[f"fc1_voc12{suffix}_c{index}"] = y
    keep("fc1_voc12", tf.add_n(scores))


def _blocks(stored: Mapping[str, Sequence[int]], stage: int) -> list[str]:
    """Return a stage's blocks by their names: a, b, c or a, b1, b2 and on."""
    names = {name.removeprefix(f"res{stage}").partition("_")[0] for name in stored
             if name.startswith(f"res{stage}") and name.endswith("_branch2a/weights")}  # fmt: skip
    return sorted(names, key=lambda name: (name[0], int(name[1:] or 0)))


def _fuse(tf: Any, blobs: dict[str, Any], scales: Sequence[float]) -> None:
    """Add the resized scores, their maximum, and the scores at eight times their size."""
    scores = blobs["fc1_voc12"]
    size = [int(n) for n in scores.shape[1:3]]
    parts = [scores]
    for scale in scales:
        if scale != 1:
            name = f"fc1_voc12{SUFFIXES[scale]}"
            parts.append(_resized(tf, blobs[name], size))
            blobs[f"{name}_interp"] = parts[-1]
    if len(parts) > 1:
        scores = blobs["fc_fusion"] = tf.reduce_max(tf.stack(parts), axis=0)
    blobs["fc1_interp"] = _resized(tf, scores, [8 * (n - 1) + 1 for n in size])


def _resized(tf: Any, x: Any, size: Sequence[int]) -> Any:
    """Resize as TensorFlow 1 did: source = target * in / out."""
    return tf.raw_ops.ResizeBilinear(images=x, size=size)

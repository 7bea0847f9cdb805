"""What fills weights that no file gives: Caffe's fillers, from a seeded generator."""

import math

import numpy as np

from ...proto.caffe_pb2 import FillerParameter
from ...proto.errors import FormatError
from ..archive import Float32
from .registry import Shape


def filled(
    filler: FillerParameter, shape: Shape, random: np.random.Generator, place: str
) -> Float32:
    """Return an array as Caffe's filler of this name would make it.

    Raises
    ------
    FormatError
        A filler that is not known, or that cannot fill this shape.

    """
    match filler.type:
        case "constant":
            return np.full(shape, filler.value, np.float32)
        case "uniform":
            return _uniform(random, filler.min, filler.max, shape)
        case "gaussian":
            return _gaussian(filler, shape, random)
        case "positive_unitball":
            rows = random.random(shape, np.float32).reshape(shape[0] if shape else 1, -1)
            rows /= rows.sum(1, keepdims=True)
            return rows.reshape(shape)
        case "xavier":
            bound = math.sqrt(3 / _fan(filler, shape))
            return _uniform(random, -bound, bound, shape)
        case "msra":
            normal: Float32 = random.standard_normal(shape, np.float32)
            normal *= np.float32(math.sqrt(2 / _fan(filler, shape)))
            return normal
        case "bilinear":
            return _bilinear(shape, place)
    raise FormatError(
        f"{place}: filler {filler.type!r}, expected constant, uniform, gaussian, "
        "positive_unitball, xavier, msra or bilinear."
    )


def _uniform(random: np.random.Generator, low: float, high: float, shape: Shape) -> Float32:
    values: Float32 = random.random(shape, np.float32)
    values *= np.float32(high - low)
    values += np.float32(low)
    return values


def _gaussian(filler: FillerParameter, shape: Shape, random: np.random.Generator) -> Float32:
    values: Float32 = random.standard_normal(shape, np.float32)
    values *= np.float32(filler.std)
    values += np.float32(filler.mean)
    if filler.sparse >= 0:  # So many inputs of each output are not zero, on the average.
        share = filler.sparse / (shape[0] if shape else 1)
        values *= random.random(shape) < share
    return values


def _fan(filler: FillerParameter, shape: Shape) -> float:
    """Return how many inputs a number has, or outputs, or their mean."""
    count = math.prod(shape)
    inputs = count / (shape[0] if shape else 1)
    outputs = count / (shape[1] if len(shape) > 1 else 1)
    norm = FillerParameter.VarianceNorm.Name(filler.variance_norm)
    return {"FAN_IN": inputs, "FAN_OUT": outputs, "AVERAGE": (inputs + outputs) / 2}[norm]


def _bilinear(shape: Shape, place: str) -> Float32:
    """Return the kernel of an upsampling by half its size, in every channel."""
    if len(shape) != 4 or shape[2] != shape[3]:
        raise FormatError(
            f"{place}: a bilinear filler for shape {list(shape)}, expected four sizes and a "
            "square kernel."
        )
    factor = (shape[3] + 1) // 2
    centre = (2 * factor - 1 - factor % 2) / (2 * factor)
    ramp = 1 - np.abs(np.arange(shape[3]) / factor - centre)
    return np.broadcast_to(np.outer(ramp, ramp), shape).astype(np.float32)

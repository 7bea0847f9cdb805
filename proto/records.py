"""What a Caffe file becomes, whichever of its formats it was: `Net`, `Layer`, `Blob`."""

from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .caffe_pb2 import LayerParameter
from .errors import FormatError

Array = NDArray[np.generic]

LARGEST_COUNT = 2**31 - 1  # Caffe counts a blob's elements in an int.
LARGEST_RANK = 32  # Caffe's kMaxBlobAxes.


@dataclass(frozen=True, slots=True)
class Blob:
    """One parameter array of a layer, float32 or float64, as the file holds it.

    ``data`` may be a read-only, unaligned view of the mapped file.
    """

    shape: tuple[int, ...]
    data: Array


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer in today's (V2) terms.

    ``params`` is the layer's whole message without its blobs; read defaults from it too
    (``layer.params.pooling_param.stride``). ``line`` is where a text file has the layer.
    """

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    params: LayerParameter = field(repr=False, hash=False)
    blobs: tuple[Blob, ...] = ()
    line: int | None = None

    @property
    def place(self) -> str:
        """The layer's name for a message, with its line where there is one."""
        where = f" (line {self.line})" if self.line else ""
        return f"layer {self.name!r}{where}"


@dataclass(frozen=True, slots=True)
class Net:
    """A network: layers in file order, inputs as layers of type ``Input``.

    ``unknown`` lists the fields of the file that are not in ``caffe.proto``; they were
    not read. A reader called with ``strict`` raises instead. ``has_graph`` is false for
    a weights file that stores no connections (Caffe's HDF5 snapshot). ``stages`` are those
    that the file itself sets (``state {}``); its phase and level never count in Caffe.
    """

    name: str
    layers: tuple[Layer, ...]
    unknown: tuple[str, ...] = ()
    has_graph: bool = True
    stages: tuple[str, ...] = ()


def shaped(data: NDArray[Any], shape: tuple[int, ...], place: str) -> Blob:
    """Give flat ``data`` its shape, or raise `FormatError` where the two disagree.

    Sizes are compared as Python integers, so nothing is allocated for absurd ones.
    """
    if any(not 0 <= size <= LARGEST_COUNT for size in shape) or len(shape) > LARGEST_RANK:
        raise FormatError(
            f"{place}: shape {list(shape)}, expected at most {LARGEST_RANK} sizes of 0 to "
            f"{LARGEST_COUNT}"
        )
    count = prod(shape)
    if count > LARGEST_COUNT:
        raise FormatError(
            f"{place}: shape {list(shape)} asks for {count} numbers, Caffe's limit is "
            f"{LARGEST_COUNT}"
        )
    if count != data.size:
        raise FormatError(f"{place}: {data.size} numbers stored, shape {list(shape)} needs {count}")
    return Blob(shape, data.reshape(shape))

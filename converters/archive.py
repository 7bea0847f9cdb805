"""The intermediate between any source format and a state dict: named arrays of known role.

Whatever the source, an archive's arrays are float32 and in PyTorch's axis order. They may be
views of the source, transposed ones too; the files written from them are C-ordered. Layer
names are still the source's; `rename` brings them home. `hdf5` keeps an archive on disk.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from ..proto.records import Net
from .numerics import Numerics

Float32 = NDArray[np.float32]


STRIP = 64


def contiguous(data: Float32) -> Float32:
    """Return C-ordered, little-endian data; a transposed view is copied strip by strip.

    A strip of the second axis keeps to the processor's cache what TensorFlow's axis order
    would scatter: twice as fast as one copy.
    """
    if data.flags.c_contiguous or data.ndim < 2:
        return np.asarray(data, "<f4", order="C")  # A single number stays without dimensions.
    out = np.empty(data.shape, "<f4")
    for at in range(0, data.shape[1], STRIP):
        out[:, at : at + STRIP] = data[:, at : at + STRIP]
    return out


def single(data: NDArray[np.generic]) -> Float32:
    """Return numbers as float32; those beyond it become infinite, which `non_finite` notes."""
    with np.errstate(over="ignore"):
        return np.asarray(data, np.float32)


class Role(Enum):
    """What an array is to its layer.

    The last three are batch normalisation as Caffe stores it (sums and what to divide them
    by), kept beside the statistics so that the way back is exact to the bit.
    """

    WEIGHT = "weight"
    BIAS = "bias"
    GAMMA = "gamma"
    BETA = "beta"
    MEAN = "mean"
    VARIANCE = "variance"
    MEAN_SUM = "mean_sum"
    VARIANCE_SUM = "variance_sum"
    FACTOR = "factor"


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """One array with where it came from and what was done to it.

    ``sources`` names every place of the source that holds it (``layer[index]``): more than
    one where branches share a parameter. ``transform`` is ``none`` for a plain copy.
    """

    layer: str
    role: Role
    data: Float32 = field(repr=False)
    sources: tuple[str, ...]
    source_dtype: str = "float32"
    transform: str = "none"

    @property
    def name(self) -> str:
        """Layer and role, as messages and the file spell it."""
        return f"{self.layer}/{self.role.value}"


@dataclass(frozen=True, slots=True)
class Origin:
    """Which files an archive was made of, by which program.

    ``files`` maps a file's name (no folder) to its sha256.
    """

    framework: str
    files: Mapping[str, str]
    tool: str


def tool() -> str:
    """Name this program and its version."""
    return f"deeplab-zoo {version('deeplab-zoo')}"


@dataclass(frozen=True, slots=True)
class Archive:
    """Everything known of a source: arrays, graph, conventions, provenance.

    ``numerics`` is None where the conventions are not known; no model comes of that.
    ``graph`` is the source's network, None where the source has none; ``settings`` is what
    neither it nor shapes tell of the model then (``scales``, ``rates``).
    ``notes`` is what a user should know of the reading (layers passed over, non-finite
    values), ``dropped`` what was left in the source and by which rule; neither is stored.
    """

    origin: Origin
    numerics: Numerics | None
    graph: Net | None
    tensors: tuple[Tensor, ...]
    settings: Mapping[str, tuple[float, ...] | str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    dropped: tuple[tuple[str, str], ...] = ()

"""Do two files hold the same weights, whatever their formats?

This is how a download without a published checksum is corroborated: by an independent
conversion of the same weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import dropwhile
from pathlib import Path

import numpy as np

from ..proto import snapshot
from ..proto.errors import FormatError, MismatchError
from ..proto.records import Net
from . import caffe, caffe_graph, convert, families, graph_file, legacy, weights
from .archive import Archive, Float32, Origin, tool
from .kinds import Kind, kind_of
from .native import to_native
from .numerics import CAFFE_V2

UNRECORDED = "not recorded"


@dataclass(frozen=True, slots=True)
class Difference:
    """One tensor that is not equal to the bit in both files.

    ``max_abs`` is the largest absolute difference; None where only one file has the tensor,
    or the shapes differ, and ``reason`` says which.
    """

    name: str
    max_abs: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Agreement:
    """How two files compare: tensors in either, those that differ, and the profiles' names."""

    tensors: int
    differences: tuple[Difference, ...]
    numerics: tuple[str, str]

    @property
    def equal(self) -> bool:
        """Whether every tensor is in both files and equal to the bit."""
        return not self.differences


def compare(one: str | Path, other: str | Path) -> Agreement:
    """Compare two weights files of any formats we read, matched by their canonical names.

    Conventions (numerics profiles) are reported, where they are told, but do not make contents
    differ.

    Raises
    ------
    ZooError
        A file cannot be read, or is not a DeepLab v2.

    """
    paths = Path(one), Path(other)
    if any(graph_file.fields_of(path) is not None for path in paths):
        return _agreement(_blobs(paths[0]), _blobs(paths[1]), ("as the graph", "as the graph"))
    (first, theirs), (second, others) = map(open_any, paths)
    return _agreement(first, second, (theirs, others))


def _agreement(
    first: Mapping[str, Float32], second: Mapping[str, Float32], numerics: tuple[str, str]
) -> Agreement:
    names = list(dict.fromkeys([*first, *second]))
    found = [difference(name, first.get(name), second.get(name)) for name in names]
    return Agreement(len(names), tuple(one for one in found if one is not None), numerics)


def _blobs(path: Path) -> Mapping[str, Float32]:
    """Read a graph's blobs, or a Caffe file's to hold beside them."""
    kind = kind_of(path)
    if kind in (Kind.CAFFEMODEL, Kind.SNAPSHOT):
        found = graph_file.read_weights(path)
    elif graph_file.fields_of(path) is not None:
        found = graph_file.read(path).weights
    else:
        raise MismatchError(
            f"{path}: is a {kind.value}; a graph is compared with a graph or with Caffe's own file."
        )
    # Old files pad every blob's shape to four sizes with ones at its begin.
    return {
        name: data.reshape([*dropwhile(lambda size: size == 1, data.shape)])
        for name, data in graph_file.blobs(found.layers).items()
    }


def open_any(path: Path) -> tuple[Mapping[str, Float32], str]:
    """Read the state of any file or checkpoint that we convert, and the name of its profile.

    A graph or a profile that the file does not tell is assumed: neither changes a value.
    """
    silent = _is_silent(path)
    try:
        archive = legacy.read(path, CAFFE_V2.name) if silent else _archive(path)
        found = to_native(archive).weights
    except MismatchError as error:  # Which of the two files?
        place = "" if str(path) in str(error) else f"{path}: "
        raise MismatchError(f"{place}{error}") from None
    return found.state, UNRECORDED if silent else found.numerics.name


def _is_silent(path: Path) -> bool:
    """Tell a state dict that records no profile, in a layout that tells none either."""
    if kind_of(path) not in (Kind.PTH, Kind.SAFETENSORS):
        return False
    named, described = weights.read_named(path)
    known = families.of_state(named)
    return not described and known is not None and legacy.habit(known[1]).numerics is None


def _archive(path: Path) -> Archive:
    match kind_of(path):
        case Kind.CHECKPOINT | Kind.FROZEN:
            return convert.read_tensorflow(path)
        case Kind.CAFFEMODEL:
            return replace(convert.read_caffe(None, path, strict=False), graph=None)
        case Kind.SNAPSHOT:
            return _published(snapshot.read(path), path)
        case Kind.PROTOTXT:
            raise FormatError(f"{path}: is a prototxt, expected a file of weights.")
    return legacy.read(path)


def _published(stored: Net, path: Path) -> Archive:
    """Give weights without a graph the published network's."""
    known = families.of_layers(layer.name for layer in stored.layers)
    family = known[0] if known else families.DEEPLAB_V2
    if family.caffe is None:
        raise MismatchError(f"{path}: Caffe's HDF5 weights of {family.title}, which it never had.")
    shapes = {
        f"{found[0]}.weight": layer.blobs[0].shape
        for layer in stored.layers
        if layer.blobs and (found := family.naming.to_canonical("caffe", layer.name))
    }
    net, notes = caffe_graph.with_weights(
        family.caffe.deploy(family.infer(shapes), 321, 321), stored, reset=lambda _: False
    )
    tensors, _ = caffe.tensors(net)
    return Archive(Origin("caffe", {path.name: ""}, tool()), CAFFE_V2, None, tensors, notes=notes)


def difference(name: str, one: Float32 | None, other: Float32 | None) -> Difference | None:
    """Compare one tensor of two files; None where both have it, equal to the bit."""
    if one is None or other is None:
        return Difference(name, None, f"only in the {'second' if one is None else 'first'} file")
    if one.shape != other.shape:
        return Difference(name, None, f"shape {list(one.shape)} against {list(other.shape)}")
    differ = one.view(np.uint32) != other.view(np.uint32)
    if not differ.any():
        return None
    with np.errstate(invalid="ignore"):  # A signalling NaN.
        apart = np.subtract(one[differ], other[differ], dtype=np.float64)
    return Difference(name, float(np.max(np.abs(apart))), "values differ")

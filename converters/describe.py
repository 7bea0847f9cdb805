"""What is in a file: any format we read, without converting it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..proto.errors import FormatError
from ..proto.records import Array, Net
from ..proto.source import head, sniff, wrong_kind

READABLE = "a prototxt, caffemodel, .caffemodel.h5, archive, .safetensors or .pth"


@dataclass(frozen=True, slots=True)
class Row:
    """One array of a file, with its statistics over the finite values."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    minimum: float
    maximum: float
    mean: float
    std: float
    non_finite: int


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One layer of a file that holds a graph."""

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    line: int | None


@dataclass(frozen=True, slots=True)
class Description:
    """A file in words and numbers.

    ``kind`` is the format, ``content`` what it probably is, ``facts`` what it says of itself.
    """

    path: Path
    bytes: int
    sha256: str
    kind: str
    content: str
    facts: Mapping[str, str]
    layers: tuple[LayerRow, ...]
    tensors: tuple[Row, ...]
    notes: tuple[str, ...]


def describe(path: Path) -> Description:
    """Read a file of any format we know and describe it.

    Raises
    ------
    ZooError
        The file is missing, damaged, or of no known format.

    """
    from .files import sha256

    kind = sniff(head(path))
    facts: dict[str, str] = {}
    layers: tuple[LayerRow, ...] = ()
    notes: tuple[str, ...] = ()
    arrays: Iterable[tuple[str, Array]] = ()
    if kind == "text":
        from ..proto import prototxt

        net = prototxt.read(path, strict=False)
        kind, layers, notes = "Caffe prototxt", tuple(_layer_rows(net)), net.unknown
        content = _content(layer.name for layer in net.layers)
    elif kind == "binary":
        from ..proto import caffemodel

        net = caffemodel.read(path)
        kind, layers, notes = "Caffe caffemodel", tuple(_layer_rows(net)), net.unknown
        arrays = _blobs(net)
        content = _content(layer.name for layer in net.layers)
    elif kind == "an HDF5 file":
        kind, content, facts, layers, arrays = _describe_hdf5(path)
    elif kind in ("a safetensors file", "a zip archive (PyTorch's .pth is one)", "a pickle"):
        kind, content, facts, arrays = _describe_state(path)
    else:
        raise FormatError(wrong_kind(path, kind, READABLE))
    rows = tuple(_row(name, data) for name, data in arrays)
    return Description(
        path, path.stat().st_size, sha256(path), kind, content, facts, layers, rows, notes
    )


def _describe_hdf5(
    path: Path,
) -> tuple[str, str, dict[str, str], tuple[LayerRow, ...], Iterable[tuple[str, Array]]]:
    from . import hdf5

    if not hdf5.is_archive(path):
        from ..proto import snapshot

        net = snapshot.read(path)
        content = _content(layer.name for layer in net.layers)
        return "Caffe HDF5 weights", content, {}, (), _blobs(net)
    archive = hdf5.read(path)
    facts = {
        "made by": archive.origin.tool,
        "numerics": archive.numerics.name,
        **{f"source {name}": digest for name, digest in archive.origin.files.items()},
    }
    layers = tuple(_layer_rows(archive.graph)) if archive.graph else ()
    arrays = ((tensor.name, tensor.data) for tensor in archive.tensors)
    content = _content(tensor.layer for tensor in archive.tensors)
    return "deeplab-zoo archive", content, facts, layers, arrays


def _describe_state(
    path: Path,
) -> tuple[str, str, dict[str, str], Iterable[tuple[str, Array]]]:
    from . import weights
    from .naming.deeplab_v2 import layout_of

    kind = "safetensors weights" if path.suffix == ".safetensors" else "PyTorch state dict"
    named, described = weights.read_named(path)
    layout = layout_of(list(named))
    content = f"DeepLab v2 in the {layout} layout" if layout else "unknown names"
    facts = {}
    if described:
        found = weights.read(path)
        facts = {
            "numerics": found.numerics.name,
            "config": str(found.config),
            "made by": found.origin.tool,
            **{f"source {name}": digest for name, digest in found.origin.files.items()},
        }
    return kind, content, facts, named.items()


def _content(layers: Iterable[str]) -> str:
    from .naming.deeplab_v2 import to_canonical

    known = [found for name in layers if (found := to_canonical("caffe", name))]
    if not known:
        return "no network that deeplab-zoo has a naming table for"
    scales = {values.get("scale") for _, values in known}
    form = "multi-scale" if len(scales) > 1 else "single-scale"
    head_found = any(module.startswith("classifier") for module, _ in known)
    return f"DeepLab v2 ResNet, {form}" + ("" if head_found else ", without a classifier")


def _layer_rows(net: Net) -> Iterator[LayerRow]:
    for layer in net.layers:
        yield LayerRow(layer.name, layer.type, layer.bottoms, layer.tops, layer.line)


def _blobs(net: Net) -> Iterator[tuple[str, Array]]:
    for layer in net.layers:
        for index, blob in enumerate(layer.blobs):
            yield f"{layer.name}[{index}]", blob.data


def _row(name: str, data: Any) -> Row:
    values = np.asarray(data)
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if not finite.size:
        nan = float("nan")
        return Row(name, values.shape, str(values.dtype), nan, nan, nan, nan, values.size)
    return Row(
        name,
        values.shape,
        str(values.dtype),
        float(finite.min()),
        float(finite.max()),
        float(finite.mean(dtype=np.float64)),
        float(finite.std(dtype=np.float64)),
        values.size - finite.size,
    )

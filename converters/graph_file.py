"""Any Caffe net in one ``.safetensors``: its blobs, and its prototxt in the header.

What a `Graph` is made of, for nets without a native model. Tensors are named as `inspect`
names a caffemodel's blobs, ``conv1[0]``, and hold what the file held. Nothing here needs torch.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..proto import caffemodel as caffemodel_format
from ..proto import prototxt as prototxt_format
from ..proto import snapshot
from ..proto.errors import FormatError, MismatchError
from ..proto.records import Blob, Layer, Net
from ..proto.source import head, sniff
from . import weights
from .archive import Float32, Origin, tool
from .caffe_graph import select
from .files import replacing, sha256
from .kinds import check_command

FAMILY = "graph"
VERSION = 1
PHASE = "TEST"
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class GraphFile:
    """A net in its TEST phase, its weights by layer name, and shapes in place of the net's."""

    net: Net
    weights: Net
    shapes: Mapping[str, Shape]
    origin: Origin


def of_caffe(prototxt: Path | None, caffemodel: Path, *, strict: bool = True) -> GraphFile:
    """Read Caffe's own files; without a prototxt, the graph that the weights file carries."""
    stored = read_weights(caffemodel)
    if prototxt is not None:
        net = prototxt_format.read(prototxt, strict=strict)
    elif stored.has_graph:
        net = replace(stored, layers=tuple(replace(one, blobs=()) for one in stored.layers))
    else:
        raise MismatchError(
            f"{caffemodel}: holds no graph (Caffe's HDF5 weights never do). Give the prototxt too."
        )
    files = {path.name: sha256(path) for path in (prototxt, caffemodel) if path}
    return GraphFile(select(net, PHASE), stored, {}, Origin("caffe", files, tool()))


def read_weights(path: Path) -> Net:
    """Read Caffe's weights, binary or HDF5."""
    check_command(path, "convert caffe")
    if path.is_file() and sniff(head(path)) == "an HDF5 file":
        return snapshot.read(path)
    return caffemodel_format.read(path)


def write(graph: GraphFile, path: Path) -> None:
    """Write the net's own blobs and its text; equal nets give equal files."""
    fields = {
        "version": VERSION,
        "family": FAMILY,
        "prototxt": prototxt_format.format_net(graph.net),
        "shapes": {name: list(shape) for name, shape in graph.shapes.items()},
        "origin": {**asdict(graph.origin), "files": dict(graph.origin.files)},
    }
    named = {layer.name for layer in graph.net.layers}
    own = [layer for layer in graph.weights.layers if layer.name in named]
    # Of a blob that the prototxt spells out the file's value counts, as in Caffe.
    state = blobs((*graph.net.layers, *own))
    metadata = {"format": "pt", weights.KEY: json.dumps(fields, sort_keys=True)}
    with replacing(path) as temporary, temporary.open("wb") as file:
        weights.write_safetensors(state, metadata, file)


def blobs(layers: tuple[Layer, ...]) -> dict[str, Float32]:
    """Return layers' blobs by name and number, in single precision."""
    return {
        f"{layer.name}[{index}]": np.asarray(blob.data, np.float32)
        for layer in layers
        for index, blob in enumerate(layer.blobs)
    }


def fields_of(path: Path) -> Mapping[str, Any] | None:
    """Return what a file of this format says of itself, None for any other file."""
    if not path.is_file() or sniff(head(path)) != "a safetensors file":
        return None
    described = weights.read_header(path)
    try:
        fields = json.loads(described) if described else {}
    except ValueError as error:
        raise _damaged(path, error) from None
    return fields if isinstance(fields, dict) and fields.get("family") == FAMILY else None


def read(path: Path) -> GraphFile:
    """Read what `write` wrote.

    Raises
    ------
    FormatError
        The file is damaged, or of a version that is not known.

    """
    fields = fields_of(path) or {}
    if fields.get("version") != VERSION:
        raise FormatError(
            f"{path}: version {fields.get('version')!r} of a graph file, expected {VERSION}. "
            "Is it from a newer deeplab-zoo?"
        )
    try:
        net = prototxt_format.parse_net(fields["prototxt"], f"{path} (its prototxt)")
        shapes = {name: tuple(map(int, shape)) for name, shape in fields["shapes"].items()}
        origin = Origin(**fields["origin"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from None
    named, _ = weights.read_named(path)
    held: dict[str, dict[int, Blob]] = {}
    for name, data in named.items():
        layer, bracket, index = name.removesuffix("]").rpartition("[")
        if not bracket or not index.isdecimal() or data.dtype != np.float32:
            raise FormatError(f"{path}: {name} ({data.dtype}), expected float32 as layer[index].")
        held.setdefault(layer, {})[int(index)] = Blob(data.shape, data)
    layers = tuple(
        Layer(one.name, one.type, one.bottoms, one.tops, one.params, _in_order(held.pop(one.name)))
        for one in net.layers
        if one.name in held
    )
    if held:
        raise FormatError(f"{path}: blobs of {sorted(held)[:5]}, which its prototxt does not have.")
    stored = Net(net.name, layers, has_graph=False)
    return GraphFile(net, stored, shapes, origin)


def _damaged(path: Path, error: Exception) -> FormatError:
    return FormatError(f"{path}: its header's description is damaged ({error!r}).")


def _in_order(found: Mapping[int, Blob]) -> tuple[Blob, ...]:
    return tuple(found[index] for index in sorted(found))

"""What is in a file: any format we read, without converting it.

Each reader imports its format when it is called: a text file must not cost HDF5 or torch.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..proto.errors import MissingShardError
from ..proto.records import Array, Net
from . import families
from .archive import Origin
from .files import sha256
from .kinds import Kind, kind_of
from .naming.families import foreign, looks_like
from .numerics import Numerics

if TYPE_CHECKING:
    from ..proto.checkpoint import Checkpoint

NO_STATISTICS = (float("nan"),) * 4


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

    ``kind`` is the format, ``content`` what it probably is, ``facts`` what it says of itself,
    ``sha256`` the digest of each of its files.
    """

    path: Path
    bytes: int
    sha256: Mapping[str, str]
    kind: str
    content: str
    facts: Mapping[str, str]
    layers: tuple[LayerRow, ...]
    tensors: tuple[Row, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Content:
    """What one format's reader found; `describe` adds what every file has."""

    names: Iterable[str]
    arrays: Iterable[tuple[str, Array]] = ()
    net: Net | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()  # Where it is more than the one.
    scales: Sequence[float | str] = ()  # Where it is told otherwise than by a graph.
    content: str = ""  # Where the file says it.


def describe(path: Path) -> Description:
    """Read a file of any format we know and describe it.

    Raises
    ------
    ZooError
        The file is missing, damaged, or of no known format.

    """
    kind = kind_of(path)
    found = READERS[kind](path)
    rows = tuple(_row(name, data) for name, data in found.arrays)
    layers = tuple(_layer_rows(found.net)) if found.net else ()
    files = found.files or (path,)
    return Description(
        path,
        sum(one.stat().st_size for one in files),
        {one.name: sha256(one) for one in files},
        kind.value,
        found.content or _content(found),
        found.facts,
        layers,
        rows,
        found.notes,
    )


def _of_net(net: Net) -> _Content:
    names = [layer.name for layer in net.layers]
    return _Content(names, _blobs(net), net if net.has_graph else None, notes=net.unknown)


def _prototxt(path: Path) -> _Content:
    from ..proto import prototxt

    return _of_net(prototxt.read(path, strict=False))


def _caffemodel(path: Path) -> _Content:
    from ..proto import caffemodel

    return _of_net(caffemodel.read(path))


def _snapshot(path: Path) -> _Content:
    from ..proto import snapshot

    return _of_net(snapshot.read(path))


def _checkpoint(path: Path) -> _Content:
    from ..proto.checkpoint import open_checkpoint
    from . import tensorflow

    found = open_checkpoint(path)
    facts = {"format": found.format, "files": ", ".join(one.name for one in found.files)}
    names = tensorflow.layers(tensorflow.stored(found))
    return _Content(names, _present(found), None, facts, found.notes, found.files)


def _present(checkpoint: "Checkpoint") -> Iterator[tuple[str, Array]]:
    """Yield the variables but those in a missing shard, which the checkpoint's notes name."""
    for name, variable in checkpoint.items():
        with suppress(MissingShardError):
            yield name, variable.read()


def _frozen(path: Path) -> _Content:
    from ..proto.frozen_graph import open_frozen_graph
    from . import tensorflow

    found = open_frozen_graph(path)
    arrays = ((name, one.read()) for name, one in found.constants.items())
    facts = {"operations": ", ".join(sorted(found.operations))}
    return _Content(tensorflow.layers(found.constants), arrays, None, facts)


def _kaffe(path: Path) -> _Content:
    from ..proto import kaffe

    layers = kaffe.read(path)
    arrays = ((f"{n}/{kind}", data) for n, held in layers.items() for kind, data in held.items())
    return _Content(layers, arrays)


def _deepdish(path: Path) -> _Content:
    from ..proto import deepdish
    from . import tensorflow

    found = deepdish.read(path)
    return _Content(tensorflow.layers(found), found.items())


def _archive(path: Path) -> _Content:
    from . import hdf5

    archive = hdf5.read(path)
    arrays = ((tensor.name, tensor.data) for tensor in archive.tensors)
    facts = _origin_facts(archive.origin, archive.numerics)
    names = [tensor.layer for tensor in archive.tensors]
    if archive.graph is not None:
        names += [layer.name for layer in archive.graph.layers]
    scales = archive.settings.get("scales", ())
    return _Content(names, arrays, archive.graph, facts, scales=scales)


def _state(path: Path) -> _Content:
    from . import graph_file, weights

    if graph_file.fields_of(path) is not None:
        return _graph(path)
    named, described = weights.read_named(path)
    facts: dict[str, str] = {}
    scales: Sequence[float | str] = ()
    if described:
        found = weights.read(path)
        facts = {
            **_origin_facts(found.origin, found.numerics),
            "config": ", ".join(f"{k} {v}" for k, v in found.config.to_json().items()),
        }
        scales = found.config.scales
    names = [*named, *(name.rpartition(".")[0] for name in named)]
    return _Content(names, named.items(), None, facts, scales=scales)


def _graph(path: Path) -> _Content:
    from . import graph_file

    found = graph_file.read(path)
    names = [layer.name for layer in found.net.layers]
    facts = {
        **{f"input {name}": str(list(shape)) for name, shape in found.shapes.items()},
        **_origin_facts(found.origin, None),
    }
    blobs = graph_file.blobs(found.weights.layers)
    content = f"a Caffe net kept as a graph, {found.net.name or 'without a name'}"
    return _Content(names, blobs.items(), found.net, facts, content=content)


READERS: dict[Kind, Callable[[Path], _Content]] = {
    Kind.PROTOTXT: _prototxt,
    Kind.CAFFEMODEL: _caffemodel,
    Kind.SNAPSHOT: _snapshot,
    Kind.CHECKPOINT: _checkpoint,
    Kind.FROZEN: _frozen,
    Kind.KAFFE: _kaffe,
    Kind.DEEPDISH: _deepdish,
    Kind.ARCHIVE: _archive,
    Kind.SAFETENSORS: _state,
    Kind.PTH: _state,
}


def _origin_facts(origin: Origin, numerics: Numerics | None) -> dict[str, str]:
    return {
        "numerics": numerics.name if numerics else "not known",
        "made by": origin.tool,
        **{f"from {name}": digest for name, digest in origin.files.items()},
    }


def _content(found: _Content) -> str:
    """Say what the names look like: layers, modules or variables, as the format has them."""
    names = list(found.names)
    known = families.of_names(names)
    family, scheme = known or (families.DEEPLAB_V2, "")
    ours = [one for name in names if (one := family.naming.to_canonical(scheme, name))]
    head = any(module.startswith(family.naming.head) for module, _ in ours)
    others = foreign if known else looks_like
    if not head and (like := others([*names, *(f"{name}/weights" for name in names)])):
        return like
    if not known:
        return "names that belong to no network we know"
    form = ""
    if len(found.scales) > 1 or len({values.get("scale", "") for _, values in ours}) > 1:
        form = ", multi-scale"
    elif found.scales or found.net:
        form = ", single-scale"
    return f"{family.title}{form}" + ("" if head else ", without a classifier")


def _layer_rows(net: Net) -> Iterator[LayerRow]:
    for layer in net.layers:
        yield LayerRow(layer.name, layer.type, layer.bottoms, layer.tops, layer.line)


def _blobs(net: Net) -> Iterator[tuple[str, Array]]:
    for layer in net.layers:
        for index, blob in enumerate(layer.blobs):
            yield f"{layer.name}[{index}]", blob.data


def _row(name: str, data: Any) -> Row:
    values = np.asarray(data)
    if values.dtype.kind == "O" or values.dtype.kind == "c":
        return Row(
            name,
            values.shape,
            "string" if values.dtype.kind == "O" else str(values.dtype),
            *NO_STATISTICS,
            0,
        )
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if not finite.size:
        return Row(name, values.shape, str(values.dtype), *NO_STATISTICS, values.size)
    with np.errstate(over="ignore", invalid="ignore"):  # Of damaged float64.
        mean, std = finite.mean(dtype=np.float64), finite.std(dtype=np.float64)
    return Row(
        name,
        values.shape,
        str(values.dtype),
        float(finite.min()),
        float(finite.max()),
        float(mean),
        float(std),
        values.size - finite.size,
    )

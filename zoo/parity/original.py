"""The original: source files become the network that they state, as a graph with its weights.

That graph is what an exact answer is computed from, and what a diagnosis varies. It is built
from the source alone, apart from the converted model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...converters import caffe_graph, convert, families, legacy
from ...converters.archive import Archive
from ...converters.caffe import shared_name
from ...converters.export import of_state
from ...converters.graph.build import build
from ...converters.graph.engine import Graph
from ...converters.graph.inputs import SOURCES
from ...converters.graph_file import read_weights
from ...converters.kinds import Kind, kind_of
from ...converters.native import to_native
from ...converters.numerics import CAFFE_V2, Numerics
from ...converters.weights import Weights
from ...proto import prototxt as prototxt_format
from ...proto.caffe_pb2 import LayerParameter
from ...proto.checkpoint import open_checkpoint
from ...proto.errors import MismatchError, UsageError
from ...proto.records import Layer, Net

WRITERS = {"HDF5Output", "MatWrite", "Silence"}  # They end a net for testing, and give nothing.


@dataclass(frozen=True, slots=True, eq=False)
class Original:
    """What the source files state.

    Attributes
    ----------
    kind
        The source's format; None where the model itself had to stand for its source.
    files
        Each source file.
    net
        The network of the TEST phase, in Caffe's terms.
    graph
        The same with weights, ready to run.
    numerics
        The conventions that the source's framework has.
    factors
        What Caffe divides a BatchNorm's sums by, by layer.
    state
        The weights under the native model's names; None where there is no native model.
    checkpoint
        What TensorFlow calls the checkpoint, all of its shards; None for another source.

    """

    kind: Kind | None
    files: tuple[Path, ...]
    net: Net
    graph: Graph
    numerics: Numerics
    factors: Mapping[str, float]
    state: Mapping[str, NDArray[np.float32]] | None
    checkpoint: Path | None = None

    @property
    def kept(self) -> set[str]:
        """The inputs that no layer overwrites."""
        written = {top for step in self.graph.steps for top in step.layer.tops}
        return set(self.graph.inputs) - written

    @property
    def image(self) -> str:
        """The one input, for which a picture is prepared; raise `UsageError` for more."""
        inputs = list(self.graph.inputs)
        if len(inputs) != 1:
            raise UsageError(
                f"the network reads {len(inputs)} inputs ({', '.join(inputs)}), expected one, the "
                "picture. Of a graph that reads several leave out --size and --image."
            )
        return inputs[0]


def open_original(
    files: Sequence[Path], *, scales: tuple[float, ...] = (1.0,), numerics: str | None = None
) -> Original:
    """Read source files: ``[PROTOTXT] CAFFEMODEL``, a checkpoint, or another program's file.

    Parameters
    ----------
    files
        The prototxt, where there is one, comes first.
    scales
        Of the model, where the source does not tell (a checkpoint).
    numerics
        The profile of a source that does not tell it.

    Raises
    ------
    UsageError
        Files that do not make one source.
    ZooError
        A file cannot be read.

    """
    kinds = [kind_of(path) for path in files]
    if kinds[:1] == [Kind.PROTOTXT] and len(files) == 2:
        return _of_caffe(files[0], files[1])
    if kinds in ([Kind.CAFFEMODEL], [Kind.SNAPSHOT]):
        return _of_caffe(None, files[0])
    if len(files) != 1 or kinds == [Kind.PROTOTXT]:
        names = ", ".join(f"{path} ({kind.value})" for path, kind in zip(files, kinds, strict=True))
        raise UsageError(f"source: {names}; expected [PROTOTXT] CAFFEMODEL, or one file.")
    if kinds == [Kind.CHECKPOINT]:
        archive = replace(convert.read_tensorflow(files[0]), settings={"scales": scales})
        found = open_checkpoint(files[0])
        return replace(_of_archive(archive, kinds[0], found.files), checkpoint=found.path)
    return _of_archive(legacy.read(files[0], numerics), kinds[0], (files[0],))


def of_weights(weights: Weights) -> Original:
    """Let native weights stand for their own source."""
    family = families.of_config(weights.config)
    if family.caffe is None:
        raise MismatchError(
            f"{family.title}: Caffe never had it, and parity compares the blobs of Caffe's nets. "
            "`deeplab-zoo compare` holds its weights against their source."
        )
    net = of_state(weights)
    return Original(None, (), net, build(net, net), weights.numerics, {}, None)


def of_graph(graph: Graph) -> Original:
    """Let a graph stand for its own source."""
    layers = tuple(step.layer for step in graph.steps)
    return Original(None, (), Net("graph", layers), graph, CAFFE_V2, {}, None)


def _of_caffe(text: Path | None, binary: Path) -> Original:
    weights = read_weights(binary)
    if text is None and not weights.has_graph:
        raise UsageError(f"{binary}: states no network. Give its prototxt before it.")
    net = _computing(caffe_graph.select(prototxt_format.read(text) if text else weights))
    convolutions = (one.name for one in net.layers if one.type == "Convolution")
    archive = convert.read_caffe(text, binary) if families.of_layers(convolutions) else None
    return Original(
        Kind.CAFFEMODEL,
        (*([text] if text else []), binary),
        net,
        build(net, weights),
        CAFFE_V2,
        _factors(net, weights),
        to_native(archive).weights.state if archive else None,
    )


def _computing(net: Net) -> Net:
    """Leave out layers that write files, and the labels and sizes that then nobody reads."""
    layers = [layer for layer in net.layers if layer.type not in WRITERS]
    read = {bottom for layer in layers for bottom in layer.bottoms}
    given = (_giving(one, read) if one.type in SOURCES else one for one in layers)
    kept = tuple(one for one in given if one.tops or one.type not in SOURCES)
    return replace(net, layers=kept)


def _giving(source: Layer, read: set[str]) -> Layer:
    """Return a layer of inputs with those of its tops alone that are read."""
    kept = [index for index, top in enumerate(source.tops) if top in read]
    params = LayerParameter()
    params.CopyFrom(source.params)
    shapes = source.params.input_param.shape
    if len(shapes) == len(source.tops):
        del params.input_param.shape[:]
        params.input_param.shape.extend(shapes[index] for index in kept)
    return replace(source, tops=tuple(source.tops[index] for index in kept), params=params)


def _of_archive(archive: Archive, kind: Kind, files: Sequence[Path]) -> Original:
    weights = to_native(archive).weights
    stated = of_weights(weights)
    return replace(stated, kind=kind, files=tuple(files), state=weights.state)


def _factors(net: Net, weights: Net) -> dict[str, float]:
    """Return each BatchNorm's factor; a layer that shares another's has that one's."""
    stored = {layer.name: layer for layer in weights.layers}
    owners: dict[str, float] = {}
    found = {}
    for layer in net.layers:
        if layer.type != "BatchNorm":
            continue
        blobs = stored[layer.name].blobs if layer.name in stored else ()
        share = shared_name(layer, 2)
        if len(blobs) == 3:
            found[layer.name] = float(blobs[2].data.reshape(-1)[0])
            owners.setdefault(share, found[layer.name])
        elif share in owners:
            found[layer.name] = owners[share]
    return found

"""A prototxt, with or without weights, becomes a `Graph`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ...proto import prototxt as prototxt_format
from ...proto.caffe_pb2 import LayerParameter, Phase
from ...proto.errors import FormatError, UsageError, listing
from ...proto.records import Layer, Net
from ..caffe_graph import select
from ..graph_file import GraphFile, read_weights
from . import (  # noqa: F401  Each fills the registry.
    convolution,
    elementwise,
    losses,
    normalisation,
    pooling,
    resampling,
    shaping,
)
from .engine import Graph
from .registry import LAYERS, Operation, Shape
from .step import Step, checked_sizes
from .weights import Store
from .wiring import wired


def load_caffe(
    prototxt: str | Path,
    caffemodel: str | Path | None = None,
    phase: str = "TEST",
    *,
    stages: Sequence[str] = (),
    level: int = 0,
    shapes: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
    strict: bool = True,
) -> Graph:
    """Make a module of a Caffe net: ``net({"data": x}, blobs=None) -> {"prob": y}``.

    Parameters
    ----------
    prototxt
        The network's text, of any age.
    caffemodel
        Weights, binary or HDF5; a layer that the file lacks keeps its filler's values, as
        in Caffe, and is in ``notes``. None fills all.
    phase, stages, level
        What the include and exclude rules are held against; stages are names, or one name.
    shapes
        Shapes of inputs, in place of what the file states.
    seed
        For the fillers.
    strict
        Refuse fields that are not known; they may change what the net computes.

    Raises
    ------
    FormatError
        A damaged file; layers that are not supported, all in one message; settings that
        Caffe refuses; blobs that nobody writes.
    MismatchError
        Shapes that do not fit: of blobs, where the inputs' are known, or of weights.

    """
    net = prototxt_format.read(Path(prototxt), strict=strict)
    weights = None if caffemodel is None else read_weights(Path(caffemodel))
    return build(
        net,
        weights,
        phase,
        stages=stages,
        level=level,
        shapes=shapes,
        seed=seed,
        place=str(prototxt),
    )


def of_file(found: GraphFile, place: str) -> Graph:
    """Make a module of a net that was stored with its weights."""
    return build(found.net, found.weights, shapes=found.shapes, place=place)


def build(
    net: Net,
    weights: Net | None = None,
    phase: str = "TEST",
    *,
    stages: Sequence[str] = (),
    level: int = 0,
    shapes: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
    place: str = "the net",
) -> Graph:
    """Make a module of a net that was read; see `load_caffe`."""
    names = Phase.keys()
    if phase not in names:
        raise UsageError(f"phase {phase!r}: expected one of {', '.join(names)}.")
    stages = (stages,) if isinstance(stages, str) else tuple(stages)
    wiring = wired(select(net, phase, stages, level), place)
    inputs = {**wiring.inputs, **{name: tuple(shape) for name, shape in (shapes or {}).items()}}
    if len(inputs) > len(wiring.inputs):
        raise UsageError(f"shapes of {list(shapes or {})}: the inputs are {list(wiring.inputs)}.")
    store = Store(weights, seed)
    known: dict[str, Shape | None] = dict(inputs)
    steps = []
    for layer, operation in _operations(wiring.layers, phase, place):
        step = Step(layer, operation)
        bottoms = [known[bottom] for bottom in layer.bottoms]
        sure = [shape for shape in bottoms if shape is not None]
        whole = len(sure) == len(bottoms)
        # Sizes first: of bottoms that do not fit, no weights are asked.
        tops = checked_sizes(layer, operation, sure) if whole else [None] * len(layer.tops)
        store.give(step, sure if whole else None)
        known.update(zip(layer.tops, tops, strict=True))
        steps.append(step)
    graph = Graph(inputs, steps, wiring.outputs, store.notes())
    return graph.train(phase == "TRAIN")


def _operations(layers: Sequence[Layer], phase: str, place: str) -> list[tuple[Layer, Operation]]:
    """Build each layer's operation; settings that are refused are one error."""
    found: list[tuple[Layer, Operation]] = []
    problems: list[FormatError] = []
    for one in layers:
        layer = _in_phase(one, phase)
        try:
            found.append((layer, LAYERS[layer.type].build(layer)))
        except FormatError as error:
            problems.append(error)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise FormatError(
            f"{place}: {len(problems)} layers that are not supported:\n"
            f"{listing(list(map(str, problems)), limit=1000)}"
        )
    return found


def _in_phase(layer: Layer, phase: str) -> Layer:
    """Tell a layer the net's phase, unless it has one of its own."""
    params = LayerParameter()
    params.CopyFrom(layer.params)
    if not params.HasField("phase"):
        params.phase = Phase.Value(phase)  # type: ignore[assignment]
    return replace(layer, params=params)

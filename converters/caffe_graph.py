"""Caffe's graph: which layers a phase has, which blobs are theirs, what computes what.

Enters: `Net` as read. Leaves: a net with its weights in place, and its computation as nodes
that `topology` can compare.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from ..proto.caffe_pb2 import (
    EltwiseParameter,
    NetStateRule,
    Phase,
    PoolingParameter,
    ScaleParameter,
)
from ..proto.errors import FormatError, MismatchError, listing
from ..proto.records import Blob, Layer, Net
from .caffe import CONVERTERS, scale_targets, shared_name
from .caffe_sizes import has, sized_by_numbers, spatial
from .topology import Table


def with_weights(
    graph: Net, weights: Net, *, reset: Callable[[str], bool]
) -> tuple[Net, tuple[str, ...]]:
    """Put the blobs of a weights file into the graph of a prototxt, by layer name as Caffe.

    ``reset`` tells the layers that may be absent or differ because they start afresh. Returns
    the net, and notes on layers of the file that only repeat shared parameters.

    Raises
    ------
    MismatchError
        Layers that one has and the other lacks, or blobs that do not fit their layer's
        settings: the two files do not belong together; all are listed.

    """
    stored = {layer.name: layer for layer in weights.layers}
    named = {layer.name for layer in graph.layers}
    problems: list[str] = []
    notes: list[str] = []
    copies: list[str] = []
    for layer in weights.layers:
        if not layer.blobs or layer.name in named:
            continue
        if reset(layer.name):
            notes.append(f"{layer.place}: not in the prototxt, left behind with the old head")
            continue
        owner = _owner(layer, weights, named)
        if owner is None:
            problems.append(f"{layer.place}: in the weights, not in the prototxt's TEST phase")
        elif _same_blobs(layer, owner):
            copies.append(layer.name)
        else:
            problems.append(f"{layer.place}: shares {owner.name!r}'s parameters, but differs")
    layers = []
    owned: dict[str, str] = {}
    for layer in graph.layers:
        blobs = stored[layer.name].blobs if layer.name in stored else layer.blobs
        share = shared_name(layer, 0)
        owns = not share or owned.setdefault(share, layer.name) == layer.name
        if reset(layer.name):
            pass  # Whatever there is will be dropped by rule.
        elif blobs:
            problems += _misfits(layer, blobs)
        elif owns and layer.type in CONVERTERS and len(layer.bottoms) < 2:
            problems.append(f"{layer.place}: no weights for it in the file")
        layers.append(replace(layer, blobs=blobs))
    if problems:
        raise MismatchError(
            f"the prototxt and the weights do not belong together, {len(problems)} problems:\n"
            f"{listing(problems)}\n"
            "If only the head differs (another data set, an init file), give --reset-head."
        )
    net = replace(graph, layers=tuple(layers))
    if copies:
        notes.append(
            f"{len(copies)} layers of the weights are not in the prototxt; they are equal copies "
            f"of shared parameters ({copies[0]} to {copies[-1]})"
        )
    return net, tuple(notes)


def _owner(layer: Layer, weights: Net, named: set[str]) -> Layer | None:
    """Return the layer in the prototxt whose parameters ``layer`` shares, by the file."""
    share = shared_name(layer, 0)
    return next(
        (
            other
            for other in weights.layers
            if share and other.name in named and shared_name(other, 0) == share
        ),
        None,
    )


def _same_blobs(one: Layer, other: Layer) -> bool:
    return len(one.blobs) == len(other.blobs) and all(
        np.array_equal(a.data, b.data, equal_nan=True)
        for a, b in zip(one.blobs, other.blobs, strict=True)
    )


def _misfits(layer: Layer, blobs: tuple[Blob, ...]) -> Iterator[str]:
    """Hold blobs against what the layer's settings say of their shapes."""
    for index, wanted in enumerate(_blob_shapes(layer)):
        if index >= len(blobs):
            yield f"{layer.place}: {len(blobs)} blobs in the file, expected {index + 1}"
            return
        shape = blobs[index].shape
        if len(wanted) == 1 and len(shape) == 4:  # Old files have (1, 1, 1, N).
            shape = shape[3:] if shape[:3] == (1, 1, 1) else shape
        if len(shape) != len(wanted) or any(
            size is not None and size != have for size, have in zip(wanted, shape, strict=True)
        ):
            shown = [size if size is not None else "any" for size in wanted]
            yield f"{layer.place}: blob {index} has shape {list(shape)}, expected {shown}"


def _blob_shapes(layer: Layer) -> list[tuple[int | None, ...]]:
    """Return what a convolution's settings say of its blobs' shapes; None is any size."""
    if layer.type != "Convolution":
        return []
    settings = layer.params.convolution_param
    kernel = spatial(settings, "kernel_size", 0, "kernel")
    shapes: list[tuple[int | None, ...]] = [(settings.num_output, None, *kernel)]
    return [*shapes, (settings.num_output,)] if settings.bias_term else shapes


def select(net: Net, phase: str = "TEST", stages: tuple[str, ...] = (), level: int = 0) -> Net:
    """Keep the layers that Caffe would build in a phase, by include and exclude rules.

    ``stages`` are added to those that the file itself sets.
    """
    stages = (*stages, *net.stages)

    def holds(rule: NetStateRule) -> bool:
        return (
            (not has(rule, "phase") or Phase.Name(rule.phase) == phase)
            and (not has(rule, "min_level") or level >= rule.min_level)
            and (not has(rule, "max_level") or level <= rule.max_level)
            and all(stage in stages for stage in rule.stage)
            and not any(stage in stages for stage in rule.not_stage)
        )

    def kept(layer: Layer) -> bool:
        include, exclude = layer.params.include, layer.params.exclude
        if include and exclude:
            raise FormatError(f"{layer.place}: include and exclude rules, expected one kind.")
        if include:
            return any(holds(rule) for rule in include)
        return not any(holds(rule) for rule in exclude)

    return replace(net, layers=tuple(filter(kept, net.layers)))


IDENTITIES = frozenset({"Dropout", "Split"})  # In the TEST phase.

# Layers that bring data in; what they read it from does not matter here.
SOURCES = frozenset({
    "Input", "Data", "DenseImageData", "DummyData", "HDF5Data", "ImageData", "ImageSegData",
    "MemoryData", "WindowData",
})  # fmt: skip


def enter(table: Table, net: Net, module_of: Callable[[str], str]) -> dict[int, str]:
    """Enter a net's computation into ``table``; return its nodes' numbers and places.

    ``module_of`` names a layer that has weights. A layer that this module cannot describe
    becomes a node of its own kind, equal to nothing.

    Raises
    ------
    FormatError
        A bottom that no layer above produces.

    """
    value: dict[str, int] = {}
    found: dict[int, str] = {}
    folded = scale_targets(net)
    image = _image(net)
    for layer in net.layers:
        inputs = []
        if layer.type in SOURCES:
            for top in layer.tops:
                value[top] = table.add("input" if top == image else f"input {top}")
                found.setdefault(value[top], layer.place)
            continue
        for bottom in layer.bottoms:
            if bottom not in value:
                raise FormatError(f"{layer.place}: reads {bottom!r}, which no layer above writes.")
            inputs.append(value[bottom])
        number = _enter_layer(table, layer, inputs, module_of, folded)
        for top in layer.tops:
            value[top] = number
        found.setdefault(number, layer.place)
    return found


def _image(net: Net) -> str:
    """Return the blob that is the network's image: ``data``, or the first that comes in."""
    tops = [top for layer in net.layers if layer.type in SOURCES for top in layer.tops]
    return "data" if "data" in tops else (tops or ["data"])[0]


def _enter_layer(
    table: Table,
    layer: Layer,
    inputs: list[int],
    module_of: Callable[[str], str],
    folded: Mapping[str, str],
) -> int:
    params = layer.params
    match layer.type:
        case "Convolution":
            return table.add(
                "convolution", module_of(layer.name), inputs, **_convolution_settings(layer)
            )
        case "BatchNorm":
            return table.add("normalise", module_of(layer.name), inputs, **_norm_settings(layer))
        case "Scale" if layer.name in folded and _is_affine(params.scale_param):
            return table.add("affine", module_of(folded[layer.name]), inputs)
        case "ReLU" if params.relu_param.negative_slope == 0:
            return table.add("relu", inputs=inputs)
        case "Pooling":
            return _enter_pooling(table, params.pooling_param, inputs)
        case "Eltwise" if not any(c != 1 for c in params.eltwise_param.coeff):
            operation = EltwiseParameter.EltwiseOp.Name(params.eltwise_param.operation)
            return table.add(operation.lower(), inputs=inputs)
        case "Interp":
            return table.add("resize", inputs=inputs, **_interp_settings(layer))
        case kind if kind in IDENTITIES:
            return inputs[0]
    return table.add(layer.type, layer.name, inputs)


def _norm_settings(layer: Layer) -> dict[str, Any]:
    """Describe a batch norm; its statistics are told where they are not the stored ones."""
    settings = layer.params.batch_norm_param
    eps = float(str(np.float32(settings.eps)))  # 1e-05, as it was written.
    stored = not has(layer.params, "phase") or layer.params.phase == Phase.Value("TEST")
    if has(settings, "use_global_stats"):
        stored = settings.use_global_stats
    return {"eps": eps} if stored else {"eps": eps, "statistics": "of the batch"}


def _is_affine(settings: ScaleParameter) -> bool:
    """Tell whether a Scale multiplies each channel, and adds to it."""
    return settings.bias_term and (settings.axis, settings.num_axes) in ((1, 1), (-3, 1))


def _convolution_settings(layer: Layer) -> dict[str, Any]:
    settings = layer.params.convolution_param
    return {
        "kernel": spatial(settings, "kernel_size", 0, "kernel"),
        "stride": spatial(settings, "stride", 1, "stride"),
        "pad": spatial(settings, "pad", 0, "pad"),
        "dilation": spatial(settings, "dilation", 1),
        "group": settings.group,
    }


def _enter_pooling(table: Table, settings: PoolingParameter, inputs: list[int]) -> int:
    method = PoolingParameter.PoolMethod.Name(settings.pool).lower()
    if settings.global_pooling:
        return table.add(f"global-{method}-pool", inputs=inputs)
    return table.add(
        f"{method}-pool",
        inputs=inputs,
        kernel=spatial(settings, "kernel_size", 0, "kernel"),
        stride=spatial(settings, "stride", 1, "stride"),
        pad=spatial(settings, "pad", 0, "pad"),
        round=PoolingParameter.RoundMode.Name(settings.round_mode).lower(),
    )


def _interp_settings(layer: Layer) -> dict[str, Any]:
    """Describe an Interp: by its factor where that rules, else by its size."""
    settings = layer.params.interp_param
    pads = {"crop": (settings.pad_beg, settings.pad_end)}
    if settings.pad_beg == settings.pad_end == 0:
        pads = {}
    if sized_by_numbers(settings):
        return {"size": (settings.height, settings.width), **pads}
    return {"factor": Fraction(settings.zoom_factor, settings.shrink_factor), **pads}

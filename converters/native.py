"""An archive comes home: its family is recognised, its tensors renamed, all of it checked.

Enters: an `Archive`. Leaves: `Weights` of a native model, with an account of every tensor.
Names and shapes are held against the architecture, and the source's graph is compared with
it node by node: weights whose net computes something else are refused, not converted.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..proto.errors import MismatchError, UsageError, listing
from ..proto.records import Net
from . import caffe_graph
from .archive import Archive, Float32, Tensor
from .caffe_sizes import spatial
from .deeplab_v2 import DeepLabV2Config, infer_config, network, parameters
from .naming.deeplab_v2 import HEAD, SCALES, layout_of, to_canonical
from .naming.families import looks_like
from .numerics import Numerics
from .rename import Conversion, check, rename
from .topology import Table, differences
from .weights import Weights

UNUSED_BRANCH = "AdvSemiSeg's forward returns after two branches and never adds this one"

HEAD_STD = 0.01  # The gaussian filler of the authors' classifier layers.


@dataclass(frozen=True, slots=True)
class Head:
    """What to do with the classifier: keep it, or start afresh.

    ``classes`` None keeps the file's number. A fresh head is gaussian with standard
    deviation 0.01 and zero bias, drawn from ``seed``.
    """

    classes: int | None = None
    reset: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse class counts that no label map can have."""
        if self.classes is not None and not 2 <= self.classes <= 255:
            raise UsageError(f"--num-classes {self.classes}, expected 2 to 255.")


@dataclass(frozen=True, slots=True, eq=False)
class Native:
    """Weights of a native model, and how they came to be.

    ``fresh`` are the names that the file did not give (a reset head).
    """

    weights: Weights
    conversion: Conversion
    fresh: tuple[str, ...]
    notes: tuple[str, ...]


def scheme_of(archive: Archive) -> str | None:
    """Return the naming scheme of an archive's layers, None where it is none of ours.

    TensorFlow's DeepLab took its layers' names from Caffe.
    """
    layers = [tensor.layer for tensor in archive.tensors]
    if archive.origin.framework == "pytorch":
        return layout_of([f"{layer}." for layer in layers])
    return "caffe" if any(_is_block("caffe", layer) for layer in layers) else None


def is_backbone(layer: str, scheme: str = "caffe") -> bool:
    """Tell whether a source layer is of the part that a reset head keeps."""
    found = to_canonical(scheme, layer)
    return found is not None and not found[0].startswith(HEAD)


def to_native(archive: Archive, head: Head | None = None) -> Native:
    """Make a DeepLab v2's weights of an archive.

    Raises
    ------
    MismatchError
        The archive is of another family, holds tensors without a place, lacks some, or its
        graph computes something else; everything of one kind is listed.

    """
    head = head or Head()
    scheme = scheme_of(archive)
    if scheme is None:
        raise MismatchError(_foreign(archive))
    if archive.numerics is None:
        raise MismatchError(
            "the archive does not tell the conventions it was trained under, so it makes no model."
        )

    def module(layer: str) -> str | None:
        found = to_canonical(scheme, layer)
        return found[0] if found else None

    def dropped(tensor: Tensor) -> str | None:
        if scheme == "advsemiseg" and _is_unused_branch(tensor.layer):
            return UNUSED_BRANCH
        fresh = head.reset and not is_backbone(tensor.layer, scheme)
        return "not part of the backbone: the head was reset" if fresh else None

    conversion = rename(archive, module, dropped)
    shapes = {name: data.shape for name, data in conversion.state.items()}
    config = infer_config(shapes, **{**_of_graph(archive.graph), **_of_settings(archive)})
    if 0 in config.blocks:
        missing = [f"layer{stage}" for stage, count in enumerate(config.blocks, 1) if not count]
        raise MismatchError(
            f"no weights for whole stages of the backbone ({', '.join(missing)}): the file is a "
            "part of a model. Is it one shard of several, or were too few variables selected?"
        )
    config, started = _headed(conversion, config, head)
    state = {**conversion.state, **started}
    check(state, parameters(config))
    notes = archive.notes + _compared(archive.graph, config, archive.numerics, reset=head.reset)
    weights = Weights(state, config, archive.numerics, archive.origin)
    return Native(weights, conversion, tuple(started), notes)


def _headed(
    conversion: Conversion, config: DeepLabV2Config, head: Head
) -> tuple[DeepLabV2Config, dict[str, Float32]]:
    """Return the config with the head that was asked for, and a fresh head's parameters."""
    if head.reset:
        config = replace(config, classes=head.classes or config.classes)
        return config, fresh_head(config, head.seed)
    if not any(name.startswith(HEAD) for name in conversion.state):
        raise MismatchError(
            "the file has no classifier (fc1_*_c0 and on). To start one afresh: --reset-head."
        )
    if head.classes not in (None, config.classes):
        raise MismatchError(
            f"the file has {config.classes} classes, asked for {head.classes}. To start a head "
            "of another size afresh: --reset-head."
        )
    return config, {}


def _compared(
    graph: Net | None, config: DeepLabV2Config, numerics: Numerics, *, reset: bool
) -> tuple[str, ...]:
    """Refuse a graph that computes something else; weights that only start a training may."""
    found = _differences(graph, config, numerics) if graph is not None else []
    if found and not reset:
        raise MismatchError(
            f"the file's network is not the DeepLab v2 it looks like:\n{listing(found)}\n"
            "Its weights would give other results in this model, so they are not converted."
        )
    return tuple(f"initialisation only, the file's network differs: {one}" for one in found[:3])


def fresh_head(config: DeepLabV2Config, seed: int) -> dict[str, Float32]:
    """Draw a new classifier; the same seed and sizes give the same values everywhere."""
    started: dict[str, Float32] = {}
    for name, shape in parameters(config).items():
        if not name.startswith(HEAD):
            continue
        if name.endswith(".bias"):
            started[name] = np.zeros(shape, np.float32)
            continue
        random = np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))
        started[name] = (HEAD_STD * random.standard_normal(shape)).astype(np.float32)
    return started


def _is_block(scheme: str, layer: str) -> bool:
    found = to_canonical(scheme, layer)
    return found is not None and "stage" in found[1]


def _is_unused_branch(layer: str) -> bool:
    found = to_canonical("advsemiseg", layer)
    return found is not None and int(found[1].get("rate", 0)) > 1


def _foreign(archive: Archive) -> str:
    """Say what an archive is that no naming table knows."""
    layers = list(dict.fromkeys(tensor.layer for tensor in archive.tensors))
    family = looks_like([*layers, *(f"{layer}/weights" for layer in layers)])
    return (
        "not a DeepLab v2 ResNet: none of its "
        f"{len(layers)} layers with weights has one of its names. "
        + (f"It looks like {family}. " if family else "")
        + f"They begin: {', '.join(layers[:5])}."
    )


def _of_settings(archive: Archive) -> dict[str, Any]:
    told: dict[str, Any] = dict(archive.settings)
    if "rates" in told:
        told["rates"] = tuple(int(rate) for rate in told["rates"])
    unknown = set(told) - {"rates", "scales"}
    if unknown:
        raise MismatchError(f"archive: unknown settings {sorted(unknown)}, expected rates, scales.")
    return told


def _of_graph(graph: Net | None) -> Mapping[str, Any]:
    """Read off the graph what shapes do not show: the head's rates, the input scales."""
    rates: dict[int, int] = {}
    scales: set[float] = set()
    for layer in graph.layers if graph else ():
        if layer.type != "Convolution":
            continue
        found = to_canonical("caffe", layer.name)
        if found is None:
            continue
        module, values = found
        scales.add(SCALES.get(str(values["scale"]), 0.0))
        if module.startswith(HEAD):
            rates[int(values["rate"])] = spatial(layer.params.convolution_param, "dilation", 1)[0]
    known: dict[str, Any] = {}
    if rates and sorted(rates) == list(range(len(rates))):
        known["rates"] = tuple(rates[index] for index in sorted(rates))
    if scales - {0.0}:
        known["scales"] = tuple(sorted(scales - {0.0}, reverse=True))
    return known


def _named(layer: str) -> str:
    found = to_canonical("caffe", layer)
    return found[0] if found else layer


def _differences(graph: Net, config: DeepLabV2Config, numerics: Numerics) -> list[str]:
    """List where the file's network and the model's differ; empty when they are the same."""
    table = Table()
    expected = network(table, config, numerics.bn_eps)
    found = caffe_graph.enter(table, caffe_graph.select(graph), _named)
    return [] if expected in found else list(differences(table, expected, found))

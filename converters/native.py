"""An archive comes home: its family is recognised, its tensors renamed, all of it checked.

Enters: an `Archive`. Leaves: `Weights` of a native model, with an account of every tensor.
Names and shapes are held against the architecture, and the source's graph is compared with
it node by node: weights whose net computes something else are refused, not converted.
"""

import zlib
from dataclasses import dataclass

import numpy as np

from ..proto.errors import MismatchError, UsageError, listing
from ..proto.records import Net
from . import caffe_graph, families
from .archive import Archive, Float32, Tensor
from .family import Config, Family
from .naming.families import looks_like
from .naming.scheme import Naming
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
        """Refuse class counts that no label map can have, and seeds that nothing is drawn from."""
        if self.seed < 0 or (self.seed and not self.reset):
            raise UsageError(f"--seed {self.seed}, expected 0 or more, and with --reset-head.")
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


def recognised(archive: Archive, *, fresh_head: bool = False) -> tuple[Family, str] | None:
    """Return the family and naming scheme of an archive's layers, None where none is ours."""
    layers = [tensor.layer for tensor in archive.tensors]
    if archive.origin.framework == "pytorch":
        return families.of_state([f"{layer}." for layer in layers])
    return families.of_layers(layers, fresh_head=fresh_head)


def is_backbone(layer: str) -> bool:
    """Tell whether a Caffe layer is of the part that a reset head keeps, of any family."""
    return any(_is_backbone(family.naming, "caffe", layer) for family in families.FAMILIES)


def _is_backbone(naming: Naming, scheme: str, layer: str) -> bool:
    found = naming.to_canonical(scheme, layer)
    return found is not None and not found[0].startswith(naming.head)


def to_native(archive: Archive, head: Head | None = None) -> Native:
    """Make a native model's weights of an archive.

    Raises
    ------
    MismatchError
        The archive is of no family of ours, holds tensors without a place, lacks some, or its
        graph computes something else; everything of one kind is listed.

    """
    head = head or Head()
    found = recognised(archive, fresh_head=head.reset)
    if found is None:
        raise MismatchError(_foreign(archive))
    family, scheme = found
    naming = family.naming
    if archive.numerics is None:
        raise MismatchError(
            "the archive does not tell the conventions it was trained under, so it makes no model."
        )

    def module(layer: str) -> str | None:
        known = naming.to_canonical(scheme, layer)
        return known[0] if known else None

    def dropped(tensor: Tensor) -> str | None:
        if scheme == "advsemiseg" and _is_unused_branch(tensor.layer):
            return UNUSED_BRANCH
        fresh = head.reset and not _is_backbone(naming, scheme, tensor.layer)
        return "not part of the backbone: the head was reset" if fresh else None

    conversion = rename(archive, module, dropped)
    shapes = {name: data.shape for name, data in conversion.state.items()}
    told = {**family.told_by_layout(scheme), **family.told_by_settings(archive.settings)}
    if archive.graph and family.caffe:
        told = {**family.caffe.told_by_graph(archive.graph), **told}
    config = family.infer(shapes, **told)
    config, started = _headed(conversion, family, config, head)
    state = {**conversion.state, **started}
    check(state, family.parameters(config))
    notes = archive.notes + _compared(
        archive.graph, family, config, archive.numerics, reset=head.reset
    )
    weights = Weights(state, config, archive.numerics, archive.origin)
    return Native(weights, conversion, tuple(started), notes)


def _headed(
    conversion: Conversion, family: Family, config: Config, head: Head
) -> tuple[Config, dict[str, Float32]]:
    """Return the config with the head that was asked for, and a fresh head's parameters."""
    if head.reset:
        classes = head.classes or config.classes
        config = family.config.from_json({**config.to_json(), "classes": classes})
        return config, fresh_head(family, config, head.seed)
    if not any(name.startswith(family.naming.head) for name in conversion.state):
        raise MismatchError(
            f"the file has no classifier ({_first_of_head(family, config)} and on). To start one "
            "afresh: --reset-head."
        )
    if head.classes not in (None, config.classes):
        raise MismatchError(
            f"the file has {config.classes} classes, asked for {head.classes}. To start a head "
            "of another size afresh: --reset-head."
        )
    return config, {}


def _first_of_head(family: Family, config: Config) -> str:
    """Name a head's first layer, in Caffe's words where it has some."""
    modules = (name.rpartition(".")[0] for name in family.parameters(config))
    module = next(one for one in modules if one.startswith(family.naming.head))
    scheme = "caffe" if family.caffe else "canonical"
    return family.naming.from_canonical(scheme, module, family.context(config))


def _compared(
    graph: Net | None, family: Family, config: Config, numerics: Numerics, *, reset: bool
) -> tuple[str, ...]:
    """Refuse a graph that computes something else; weights that only start a training may."""
    found = [] if graph is None else _differences(graph, family, config, numerics)
    if found and not reset:
        raise MismatchError(
            f"the file's network is not the {family.title} it looks like:\n{listing(found)}\n"
            "Its weights would give other results in this model, so they are not converted."
        )
    return tuple(f"initialisation only, the file's network differs: {one}" for one in found[:3])


def fresh_head(family: Family, config: Config, seed: int) -> dict[str, Float32]:
    """Draw a new classifier; the same seed and sizes give the same values everywhere."""
    started: dict[str, Float32] = {}
    for name, shape in family.parameters(config).items():
        if not name.startswith(family.naming.head):
            continue
        if name.endswith(".bias"):
            started[name] = np.zeros(shape, np.float32)
            continue
        random = np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))
        started[name] = (HEAD_STD * random.standard_normal(shape)).astype(np.float32)
    return started


def _is_unused_branch(layer: str) -> bool:
    found = families.DEEPLAB_V2.naming.to_canonical("advsemiseg", layer)
    return found is not None and int(found[1].get("rate", 0)) > 1


def _foreign(archive: Archive) -> str:
    """Say what an archive is that no naming table knows."""
    layers = list(dict.fromkeys(tensor.layer for tensor in archive.tensors))
    like = looks_like([*layers, *(f"{layer}/weights" for layer in layers)])
    return (
        f"not a {' or '.join(one.title for one in families.FAMILIES)}: none of its "
        f"{len(layers)} layers with weights has one of their names. "
        + (f"It looks like {like}. " if like else "")
        + f"They begin: {', '.join(layers[:5])}."
        + (" To convert the net as it is: --graph." if archive.graph else "")
    )


def _differences(graph: Net, family: Family, config: Config, numerics: Numerics) -> list[str]:
    """List where the file's network and the model's differ; empty when they are the same."""
    if family.caffe is None:
        return [f"{graph.name}: a Caffe net, which {family.title} never had"]

    def named(layer: str) -> str:
        known = family.naming.to_canonical("caffe", layer)
        return known[0] if known else layer

    table = Table()
    expected = family.caffe.network(table, config, numerics.bn_eps)
    found = caffe_graph.enter(table, caffe_graph.select(graph), named)
    return [] if expected in found else list(differences(table, expected, found))

"""The table of layer types: a Caffe layer enters, an `Operation` on tensors leaves.

Each type is one function, registered with `layer`. It reads the settings once; what it
returns are three functions: the sizes of the tops, the blobs of weights that they take, and
the computation itself, plain tensor operations that `torch.export` can follow.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from ...proto.caffe_pb2 import FillerParameter
from ...proto.errors import FormatError, MismatchError
from ...proto.records import Layer

Shape = tuple[int, ...]
Weights = Mapping[str, Tensor]  # By role.


class Wanted(NamedTuple):
    """A blob of weights in Caffe's own shape, and what fills it where no file does."""

    shape: Shape
    filler: FillerParameter


def _no_blobs(_: Sequence[Shape]) -> Sequence[Wanted]:
    return ()


@dataclass(frozen=True, slots=True)
class Operation:
    """What a layer does.

    Attributes
    ----------
    sizes
        The tops' shapes for the bottoms'; raises `MismatchError` where Caffe would stop.
    run
        The tops' values for the weights (by role) and the bottoms' values.
    blobs
        The blobs of weights for the bottoms' shapes, in Caffe's order.
    constants
        Blobs that are filled once and are no weights (DummyData), registered as ``value0``...
    roles
        The roles that ``run`` uses, where the weights have more; None is all.

    """

    sizes: Callable[[Sequence[Shape]], Sequence[Shape]]
    run: Callable[[Weights, Sequence[Tensor]], Sequence[Tensor]]
    blobs: Callable[[Sequence[Shape]], Sequence[Wanted]] = _no_blobs
    constants: tuple[Wanted, ...] = ()
    roles: frozenset[str] | None = None


Builder = Callable[[Layer], Operation]


@dataclass(frozen=True, slots=True)
class LayerType:
    """A registered type: its function, and how many bottoms and tops it may have."""

    build: Builder
    bottoms: tuple[int, int]
    tops: tuple[int, int]
    in_place: bool
    loss: bool


MANY = 10_000
LAYERS: dict[str, LayerType] = {}


def layer(
    name: str,
    bottoms: int | tuple[int, int] = 1,
    tops: int | tuple[int, int] = 1,
    *,
    in_place: bool = False,
    loss: bool = False,
) -> Callable[[Builder], Builder]:
    """Register the function that builds a layer type.

    ``in_place`` types may write their top over their bottom; of the others Caffe would read
    what it has already overwritten. A ``loss`` may leave out its top.
    """

    def register(build: Builder) -> Builder:
        if name in LAYERS:
            raise ValueError(f"two functions for {name}")
        LAYERS[name] = LayerType(build, _pair(bottoms), _pair(tops), in_place, loss)
        return build

    return register


def _pair(count: int | tuple[int, int]) -> tuple[int, int]:
    return (count, count) if isinstance(count, int) else count


def pointwise(function: Callable[[Tensor], Tensor]) -> Operation:
    """Make the operation of a layer that changes values and not shapes."""
    return Operation(same_sizes, lambda _, bottoms: [function(bottoms[0])])


def same_sizes(shapes: Sequence[Shape]) -> Sequence[Shape]:
    """Return the first bottom's shape as the only top's."""
    return [shapes[0]]


def misfit(layer: Layer, shapes: Sequence[Shape], expected: str) -> MismatchError:
    """Return the error for bottoms whose shapes a layer cannot take."""
    found = ", ".join(
        f"{name!r} {list(shape)}" for name, shape in zip(layer.bottoms, shapes, strict=False)
    )
    return MismatchError(f"{layer.place}: {layer.type} of {found}: expected {expected}.")


def wrong(layer: Layer, problem: str) -> FormatError:
    """Return the error for settings that Caffe refuses."""
    return FormatError(f"{layer.place}: {layer.type}: {problem}.")


def axis_of(layer: Layer, shapes: Sequence[Shape], axis: int, bottom: int = 0) -> int:
    """Return an axis counted from the front; negative ones count from the end."""
    rank = len(shapes[bottom])
    if not -rank <= axis < rank:
        raise misfit(layer, shapes, f"an axis {axis} in the {rank} of {layer.bottoms[bottom]!r}")
    return axis % rank


def constant(value: float = 0) -> FillerParameter:
    """Return the filler of one value."""
    return FillerParameter(type="constant", value=value)

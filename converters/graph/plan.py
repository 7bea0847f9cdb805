"""The order of work: steps enter; which are needed, what may be joined, what dies when, leave.

Two joins keep a graph as quick as a model written by hand, and change no blob that is asked
for: a Scale takes the BatchNorm before it into one operation, and a ReLU in place writes over
a value that no one else can see.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from .step import Step

# Types whose top is a tensor of its own, which their gradient does not need.
_FRESH = frozenset(
    {"BatchNorm", "Convolution", "Deconvolution", "Eltwise", "InnerProduct", "Scale"}
)


@dataclass(slots=True, eq=False)
class Move:
    """One step and what surrounds it.

    Attributes
    ----------
    sources
        The steps that wrote its bottoms.
    norm
        Of a Scale: the BatchNorm whose top only it reads.
    folded
        Of that BatchNorm: it can be left to the Scale.
    hidden
        Of that BatchNorm: the Scale overwrites its top, which no one can ask for.
    fresh
        Of a ReLU in place: it may overwrite the tensor itself.

    """

    step: Step
    sources: tuple["Move", ...] = ()
    norm: Step | None = None
    folded: bool = False
    hidden: bool = False
    fresh: bool = False


Schedule = list[tuple[Move, tuple[str, ...]]]


def planned(steps: Sequence[Step]) -> list[Move]:
    """Return the steps with their sources and joins."""
    moves = [Move(step) for step in steps]
    writer: dict[str, Move] = {}
    readers: dict[int, int] = {}  # Of each move's top.
    for move in moves:
        layer = move.step.layer
        move.sources = tuple(writer[bottom] for bottom in layer.bottoms if bottom in writer)
        for one in move.sources:
            readers[id(one)] = readers.get(id(one), 0) + 1
        source = writer.get(layer.bottoms[0]) if layer.bottoms else None
        if source is not None:
            if _joins(source.step, move.step):
                move.norm = source.step
            in_place = layer.bottoms == layer.tops
            relu = layer.type == "ReLU" and layer.params.relu_param.negative_slope == 0
            move.fresh = relu and in_place and source.step.layer.type in _FRESH
        writer.update(dict.fromkeys(layer.tops, move))
    by_step = {move.step: move for move in moves}
    for move in moves:
        if move.norm is not None:
            norm = by_step[move.norm]
            norm.folded = readers[id(norm)] == 1
            norm.hidden = move.step.layer.tops[0] == norm.step.layer.tops[0]
            move.norm = move.norm if norm.folded else None
    return moves


def scheduled(moves: Sequence[Move], wanted: Collection[str]) -> Schedule:
    """Return the moves that the wanted blobs need, each with the blobs that end with it.

    A BatchNorm that gathers statistics is always needed.
    """
    last = {top: move for move in moves for top in move.step.layer.tops}
    stack = [last[blob] for blob in wanted if blob in last]
    stack += [move for move in moves if "factor" in (move.step.operation.roles or ())]
    needed: set[int] = set()
    while stack:
        move = stack.pop()
        if id(move) not in needed:
            needed.add(id(move))
            stack.extend(move.sources)
    chosen = [move for move in moves if id(move) in needed]
    ends: dict[str, int] = {}
    for index, move in enumerate(chosen):
        ends.update(dict.fromkeys((*move.step.layer.bottoms, *move.step.layer.tops), index))
    dead: list[list[str]] = [[] for _ in chosen]
    for blob, index in ends.items():
        if blob not in wanted:
            dead[index].append(blob)
    return list(zip(chosen, map(tuple, dead), strict=True))


def _joins(norm: Step, scale: Step) -> bool:
    """Tell whether a Scale gives a BatchNorm with stored statistics its gamma and beta."""
    settings = scale.layer.params.scale_param
    return (
        (norm.layer.type, scale.layer.type) == ("BatchNorm", "Scale")
        and norm.operation.roles is not None
        and "mean" in norm.operation.roles
        and len(scale.layer.bottoms) == 1
        and (settings.axis, settings.num_axes) == (1, 1)
    )


def scaled_norm(norm: Step, scale: Step, x: Tensor) -> Tensor:
    """Do a BatchNorm and its Scale at once."""
    statistics, affine = norm.weights(), scale.weights()
    return functional.batch_norm(
        x,
        statistics["mean"],
        statistics["variance"],
        affine["gamma"],
        affine.get("beta"),
        eps=norm.layer.params.batch_norm_param.eps,
    )

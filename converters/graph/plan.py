"""The order of work: steps enter; which are needed, what may be joined, what dies when, leave.

Two joins keep a graph as quick as a model written by hand, and change no blob that is asked
for: a Scale takes the BatchNorm before it into one operation, and a ReLU in place writes over
a value that no one else can see.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
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


class Work(NamedTuple):
    """One call of a schedule, and the blobs whose end it is."""

    run: Callable[..., Sequence[Tensor]]
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    dead: tuple[str, ...]


Schedule = list[Work]


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
            if joins(source.step, move.step):
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
    """Return the calls that the wanted blobs need, in order.

    A BatchNorm that gathers statistics is always needed.
    """
    chosen = _needed(moves, wanted)
    ends: dict[str, int] = {}
    for index, move in enumerate(chosen):
        ends.update(dict.fromkeys((*move.step.layer.bottoms, *move.step.layer.tops), index))
    dead: list[list[str]] = [[] for _ in chosen]
    for blob, index in ends.items():
        if blob not in wanted:
            dead[index].append(blob)
    left = {
        move.step
        for move in chosen
        if move.folded and (move.hidden or move.step.layer.tops[0] not in wanted)
    }
    work = []
    for move, blobs in zip(chosen, dead, strict=True):
        layer = move.step.layer
        run: Callable[..., Sequence[Tensor]] = move.step
        if move.step in left:
            if layer.bottoms == layer.tops:
                continue  # The Scale that follows does both.
            run = _passed_on
        elif move.norm is not None and move.norm in left:
            run = _scaled_norm(move.norm, move.step)
        elif move.fresh:
            run = _rectified_in_place
        work.append(Work(run, layer.bottoms, layer.tops, tuple(blobs)))
    return work


def _needed(moves: Sequence[Move], wanted: Collection[str]) -> list[Move]:
    last = {top: move for move in moves for top in move.step.layer.tops}
    stack = [last[blob] for blob in wanted if blob in last]
    stack += [move for move in moves if "factor" in (move.step.operation.roles or ())]
    needed: set[int] = set()
    while stack:
        move = stack.pop()
        if id(move) not in needed:
            needed.add(id(move))
            stack.extend(move.sources)
    return [move for move in moves if id(move) in needed]


def _passed_on(x: Tensor) -> Sequence[Tensor]:
    return (x,)


def _rectified_in_place(x: Tensor) -> Sequence[Tensor]:
    return (torch.relu_(x),)


def joins(norm: Step, scale: Step) -> bool:
    """Tell whether a Scale gives a BatchNorm with stored statistics its gamma and beta."""
    settings = scale.layer.params.scale_param
    return (
        (norm.layer.type, scale.layer.type) == ("BatchNorm", "Scale")
        and norm.operation.roles is not None
        and "mean" in norm.operation.roles
        and len(scale.layer.bottoms) == 1
        and (settings.axis, settings.num_axes) == (1, 1)
    )


def _scaled_norm(norm: Step, scale: Step) -> Callable[[Tensor], Sequence[Tensor]]:
    """Return what does a BatchNorm and its Scale at once."""
    eps = norm.layer.params.batch_norm_param.eps

    def run(x: Tensor) -> Sequence[Tensor]:
        statistics, affine = norm.weights(), scale.weights()
        return (
            functional.batch_norm(
                x,
                statistics["mean"],
                statistics["variance"],
                affine["gamma"],
                affine.get("beta"),
                eps=eps,
            ),
        )

    return run

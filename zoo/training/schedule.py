"""The learning rate of each update: a config's schedule, a number in and a number out.

Computed in float32, operation by operation, as Caffe's solver does.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...proto.errors import UsageError

F = np.float32


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a rate falls over ``steps`` updates.

    Attributes
    ----------
    kind
        ``poly``: ``(1 - step / steps) ** power``. ``step``: times ``gamma`` after each
        ``step_size`` updates. ``cosine``: half a wave. ``constant``.
    every
        The rate moves every so many updates (kazuto1011: 10).

    """

    kind: str
    base: float
    steps: int
    power: float = 0.9
    step_size: int = 10000
    gamma: float = 0.1
    every: int = 1


def _poly(way: Schedule, step: int) -> float:
    rest = max(F(1) - F(step) / F(way.steps), F(0))
    return float(F(way.base) * np.power(rest, F(way.power)))


def _step(way: Schedule, step: int) -> float:
    return float(F(way.base) * np.power(F(way.gamma), F(step // way.step_size)))


def _cosine(way: Schedule, step: int) -> float:
    return way.base * (1 + math.cos(math.pi * min(step / way.steps, 1))) / 2


KINDS: dict[str, Callable[[Schedule, int], float]] = {
    "poly": _poly,
    "step": _step,
    "cosine": _cosine,
    "constant": lambda way, _: way.base,
}


def rate(way: Schedule, step: int) -> float:
    """Return the rate of the update after ``step`` updates; raise `UsageError` for its kind."""
    if way.kind not in KINDS:
        raise UsageError(f"schedule {way.kind!r} is unknown, expected one of {', '.join(KINDS)}.")
    return KINDS[way.kind](way, step - step % way.every)

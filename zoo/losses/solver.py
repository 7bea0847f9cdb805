"""Errors of one image in, the minimum of Lovász hinge plus squared distance out: compiled.

The Jaccard loss of a set of wrong pixels depends on two numbers, how many are foreground and how
many are not: ``(k + l) / (G + l)``. So of all sets of one size the best holds the ``k`` largest
errors of the foreground and the ``l`` largest of the rest, and everything below looks at such
pairs of prefixes only. The loss is submodular; the minimum then falls apart by its level sets
(Groenevelt 1991; Bach, Learning with submodular functions, 2013, section 9.1): give all pixels
of a block the one value that would be right if they shared it, look for the best set at this
level, and part the block there. A block that has none is right.
"""

import numpy as np
from numpy.typing import NDArray

from ..lattice.compiled import compiled

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Block = tuple[int, int, int, int]  # From one prefix to another, of the foreground and the rest.


def minimise(margins: Array, foreground: Mask, lam: float) -> Array:
    """Return ``x`` of least Lovász hinge plus ``lam / 2 |x - margins|**2``.

    Errors below zero cost nothing and stay; the others stay above zero.
    """
    x = margins.copy()
    near, far = _falling(margins, foreground), _falling(margins, ~foreground)
    size = int(foreground.sum())
    x[near], x[far] = _parted(margins[near], margins[far], size, 1 / lam)
    return x


def shrunk(step: Array, foreground: Mask) -> Array:
    """Return ``step``, scaled until its sum over any set is at most that set's Jaccard loss."""
    near, far = _falling(step, foreground), _falling(step, ~foreground)
    factor: float = _factor(step[near], step[far], int(foreground.sum()))
    return step * factor


def _falling(values: Array, chosen: Mask) -> NDArray[np.intp]:
    """Return where the chosen values above zero are, the largest first."""
    places = np.flatnonzero(chosen & (values > 0))
    return places[np.argsort(-values[places])]  # Equal errors end equal, in any order.


@compiled()
def _loss(k: int, other: int, size: int) -> float:
    """Return the Jaccard loss of ``k`` wrong pixels of the foreground and of others."""
    return (k + other) / max(size + other, 1)


@compiled()
def _cut(
    near: Array, far: Array, block: Block, size: int, scale: float, level: float
) -> tuple[float, int, int]:
    """Return the least ``scale`` x loss - sum of (error - level) in a block, and its prefixes.

    For each number of other pixels, those of the foreground pay that exceed the level by more
    than they cost; with more others they cost less, so one walk along both suffices.
    """
    k0, k1, l0, l1 = block
    k, gained = k0, 0.0
    best, best_k, best_l = 0.0, k0, l0
    start = _loss(k0, l0, size)
    for other in range(l0, l1 + 1):
        if other > l0:
            gained += far[other - 1] - level
        share = 1 / max(size + other, 1)
        while k < k1 and near[k] - level > scale * share:
            gained += near[k] - level
            k += 1
        value = scale * ((k + other) * share - start) - gained
        if value < best:
            best, best_k, best_l = value, k, other
    return best, best_k, best_l


@compiled()
def _factor(near: Array, far: Array, size: int) -> float:
    """Return the largest factor, up to 1, with which no set's sum exceeds its loss.

    With a number of other pixels given, sum over loss is the mean of the set times a constant,
    which foreground above the mean makes larger.
    """
    sums = np.concatenate((np.zeros(1), near.cumsum()))
    factor, others = 1.0, 0.0
    for other in range(len(far) + 1):
        if other > 0:
            others += far[other - 1]
        low, high = int(other == 0), len(near)
        while low < high:
            k = (low + high) // 2
            if near[k] * (k + other) > sums[k] + others:
                low = k + 1
            else:
                high = k
        total = sums[min(low, len(near))] + others
        if total > 0:
            factor = min(factor, _loss(low, other, size) / total)
    return factor


@compiled()
def _parted(near: Array, far: Array, size: int, scale: float) -> tuple[Array, Array]:
    """Return the solution for the errors above zero, each falling; ``scale`` is ``1 / lam``."""
    x, y = np.zeros_like(near), np.zeros_like(far)
    waiting = [(0, len(near), 0, len(far))]
    while waiting:
        block = waiting.pop()
        k0, k1, l0, l1 = block
        count = k1 - k0 + l1 - l0
        if count == 0:
            continue
        total = near[k0:k1].sum() + far[l0:l1].sum()
        level = (total - scale * (_loss(k1, l1, size) - _loss(k0, l0, size))) / count
        # Below zero the loss is flat: who is not above zero at level zero ends there.
        level = max(level, 0.0)
        k, other = k0, l0
        if count > 1:
            _, k, other = _cut(near, far, block, size, scale, level)
        if (k == k0 and other == l0) or (k == k1 and other == l1):
            x[k0:k1] = level
            y[l0:l1] = level
            continue
        waiting.append((k0, k, l0, other))
        if level > 0:
            waiting.append((k, k1, other, l1))
    return x, y


@compiled()
def descend(x: Array, speeds: Array, time: float, max_steps: int, eps: float) -> Array:
    """Let falling errors sink at their speeds; who meets sinks together, at zero one stays.

    A step ends where two errors meet that would pass each other, or one meets zero.
    """
    x, speeds = x.copy(), speeds.copy()
    speeds[x <= 0] = 0
    _pool(x, speeds, eps)
    for _ in range(max_steps):
        step = time
        for i in range(len(x)):
            if speeds[i] > 0:
                step = min(step, x[i] / speeds[i])
            if i + 1 < len(x) and speeds[i] > speeds[i + 1]:
                step = min(step, max(x[i] - x[i + 1], 0.0) / (speeds[i] - speeds[i + 1]))
        x -= step * speeds
        time -= step
        if time <= eps:
            break
        for i in range(len(x)):
            if speeds[i] > 0 and x[i] <= eps:
                x[i] = speeds[i] = 0.0
        _pool(x, speeds, eps)
    return x


@compiled()
def _pool(x: Array, speeds: Array, eps: float) -> None:
    """Give errors that have met, and would pass each other, their mean speed."""
    starts = np.empty(len(x) + 1, np.int64)  # Of blocks of one speed, last of them on top.
    blocks = 0
    for i in range(len(x)):
        starts[blocks] = i
        blocks += 1
        end = i + 1
        while blocks > 1:
            start, before = starts[blocks - 1], starts[blocks - 2]
            if x[start - 1] - x[start] > eps or speeds[start - 1] <= speeds[start]:
                break
            speeds[before:end] = speeds[before:end].mean()
            blocks -= 1

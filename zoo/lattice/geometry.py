"""Constants of the permutohedral lattice in ``d`` dimensions, and how its vertices are named.

Adams, Baek, Davis 2010, "Fast High-Dimensional Filtering Using the Permutohedral Lattice".
Features are lifted to the plane of ``d + 1`` coordinates that sum to zero (section 3.1). There a
vertex's coordinates are all congruent to its remainder modulo ``d + 1``; the simplex around a
point has one vertex of each remainder.

A vertex is named by one integer, linear in its coordinates ``k``, so that the neighbour along an
axis is a constant away: ``k[0]`` and the ``(k[i] - k[0]) / (d + 1)`` are the digits of a number
whose bases are the ranges that the features can reach.
"""

import math

import numpy as np
from numpy.typing import NDArray

MAX_DIMENSIONS = 8

Bounds = tuple[NDArray[np.float64], NDArray[np.float64]]
"""The least and the greatest feature of each dimension."""

_ODD = 0x9E3779B97F4A7C15


def scale(d: int) -> NDArray[np.float64]:
    """Return the factors of the features before lifting.

    Splat, blur and slice together have the variance ``2/3 (d + 1)**2`` of the lattice's steps
    (section 3.2); the factors make that one.
    """
    i = np.arange(1, d + 1)
    factors: NDArray[np.float64] = (d + 1) * math.sqrt(2 / 3) / np.sqrt(i * (i + 1))
    return factors


def gain(d: int) -> float:
    """Return the factor that the authors' program puts on the result."""
    return 1 / (1 + 2.0**-d)


def lift(d: int) -> NDArray[np.float64]:
    """Return the matrix (d + 1, d) from features to lifted coordinates."""
    rows: NDArray[np.float64] = np.triu(np.ones((d + 1, d)))
    rows -= np.diag(np.arange(1.0, d + 1), -1)[:, :d]
    rows *= scale(d)
    return rows


def strides(
    low: NDArray[np.float64], high: NDArray[np.float64], *, images: int
) -> tuple[NDArray[np.int64], int]:
    """Return how a vertex's name grows with each coordinate, and from image to image.

    The features lie between low and high. The first ``d + 1`` numbers are for a step of
    ``d + 1`` of one coordinate, the last for a step of one of all of them. Where the names would
    not fit in 62 bits, they are fingerprints instead: sums, modulo 2**64, of fixed odd multiples,
    which two of a million vertices share with a chance below 1e-7.
    """
    d = len(low)
    rows = lift(d)
    digits = np.vstack([rows[:1], (rows[1:d] - rows[0]) / (d + 1)])
    reach = np.abs(digits) @ (high - low)
    # A vertex is less than d + 1 from its point in each coordinate, its neighbours d farther.
    margin = [4 * (d + 1)] + [8] * (d - 1)
    bases = [int(digit) + more for digit, more in zip(reach, margin, strict=True)]
    steps = [math.prod(bases[:digit]) for digit in range(d + 1)]
    if steps[d] * images >= 2**62:
        steps = [_ODD * (2 * digit + 3) ** 17 for digit in range(d + 1)]
    names = [(d + 1) * steps[0] - sum(steps[1:d]), *steps[1:d], 0, steps[0], steps[d]]
    wrapped = [(name + 2**63) % 2**64 - 2**63 for name in names]
    return np.array(wrapped[:-1], np.int64), wrapped[-1]

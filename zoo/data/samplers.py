"""Samplers: which sample comes at which position of an endless stream.

A stream is a chain of epochs, each a list drawn from the seed and the epoch's number alone.
So a position says everything: a run resumes at any of them, and ranks that share a stream,
each taking every ``world``-th position, show the samples that one process would.
"""

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...proto.errors import UsageError

Kind = Literal["shuffle", "sequential", "balanced", "exclusive"]
KINDS: tuple[Kind, ...] = ("shuffle", "sequential", "balanced", "exclusive")

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the epochs of a stream are drawn.

    Attributes
    ----------
    kind
        ``shuffle``: every sample once, in random order. ``sequential``: in the list's order.
        ``exclusive``: only the ``positive`` samples, shuffled. ``balanced``: of every two in
        a row one is positive; every sample at least once, the rarer ones again and again.
    count
        Samples of the dataset.
    positive
        Indices of those that show the wanted class.

    """

    kind: Kind
    count: int
    seed: int = 0
    positive: tuple[int, ...] = ()


def sampling(
    kind: str, count: int, seed: int = 0, present: Sequence[Set[int]] = (), wanted: int = 1
) -> Sampling:
    """Return a sampling, or say why it cannot be.

    ``present`` has the classes that each sample shows (`scan.Report`), and ``wanted`` is the
    class that ``balanced`` and ``exclusive`` look for: 1 in a binary dataset.
    """
    if kind not in KINDS:
        raise UsageError(f"sampling {kind!r} is unknown, expected one of {', '.join(KINDS)}.")
    if not count:
        raise UsageError("sampling: the dataset has no samples.")
    positive = tuple(one for one, seen in enumerate(present) if wanted in seen)
    if kind in ("balanced", "exclusive") and not positive:
        raise UsageError(f"sampling {kind}: no sample shows the wanted class.")
    if kind == "balanced" and len(positive) == count:
        raise UsageError("sampling balanced: every sample shows the wanted class.")
    return Sampling(kind, count, seed, positive)


def length(way: Sampling) -> int:
    """Return how many samples an epoch has."""
    positive = len(way.positive)
    if way.kind == "balanced":
        return 2 * max(positive, way.count - positive)
    return positive if way.kind == "exclusive" else way.count


def epoch(way: Sampling, number: int) -> Indices:
    """Return the indices of one epoch."""
    if way.kind == "sequential":
        return np.arange(way.count)
    random = np.random.Generator(np.random.PCG64([way.seed, number]))
    positive = np.array(way.positive, np.int64)
    if way.kind == "shuffle":
        return random.permutation(way.count)
    if way.kind == "exclusive":
        return random.permutation(positive)
    half = length(way) // 2
    negative = np.setdiff1d(np.arange(way.count), positive)
    pairs = np.stack([_again(positive, half, random), _again(negative, half, random)], 1)
    return random.permuted(pairs, axis=1).ravel()


def _again(pool: Indices, count: int, random: np.random.Generator) -> Indices:
    """Return ``count`` of the pool: shuffled, and shuffled anew each time it is used up."""
    rounds = [random.permutation(pool) for _ in range(-(-count // len(pool)))]
    return np.concatenate(rounds)[:count]


@dataclass(frozen=True, slots=True)
class Stream:
    """The positions of an endless stream that one rank sees, as (position, index).

    Attributes
    ----------
    start
        The first position of the stream; a run that has seen ``steps`` batches on each of
        ``world`` ranks resumes at ``steps * batch_size * world``.

    """

    way: Sampling
    rank: int = 0
    world: int = 1
    start: int = 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield without end."""
        size = length(self.way)
        position = self.start + self.rank
        number, order = -1, np.empty(0, np.int64)
        while True:
            if position // size != number:
                number = position // size
                order = epoch(self.way, number)
            yield position, int(order[position % size])
            position += self.world


@dataclass(frozen=True, slots=True)
class Share:
    """The part of a dataset that one rank evaluates: each sample once, on one rank only."""

    count: int
    rank: int = 0
    world: int = 1

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield (index, index): an evaluation has no epochs."""
        return ((one, one) for one in range(self.rank, self.count, self.world))

    def __len__(self) -> int:
        """Return this rank's number of samples, which may differ by one between ranks."""
        return len(range(self.rank, self.count, self.world))


def balanced_subset(present: Sequence[Set[int]], wanted: int, seed: int = 1234) -> list[int]:
    """Return the samples that show a class and as many others, in the list's order.

    What jaccardSegment validates on.
    """
    shown = [one for one, seen in enumerate(present) if wanted in seen]
    others = [one for one, seen in enumerate(present) if wanted not in seen]
    random = np.random.Generator(np.random.PCG64(seed))
    drawn = random.permutation(np.array(others, np.int64))[: len(shown)]
    return sorted([*shown, *drawn.tolist()])

"""The CPU lattice: features become one sparse record per image, values are filtered by it.

Nothing depends on the number of threads: every sum is done by one of them in a fixed order.
"""

import warnings
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from . import geometry, kernels, simplices
from .orders import Order
from .threads import at_hand, conduct, each, each_image, ranges, spread

Array = NDArray[Any]

_TILE = 16384  # rows, whose sums stay in a core's cache until they are used


def _sparse_products() -> bool:
    """Return whether torch has MKL's; the first use warns that they are a beta, and unchecked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            one = torch.eye(1, device="cpu")
            starts, places = torch.tensor([[0, 1], [0, 0]], device="cpu")
            matrix = torch.sparse_csr_tensor(
                starts, places[:1], one[0], one.shape, check_invariants=False
            )
            torch.addmm(one, matrix, one)
        except RuntimeError:
            return False
    return bool(torch.backends.mkl.is_available())  # type: ignore[no-untyped-call]


_MKL = _sparse_products()


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """A sparse matrix by rows, whose product has a weighted sum of given rows in each of its own.

    The products are MKL's where torch has it, else ``embedding_bag``'s. Both write machine code
    for the processor while they run, and take a third to half the time of what numba compiles.
    """

    starts: Tensor  # (rows + 1,): where a row's part of the next two begins
    places: Tensor  # (entries,)
    weights: Tensor  # (entries,)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.starts) - 1

    def write(self, values: Tensor, first: int, last: int, result: Tensor) -> None:
        """Write rows first..last of the product with values (places, channels) into a result."""
        starts = self.starts[first : last + 1]
        entries = slice(int(starts[0]), int(starts[-1]))
        starts, places, weights = starts - starts[0], self.places[entries], self.weights[entries]
        if _MKL:
            shape = last - first, len(values)
            matrix = torch.sparse_csr_tensor(
                starts, places, weights, shape, device="cpu", check_invariants=False
            )
            torch.addmm(result, matrix, values, beta=0, out=result)
            return
        bags = F.embedding_bag(
            places,
            values,
            starts,
            mode="sum",
            per_sample_weights=weights,
            include_last_offset=True,
        )
        result.copy_(bags)

    def into(self, result: Array, values: Tensor) -> None:
        """Write the product into the first rows of the result."""
        rows = torch.from_numpy(result)

        def part(first: int, last: int) -> None:
            self.write(values, first, last, rows[first:last])

        spread(part, len(self))


def spread_tiles(function: Callable[[int, int], object], count: int) -> None:
    """Call with the bounds of ranges whose sums stay in a core's cache."""

    def part(first: int, last: int) -> None:
        for tile in range(first, last, _TILE):
            function(tile, min(tile + _TILE, last))

    spread(part, count)


@dataclass(frozen=True, slots=True, eq=False)
class ImageLattice:
    """One image's filter: a sum at every vertex, the blur, a sum at every pixel."""

    splat: Sums  # with the filter's gain
    slice: Sums
    chains: tuple[tuple[Array, Array], ...]  # per axis: vertices in line, where a line begins


def build(
    features: Tensor, bounds: geometry.Bounds, dtype: torch.dtype, deterministic: bool
) -> tuple[ImageLattice, ...]:
    """Return the lattices of features (batch, pixels, d); they are always deterministic."""
    del deterministic
    strides, _ = geometry.strides(*bounds, images=1)
    kind = features.new_empty(0, dtype=dtype).numpy().dtype
    return conduct(_build, features.contiguous().numpy(), strides, kind)


def _build(
    points: Array, strides: NDArray[np.int64], kind: np.dtype[Any]
) -> tuple[ImageLattice, ...]:
    batch, pixels, d = points.shape
    # In one piece for the batch, because numpy asks for huge pages from 4 MiB on: the faults of
    # small pages would take a third of the time.
    vertices = np.empty((batch, pixels, d + 1), np.int32)
    weights = np.empty((batch, pixels, d + 1), kind)
    nearby = np.empty((batch, pixels * (d + 1)), np.int32)
    shares = np.empty((batch, pixels * (d + 1)), kind)
    spare = deque(np.empty((min(batch, at_hand()), d + 1, pixels), np.int64))

    def build_image(i: int) -> ImageLattice:
        keys = spare.pop()  # of an image that is done, if there was one
        lattice = _build_image(
            points[i], strides, keys, vertices[i], weights[i], nearby[i], shares[i]
        )
        spare.append(keys)
        return lattice

    return tuple(each_image(build_image, range(batch)))


def _build_image(
    points: Array,
    strides: NDArray[np.int64],
    keys: Array,
    vertices: Array,
    weights: Array,
    nearby: Array,
    shares: Array,
) -> ImageLattice:
    count, d = points.shape
    scale = geometry.scale(d)
    spread(partial(simplices.embed, points, scale, strides, keys, weights), count)

    # Vertices of different remainders differ, so that each remainder has a table of its own.
    tables = each(lambda i: kernels.index(keys[i], vertices[:, i]), range(d + 1))
    first = np.cumsum([0, *(len(names) for _, names in tables)])
    numbers = np.split(kernels.merge(vertices, first), first[1:-1])

    parts = ranges(count, at_hand())
    counts = np.zeros((len(parts), first[-1]), np.int32)
    each(lambda part: kernels.tally(vertices, counts[part], *parts[part]), range(len(parts)))
    starts = kernels.allot(counts)
    gain = weights.dtype.type(geometry.gain(d))

    def by_vertex(part: int) -> None:
        kernels.transpose(vertices, weights, gain, counts[part], nearby, shares, *parts[part])

    steps = strides[: d + 1] - strides[d + 1]  # each lowers the remainder by one

    def line_up(axis: int) -> tuple[Array, Array]:
        following = np.empty(first[-1], np.int32)
        for i, (_, names) in enumerate(tables):
            table, others = tables[i - 1]
            targets = numbers[i - 1]
            kernels.follow(names, steps[axis], table, others, numbers[i], targets, following)
        order, starts = kernels.chain(following)
        return order, starts

    each(by_vertex, range(len(parts)))
    chains = each(line_up, range(d + 1))
    corners = np.arange(count + 1, dtype=np.int32) * np.int32(d + 1)
    return ImageLattice(
        splat=Sums(*map(torch.from_numpy, (starts, nearby, shares))),
        slice=Sums(*map(torch.from_numpy, (corners, vertices.ravel(), weights.ravel()))),
        chains=tuple(chains),
    )


def apply(images: tuple[ImageLattice, ...], values: Tensor, order: Order) -> Tensor:
    """Filter values (batch, pixels, channels)."""
    if len(images) != len(values):
        images = images * len(values)
    result = np.empty(values.shape, values.new_empty(0).numpy().dtype)
    given = values.detach()

    def apply_image(i: int) -> None:
        _apply_image(images[i], given[i], result[i], order)

    conduct(each_image, apply_image, range(len(result)))
    return torch.from_numpy(result)


def _apply_image(image: ImageLattice, values: Tensor, result: Array, order: Order) -> None:
    rows = np.empty((len(image.splat), values.shape[1]), result.dtype)
    lined_up = np.empty(result.shape, result.dtype)
    by_pixel = values.numpy()  # often a view of channels first

    def line_up(first: int, last: int) -> None:
        np.copyto(lined_up[first:last], by_pixel[first:last])  # faster than torch's

    spread_tiles(line_up, len(lined_up))
    image.splat.into(rows, torch.from_numpy(lined_up))
    if order is Order.SYMMETRIC:
        other = rows.copy()
        blur(rows, image.chains)
        blur(other, image.chains[::-1])
        rows += other
        rows *= rows.dtype.type(0.5)
    else:
        blur(rows, image.chains if order is Order.FORWARD else image.chains[::-1])
    image.slice.into(result, torch.from_numpy(rows))


def blur(rows: Array, chains: tuple[tuple[Array, Array], ...]) -> None:
    """Blur the vertices' rows along one axis after the other, in place."""
    for order, starts in chains:
        spread(partial(_blur_lines, rows, order, starts), int(starts[-1]))


def _blur_lines(rows: Array, order: Array, starts: Array, first: int, last: int) -> None:
    """Blur the chains that begin in a range of places: they may be few and long."""
    kernels.blur(rows, order, starts, *np.searchsorted(starts, (first, last)))

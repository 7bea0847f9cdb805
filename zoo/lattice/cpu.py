"""The CPU lattice: features become one sparse record per image, values are filtered by it.

Nothing depends on the number of threads: every sum is done by one of them in a fixed order.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import geometry, kernels
from .orders import Order
from .threads import each, each_image, spread

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class ImageLattice:
    """One image's simplices, seen from its pixels and from its vertices, and its blur."""

    vertices: Array  # (pixels, corners)
    weights: Array  # (pixels, corners)
    starts: Array  # (vertices + 1,): where a vertex's part of the next two begins
    pixels: Array  # (pixels * corners,)
    shares: Array  # (pixels * corners,): the weights, with the filter's gain
    chains: tuple[tuple[Array, Array], ...]  # per axis: vertices in line, where a line begins


def build(
    features: Tensor, bounds: geometry.Bounds, dtype: torch.dtype, deterministic: bool
) -> tuple[ImageLattice, ...]:
    """Return the lattices of features (batch, pixels, d); they are always deterministic."""
    del deterministic
    batch, pixels, d = features.shape
    strides, _ = geometry.strides(*bounds, images=1)
    kind = torch.empty((), dtype=dtype).numpy().dtype
    # In one piece for the batch, because numpy asks for huge pages from 4 MiB on: the faults of
    # small pages would take a third of the time.
    keys = np.empty((batch, d + 1, pixels), np.int64)
    vertices = np.empty((batch, pixels, d + 1), np.int32)
    weights = np.empty((batch, pixels, d + 1), kind)
    nearby = np.empty((batch, pixels * (d + 1)), np.int32)
    shares = np.empty((batch, pixels * (d + 1)), kind)
    points = features.contiguous().numpy()

    def build_image(i: int) -> ImageLattice:
        return _build_image(
            points[i], strides, keys[i], vertices[i], weights[i], nearby[i], shares[i]
        )

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
    spread(partial(kernels.embed, points, scale, strides, keys, weights), count)

    # Vertices of different remainders differ, so that each remainder has a table of its own.
    tables = each(lambda i: kernels.index(keys[i], vertices[:, i]), range(d + 1))
    first = np.cumsum([0, *(len(names) for _, names in tables)])
    vertices += first[:-1].astype(np.int32)

    steps = strides[: d + 1] - strides[d + 1]  # each lowers the remainder by one

    def line_up(axis: int) -> tuple[Array, Array]:
        following = np.empty(first[-1], np.int32)
        for i, (_, names) in enumerate(tables):
            part = following[first[i] : first[i + 1]]
            kernels.follow(names, steps[axis], tables[i - 1][0], first[i - 1 if i else d], part)
        order, starts = kernels.chain(following)
        return order, starts

    chains = each(line_up, range(d + 1))
    gain = weights.dtype.type(geometry.gain(d))
    starts = kernels.transpose(vertices, weights, gain, int(first[-1]), nearby, shares)
    return ImageLattice(vertices, weights, starts, nearby, shares, tuple(chains))


def apply(images: tuple[ImageLattice, ...], values: Tensor, order: Order) -> Tensor:
    """Filter values (batch, pixels, channels)."""
    if len(images) != len(values):
        images = images * len(values)
    result = np.empty(values.shape, torch.empty((), dtype=values.dtype).numpy().dtype)
    triples = list(zip(images, values.detach(), result, strict=True))
    each_image(lambda triple: _apply_image(*triple, order), triples)
    return torch.from_numpy(result)


def _apply_image(image: ImageLattice, values: Tensor, result: Array, order: Order) -> None:
    rows = np.empty((len(image.starts) - 1, values.shape[1]), result.dtype)
    splat(image, values.contiguous().numpy(), rows)  # Channels often come first: transposed here.
    if order is Order.SYMMETRIC:
        other = rows.copy()
        blur(rows, image.chains)
        blur(other, image.chains[::-1])
        rows += other
        rows *= rows.dtype.type(0.5)
    else:
        blur(rows, image.chains if order is Order.FORWARD else image.chains[::-1])
    gather = partial(kernels.gather, rows, image.vertices, image.weights, result)
    spread(gather, len(result))


def splat(image: ImageLattice, values: Array, rows: Array) -> None:
    """Spread the pixels' values over the rows of the vertices."""
    part = partial(kernels.splat, rows, image.starts, image.pixels, image.shares, values)
    spread(part, len(rows))


def blur(rows: Array, chains: tuple[tuple[Array, Array], ...]) -> None:
    """Blur the vertices' rows along one axis after the other, in place."""
    for order, starts in chains:
        spread(partial(kernels.blur, rows, order, starts), len(starts) - 1)

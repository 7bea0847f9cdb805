"""All steps of mean-field inference for Potts models on the CPU, in one loop."""

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..lattice.cpu import Array, ImageLattice, Sums, blur, spread_tiles
from ..lattice.threads import each_image
from .pairwise import Pairwise
from .softmax import softmax_rows


def fused(unary: Tensor, terms: list[Pairwise], iterations: int) -> Tensor:
    """Run inference on unary (batch, pixels, classes) float32, with Potts terms on the CPU.

    Normalisation and Potts weights are multiplied into the lattices' weights, and the unary's
    rows lie below those of all vertices: one sum at a pixel is then all of its energy.
    """
    result = np.empty(unary.shape, np.float32)
    energies = unary.detach().numpy()

    def infer(image: int) -> None:
        _infer(terms, image, energies[image], result[image], iterations)

    each_image(infer, range(len(result)))
    return torch.from_numpy(result)


def _infer(terms: list[Pairwise], image: int, unary: Array, result: Array, iterations: int) -> None:
    def of_image(every: Any) -> Any:  # A term of one image serves all.
        return every[image % len(every)]

    lattices: list[ImageLattice] = [of_image(term.lattice.built(torch.float32)) for term in terms]
    splats = [
        _weighted(lattice.splat, of_image(term.before)[:, 0])
        for lattice, term in zip(lattices, terms, strict=True)
    ]
    first = np.cumsum([0, *map(len, splats)]).tolist()
    gathered = _side_by_side(
        [lattice.slice for lattice in lattices],
        [of_image(term.after) * term.compatibility for term in terms],
        first,
    )
    memory = np.empty((first[-1] + len(result), result.shape[1]), result.dtype)
    parts = [memory[start:end] for start, end in pairwise(first)]
    below = memory[first[-1] :]
    rows, q = torch.from_numpy(memory), torch.from_numpy(result)

    def begin(first: int, last: int) -> None:
        np.negative(unary[first:last], out=below[first:last])
        softmax_rows(torch.from_numpy(below[first:last].copy()), result[first:last])

    def update(first: int, last: int) -> None:
        energies = rows.new_empty(last - first, result.shape[1])
        gathered.write(rows, first, last, energies)
        softmax_rows(energies, result[first:last])

    spread_tiles(begin, len(result))
    for _ in range(iterations):
        for lattice, splat, part in zip(lattices, splats, parts, strict=True):
            splat.into(part, q)
            blur(part, lattice.chains)
        spread_tiles(update, len(result))


def _weighted(splat: Sums, factor: Tensor) -> Sums:
    """Multiply each pixel's weights by its factor."""
    weights = torch.empty_like(splat.weights)
    given, places, factors, result = (
        tensor.numpy() for tensor in (splat.weights, splat.places, factor, weights)
    )

    def part(first: int, last: int) -> None:
        entries = slice(first, last)
        np.multiply(given[entries], factors.take(places[entries]), out=result[entries])

    spread_tiles(part, len(result))
    return Sums(splat.starts, splat.places, weights)


def _side_by_side(parts: list[Sums], factors: list[Tensor], first: list[int]) -> Sums:
    """Join sums over the rows from ``first``, each times a factor, and a pixel's own last row."""
    pixels = len(factors[0])
    width = sum(len(part.places) for part in parts) // pixels + 1
    places = np.empty((pixels, width), np.int32)
    weights = np.empty((pixels, width), np.float32)

    def lay(start: int, end: int) -> None:
        here = slice(start, end)
        column = 0
        for part, factor, row in zip(parts, factors, first, strict=False):
            corners, shares = (
                t.view(pixels, -1)[here].numpy() for t in (part.places, part.weights)
            )
            there = here, slice(column, column + corners.shape[1])
            np.add(corners, row, out=places[there])
            np.multiply(shares, factor[here].numpy(), out=weights[there])
            column += corners.shape[1]
        places[here, column] = np.arange(first[-1] + start, first[-1] + end)
        weights[here, column] = 1

    spread_tiles(lay, pixels)
    starts = np.arange(pixels + 1, dtype=np.int32) * np.int32(width)
    return Sums(*map(torch.from_numpy, (starts, places.ravel(), weights.ravel())))

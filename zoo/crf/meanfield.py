"""All steps of mean-field inference for Potts models on the CPU, in one loop."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..lattice.cpu import Array, ImageLattice, Sums, blur, spread_tiles
from ..lattice.threads import conduct, each_image
from .pairwise import Pairwise


def fused(unary: Tensor, terms: list[Pairwise], iterations: int) -> Tensor:
    """Run inference on unary (batch, pixels, classes) float32, with Potts terms on the CPU.

    The terms' lattices are laid side by side as one, normalisation and Potts weights multiplied
    into its weights, and the unary's rows below the vertices': splat and blur then serve all
    terms, and one sum at a pixel is all of its energy.
    """
    result = np.empty(unary.shape, np.float32)
    images = [_side_by_side(terms, image) for image in range(len(unary))]
    triples = list(zip(images, -unary.detach(), result, strict=True))
    each_image(lambda triple: _infer(*triple, iterations), triples)
    return torch.from_numpy(result)


def _infer(lattice: ImageLattice, start: Tensor, result: Array, iterations: int) -> None:
    vertices = len(lattice.splat)
    memory = np.empty((vertices + len(result), result.shape[1]), result.dtype)
    memory[vertices:] = start.numpy()
    rows, q = torch.from_numpy(memory), torch.from_numpy(result)

    def update(first: int, last: int) -> None:
        torch.softmax(lattice.slice.of(rows, first, last), 1, out=q[first:last])

    torch.softmax(rows[vertices:], 1, out=q)
    for _ in range(iterations):
        lattice.splat.into(memory, q)
        blur(memory, lattice.chains)
        spread_tiles(update, len(q))


def _side_by_side(terms: list[Pairwise], image: int) -> ImageLattice:
    def of_image(every: Any) -> Any:  # A term of one image serves all.
        return every[image % len(every)]

    parts: list[ImageLattice] = [of_image(term.lattice.built(torch.float32)) for term in terms]
    before = [of_image(term.before)[:, 0] for term in terms]
    after = [of_image(term.after) * term.compatibility for term in terms]
    pixels = len(after[0])
    shifts = np.cumsum([0, *(len(part.splat) for part in parts)]).tolist()
    passed = np.cumsum([0, *(len(part.splat.places) for part in parts)]).tolist()
    own = torch.arange(shifts[-1], shifts[-1] + pixels, dtype=torch.int32)[:, None]
    corners = [part.slice.places.view(pixels, -1) for part in parts]
    weights = [part.slice.weights.view(pixels, -1) for part in parts]
    vertices = torch.hstack([*(c + n for c, n in zip(corners, shifts, strict=False)), own])
    weighted = [w * factor for w, factor in zip(weights, after, strict=True)]
    ends = [part.splat.starts[1:] + n for part, n in zip(parts, passed, strict=False)]
    return ImageLattice(
        splat=Sums(
            starts=torch.cat([ends[0].new_zeros(1), *ends]),
            places=torch.cat([part.splat.places for part in parts]),
            weights=torch.cat(
                [
                    part.splat.weights * factor[part.splat.places]
                    for part, factor in zip(parts, before, strict=True)
                ]
            ),
        ),
        slice=Sums(
            starts=torch.arange(pixels + 1, dtype=torch.int32) * vertices.shape[1],
            places=vertices.flatten(),
            weights=torch.hstack([*weighted, torch.ones(pixels, 1)]).flatten(),
        ),
        chains=tuple(
            (order + np.int32(shift), starts)
            for part, shift in zip(parts, shifts, strict=False)
            for order, starts in part.chains
        ),
    )

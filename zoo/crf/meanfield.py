"""All steps of mean-field inference for Potts models on the CPU, in one loop."""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..lattice.cpu import Array, ImageLattice, blur, splat
from ..lattice.kernels import gather
from ..lattice.threads import each_image, spread
from .kernels import lower, normalise
from .pairwise import Pairwise

_TILE = 4096  # pixels, which stay in a core's cache from gather to normalise


def fused(unary: Tensor, terms: list[Pairwise], iterations: int) -> Tensor:
    """Run inference on unary (batch, pixels, classes) float32, with Potts terms on the CPU.

    The terms' lattices are laid side by side as one, normalisation and Potts weights multiplied
    into its weights; splat, blur and a combined slice, sum and softmax then serve all terms.
    """
    result = np.empty(unary.shape, np.float32)
    images = [_side_by_side(terms, image) for image in range(len(unary))]
    triples = list(zip(images, unary.detach(), result, strict=True))
    each_image(lambda triple: _infer(*triple, iterations), triples)
    return torch.from_numpy(result)


def _infer(lattice: ImageLattice, unary: Tensor, q: Array, iterations: int) -> None:
    start = (-unary).contiguous()
    q[:] = start.softmax(1).numpy()
    rows = np.empty((len(lattice.starts) - 1, q.shape[1]), np.float32)
    receive = partial(gather, rows, lattice.vertices, lattice.weights, q)

    def update(first: int, last: int) -> None:
        for tile in range(first, last, _TILE):
            end = min(tile + _TILE, last)
            receive(tile, end)
            lower(start.numpy(), q, tile, end)
            np.exp(q[tile:end], out=q[tile:end])
            normalise(q, tile, end)

    for _ in range(iterations):
        splat(lattice, q, rows)
        blur(rows, lattice.chains)
        spread(update, len(q))


def _side_by_side(terms: list[Pairwise], image: int) -> ImageLattice:
    def of_image(every: Any) -> Any:  # A term of one image serves all.
        return every[image % len(every)]

    parts: list[ImageLattice] = [of_image(term.lattice.built(torch.float32)) for term in terms]
    before = [of_image(term.before)[:, 0].numpy() for term in terms]
    after = [(of_image(term.after) * term.compatibility).numpy() for term in terms]
    sizes = [len(part.starts) - 1 for part in parts]
    shifts = np.cumsum([0, *sizes[:-1]])
    passed = np.cumsum([0, *(len(part.pixels) for part in parts)])
    return ImageLattice(
        vertices=np.hstack(
            [part.vertices + np.int32(shift) for part, shift in zip(parts, shifts, strict=True)]
        ),
        weights=np.hstack([part.weights * w for part, w in zip(parts, after, strict=True)]),
        starts=np.concatenate(
            [part.starts[:-1] + np.int32(n) for part, n in zip(parts, passed, strict=False)]
            + [passed[-1:].astype(np.int32)]
        ),
        pixels=np.concatenate([part.pixels for part in parts]),
        shares=np.concatenate(
            [part.shares * w[part.pixels] for part, w in zip(parts, before, strict=True)]
        ),
        chains=tuple(
            (order + np.int32(shift), starts)
            for part, shift in zip(parts, shifts, strict=True)
            for order, starts in part.chains
        ),
    )

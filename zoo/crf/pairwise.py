"""Pixels' features become a `Pairwise` term: a lattice, its normalisation, a compatibility."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...proto.errors import UsageError
from ..lattice.permutohedral import PermutohedralLattice

Normalization = Literal["none", "before", "after", "symmetric"]
Compatibility = float | Tensor | NDArray[Any]

_TINY = 1e-20  # as in the authors' program, where a pixel has no neighbour


@dataclass(frozen=True, slots=True, eq=False)
class Pairwise:
    """A kernel between pixels and a cost between their classes.

    The kernel is ``diag(after) A diag(before)`` with the lattice's filter A; both factors are
    (batch, pixels, 1).
    """

    lattice: PermutohedralLattice
    before: Tensor
    after: Tensor
    compatibility: float | Tensor


def pairwise(
    lattice: PermutohedralLattice,
    compatibility: float | Tensor,
    normalization: Normalization,
    dtype: torch.dtype,
) -> Pairwise:
    """Normalise the kernel of a lattice.

    ``none`` divides by the mean over pixels of the kernel's sums ``A 1``, ``before`` and
    ``after`` by each pixel's own, ``symmetric`` on both sides by its root.
    """
    ones = torch.ones(*lattice.shape, 1, dtype=dtype, device=lattice.device)
    sums = lattice.filter(ones)
    if normalization == "none":
        return Pairwise(lattice, ones, ones / sums.mean(1, keepdim=True), compatibility)
    if normalization == "before":
        return Pairwise(lattice, 1 / (sums + _TINY), ones, compatibility)
    if normalization == "after":
        return Pairwise(lattice, ones, 1 / (sums + _TINY), compatibility)
    if normalization == "symmetric":
        root = (sums + _TINY).rsqrt()
        return Pairwise(lattice, root, root, compatibility)
    raise UsageError(
        f"normalization: {normalization!r}, expected 'none', 'before', 'after' or 'symmetric'"
    )


def cost(term: Pairwise, q: Tensor) -> Tensor:
    """Return what the classes' probabilities q (batch, pixels, classes) cost each class."""
    near = term.after * term.lattice.filter(term.before * q)
    if isinstance(term.compatibility, Tensor):
        with torch.autocast(near.device.type, enabled=False):
            return near @ term.compatibility.T
    return -term.compatibility * near


def compatibility_matrix(given: Compatibility, classes: int, like: Tensor) -> float | Tensor:
    """Check a compatibility: a Potts weight, or costs by class or by pair of classes.

    A number w is Potts's model, which costs w unless the classes are equal; because the
    probabilities sum to one, that is ``-w`` on the diagonal. A vector is a diagonal of costs.
    """
    if not isinstance(given, Tensor) and np.ndim(given) == 0:
        if not math.isfinite(given):
            raise UsageError(f"compat: {given}, expected a finite number")
        return float(given)
    costs = torch.as_tensor(given).to(like)
    if tuple(costs.shape) not in ((classes,), (classes, classes)):
        raise UsageError(
            f"compat: shape {tuple(costs.shape)}, expected a number, ({classes},) or "
            f"({classes}, {classes}) for {classes} classes"
        )
    if not costs.isfinite().all():
        raise UsageError(f"compat: {costs.tolist()}, expected finite numbers")
    return torch.diag(costs) if costs.dim() == 1 else costs

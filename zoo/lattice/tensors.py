"""The lattice in torch operations, for GPUs: features become index tensors on their device.

The geometry has the CPU kernels' operations one by one, in float64, so that both choose the same
vertices. The hash table is a sorted list of the vertices' names.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from . import geometry
from .orders import Order


@dataclass(frozen=True, slots=True, eq=False)
class TensorLattice:
    """The simplices and the blur of a batch, whose vertices are numbered together."""

    vertices: Tensor  # (batch * pixels, corners)
    weights: Tensor  # (batch * pixels, corners)
    neighbours: Tensor  # (axes, 2, vertices): the number past the last means none
    sorting: tuple[Tensor, Tensor] | None  # corners by vertex, how many each; if deterministic


def build(
    features: Tensor, bounds: geometry.Bounds, dtype: torch.dtype, deterministic: bool
) -> TensorLattice:
    """Return the lattice of features (batch, pixels, d)."""
    batch, pixels, d = features.shape
    points = features.double().reshape(-1, d)
    numbers, image = geometry.strides(*bounds, images=batch)
    strides = torch.from_numpy(numbers).to(points.device)

    keys, weights = _embed(points, strides)
    keys += image * torch.arange(batch, device=keys.device).repeat_interleave(pixels)[:, None]
    names, vertices, counts = torch.unique(keys, return_inverse=True, return_counts=True)
    steps = strides[: d + 1] - strides[d + 1]
    targets = names + torch.stack([steps, -steps], 1)[:, :, None]
    found = torch.searchsorted(names, targets).clamp_(max=len(names) - 1)
    neighbours = torch.where(names[found] == targets, found, len(names))
    sorting = (vertices.flatten().argsort(stable=True), counts) if deterministic else None
    return TensorLattice(vertices, weights.to(dtype), neighbours, sorting)


def _embed(points: Tensor, strides: Tensor) -> tuple[Tensor, Tensor]:
    """Return each point's vertices' names and weights, both (points, d + 1)."""
    d = points.shape[1]
    scaled = points * torch.from_numpy(geometry.scale(d)).to(points.device)
    elevated = points.new_empty(len(points), d + 1)
    total = torch.zeros_like(points[:, 0])
    for i in range(d, 0, -1):
        elevated[:, i] = (total - i * scaled[:, i - 1]) / (d + 1)
        total = total + scaled[:, i - 1]
    elevated[:, 0] = total / (d + 1)

    cell = elevated.round()
    falling = torch.sort(elevated - cell, dim=1, descending=True, stable=True).indices
    excess = cell.sum(1, keepdim=True).long()
    rank = torch.empty_like(falling)
    places = torch.arange(d + 1, device=points.device).expand_as(rank)
    rank.scatter_(1, falling, places)
    rank += excess
    carry = (rank < 0).long() - (rank > d).long()
    rank += carry * (d + 1)
    cell += carry
    axis = torch.empty_like(rank).scatter_(1, d - rank, places)

    offset = (elevated - cell).gather(1, axis)
    weights = offset - torch.cat([offset[:, -1:] - 1, offset[:, :-1]], 1)
    first = (cell.long() * strides[: d + 1]).sum(1, keepdim=True)
    steps = strides[d + 1] - strides[axis[:, :-1]]
    return torch.cat([first, first + steps.cumsum(1)], 1), weights


def apply(lattice: TensorLattice, values: Tensor, order: Order) -> Tensor:
    """Filter values (batch, pixels, channels)."""
    batch, pixels, channels = values.shape
    if len(lattice.vertices) != batch * pixels:  # One image's lattice: batches become channels.
        wide = values.transpose(0, 1).reshape(1, pixels, batch * channels)
        return apply(lattice, wide, order).view(pixels, batch, channels).transpose(0, 1)
    flat = values.detach().reshape(-1, channels)
    rows = _splat(lattice, flat)
    if order is Order.SYMMETRIC:
        rows = (_blur(rows, lattice.neighbours) + _blur(rows, lattice.neighbours.flip(0))) / 2
    else:
        forward = order is Order.FORWARD
        rows = _blur(rows, lattice.neighbours if forward else lattice.neighbours.flip(0))
    rows *= geometry.gain(lattice.vertices.shape[1] - 1)
    result = torch.zeros_like(flat)
    for corner, weight in zip(lattice.vertices.T, lattice.weights.T, strict=True):
        result.addcmul_(rows[corner], weight[:, None])
    return result.view(values.shape)


def _splat(lattice: TensorLattice, values: Tensor) -> Tensor:
    """Return the rows (vertices + 1, channels); the last is zero and stands for no neighbour."""
    count = lattice.neighbours.shape[2]
    if lattice.sorting is None:
        rows = values.new_zeros(count + 1, values.shape[1])
        for corner, weight in zip(lattice.vertices.T, lattice.weights.T, strict=True):
            rows.index_add_(0, corner, values * weight[:, None])
        return rows
    corners, counts = lattice.sorting
    pixels = corners // lattice.vertices.shape[1]
    parts = values[pixels] * lattice.weights.flatten()[corners, None]
    rows = torch.segment_reduce(parts, "sum", lengths=counts, axis=0)
    return torch.cat([rows, rows.new_zeros(1, values.shape[1])])


def _blur(rows: Tensor, neighbours: Tensor) -> Tensor:
    for before, after in neighbours:
        blurred = rows.clone()
        blurred[:-1] += 0.5 * (rows[before] + rows[after])
        rows = blurred
    return rows

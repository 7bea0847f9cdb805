"""Layers that move numbers or count them: joins, cuts, reshapes, reductions, ArgMax."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import torch
from torch import Tensor

from ...proto.caffe_pb2 import ReductionParameter
from ...proto.records import Layer
from .registry import MANY, Operation, Shape, Weights, axis_of, layer, misfit, wrong


def _legacy_axis(layer: Layer, settings: object, old: str) -> int:
    """Read ``axis``, or the field that stood for it in older files."""
    has_old = settings.HasField(old)  # type: ignore[attr-defined]
    if has_old and settings.HasField("axis"):  # type: ignore[attr-defined]
        raise wrong(layer, f"both axis and {old}, expected one of them")
    value: int = getattr(settings, old if has_old else "axis")
    return value


@layer("Concat", bottoms=(1, MANY))
def concat(layer: Layer) -> Operation:
    """Join along an axis."""
    axis = _legacy_axis(layer, layer.params.concat_param, "concat_dim")

    def sizes(shapes: Sequence[Shape]) -> Sequence[Shape]:
        at = axis_of(layer, shapes, axis)
        rests = {(*shape[:at], *shape[at + 1 :]) for shape in shapes}
        if len(rests) > 1 or any(len(shape) != len(shapes[0]) for shape in shapes):
            raise misfit(layer, shapes, f"equal shapes but for axis {axis}")
        total = sum(shape[at] for shape in shapes)
        return [(*shapes[0][:at], total, *shapes[0][at + 1 :])]

    return Operation(sizes, lambda _, bottoms: [torch.cat(list(bottoms), axis)])


@layer("Slice", tops=(1, MANY))
def slice_(layer: Layer) -> Operation:
    """Cut along an axis at ``slice_point``s, or in equal parts."""
    settings = layer.params.slice_param
    axis, count = _legacy_axis(layer, settings, "slice_dim"), len(layer.tops)
    points = list(settings.slice_point)
    if points and len(points) != count - 1:
        raise wrong(layer, f"{len(points)} slice_point for {count} tops, expected {count - 1}")

    def parts(shapes: Sequence[Shape]) -> list[int]:
        whole = shapes[0][axis_of(layer, shapes, axis)]
        if not points:
            if whole % count:
                raise misfit(layer, shapes, f"an axis {axis} that {count} tops divide")
            return [whole // count] * count
        edges = [0, *points, whole]
        sizes = [end - begin for begin, end in pairwise(edges)]
        if min(sizes) <= 0:
            raise misfit(layer, shapes, f"slice points {points} to rise within axis {axis}")
        return sizes

    def sizes(shapes: Sequence[Shape]) -> Sequence[Shape]:
        at = axis_of(layer, shapes, axis)
        return [(*shapes[0][:at], size, *shapes[0][at + 1 :]) for size in parts(shapes)]

    def run(_: Weights, bottoms: Sequence[Tensor]) -> Sequence[Tensor]:
        return torch.split(bottoms[0], parts([tuple(bottoms[0].shape)]), axis)

    return Operation(sizes, run)


@layer("Crop", bottoms=2)
def crop(layer: Layer) -> Operation:
    """Cut the first bottom to the second's size, from ``axis`` on, at the offsets."""
    settings = layer.params.crop_param
    offsets = list(settings.offset)

    def cuts(shapes: Sequence[Shape]) -> list[tuple[int, int, int]]:
        at = axis_of(layer, shapes, settings.axis)
        rank = len(shapes[0])
        if len(shapes[1]) != rank or len(offsets) not in (0, 1, rank - at):
            raise misfit(layer, shapes, f"equal ranks, and 0, 1 or {rank - at} offsets")
        starts = offsets if len(offsets) == rank - at else (offsets or [0]) * (rank - at)
        return [
            (axis, start, shapes[1][axis])
            for axis, start in zip(range(at, rank), starts, strict=True)
        ]

    def sizes(shapes: Sequence[Shape]) -> Sequence[Shape]:
        out = list(shapes[0])
        for axis, start, size in cuts(shapes):
            if start + size > out[axis]:
                raise misfit(layer, shapes, f"axis {axis} to hold {size} after offset {start}")
            out[axis] = size
        return [tuple(out)]

    def run(_: Weights, bottoms: Sequence[Tensor]) -> Sequence[Tensor]:
        x = bottoms[0]
        for axis, start, size in cuts([tuple(bottom.shape) for bottom in bottoms]):
            x = x.narrow(axis, start, size)
        return [x]

    return Operation(sizes, run)


@layer("Reshape")
def reshape(layer: Layer) -> Operation:
    """Give ``num_axes`` axes from ``axis`` on another shape.

    0 copies a size, -1 is what is left. A negative ``axis`` counts places between axes:
    -1 is after the last one.
    """
    settings = layer.params.reshape_param
    dims = list(settings.shape.dim)
    if dims.count(-1) > 1 or any(dim < -1 for dim in dims):
        raise wrong(layer, f"shape {dims}, expected sizes, 0, and at most one -1")

    def out(shapes: Sequence[Shape]) -> Shape:
        shape = shapes[0]
        begin = settings.axis if settings.axis >= 0 else len(shape) + settings.axis + 1
        end = len(shape) if settings.num_axes == -1 else begin + settings.num_axes
        if not 0 <= begin <= end <= len(shape) or settings.num_axes < -1:
            raise misfit(layer, shapes, f"{settings.num_axes} axes from axis {settings.axis}")
        if any(dim == 0 and begin + index >= len(shape) for index, dim in enumerate(dims)):
            raise misfit(layer, shapes, f"an axis for every 0 of {dims}")
        middle = [dim or shape[begin + index] for index, dim in enumerate(dims)]
        if -1 in middle:
            known = -prod(middle)
            whole = prod(shape[begin:end])
            if known == 0 or whole % known:
                raise misfit(layer, shapes, f"a count that {known} divides, for {dims}")
            middle[middle.index(-1)] = whole // known
        elif prod(middle) != prod(shape[begin:end]):
            raise misfit(layer, shapes, f"as many numbers as {middle} have")
        return (*shape[:begin], *middle, *shape[end:])

    def run(_: Weights, bottoms: Sequence[Tensor]) -> Sequence[Tensor]:
        return [bottoms[0].reshape(out([tuple(bottoms[0].shape)]))]

    return Operation(lambda shapes: [out(shapes)], run)


@layer("Flatten")
def flatten(layer: Layer) -> Operation:
    """Join the axes from ``axis`` to ``end_axis`` into one."""
    settings = layer.params.flatten_param

    def sizes(shapes: Sequence[Shape]) -> Sequence[Shape]:
        begin = axis_of(layer, shapes, settings.axis)
        end = axis_of(layer, shapes, settings.end_axis)
        if begin > end:
            raise misfit(layer, shapes, "axis before end_axis")
        shape = shapes[0]
        return [(*shape[:begin], prod(shape[begin : end + 1]), *shape[end + 1 :])]

    return Operation(
        sizes, lambda _, bottoms: [bottoms[0].flatten(settings.axis, settings.end_axis)]
    )


@layer("Tile")
def tile(layer: Layer) -> Operation:
    """Repeat along an axis."""
    axis, tiles = layer.params.tile_param.axis, layer.params.tile_param.tiles
    if tiles < 1:
        raise wrong(layer, f"tiles {tiles}, expected at least 1")

    def sizes(shapes: Sequence[Shape]) -> Sequence[Shape]:
        at = axis_of(layer, shapes, axis)
        return [(*shapes[0][:at], shapes[0][at] * tiles, *shapes[0][at + 1 :])]

    return Operation(sizes, lambda _, bottoms: [torch.cat([bottoms[0]] * tiles, axis)])


@layer("Permute")
def permute(layer: Layer) -> Operation:
    """Reorder axes; those that ``order`` leaves out follow as they were (SSD)."""
    order = list(layer.params.permute_param.order)
    if len(set(order)) != len(order):
        raise wrong(layer, f"order {order}, expected no axis twice")

    def full(rank: int) -> list[int]:
        return [*order, *(axis for axis in range(rank) if axis not in order)]

    def sizes(shapes: Sequence[Shape]) -> Sequence[Shape]:
        if any(axis >= len(shapes[0]) for axis in order):
            raise misfit(layer, shapes, f"the axes {order}")
        return [tuple(shapes[0][axis] for axis in full(len(shapes[0])))]

    return Operation(sizes, lambda _, bottoms: [bottoms[0].permute(full(bottoms[0].dim()))])


@layer("Reduction")
def reduction(layer: Layer) -> Operation:
    """Sum (of values, absolute values or squares) or average all from ``axis`` on."""
    settings = layer.params.reduction_param
    method = ReductionParameter.ReductionOp.Name(settings.operation)

    def sizes(shapes: Sequence[Shape]) -> Sequence[Shape]:
        return [shapes[0][: axis_of(layer, shapes, settings.axis)]]

    def run(_: Weights, bottoms: Sequence[Tensor]) -> Sequence[Tensor]:
        x = bottoms[0].flatten(settings.axis % bottoms[0].dim())
        values = {"ASUM": torch.abs, "SUMSQ": torch.square}.get(method, lambda x: x)(x)
        total = values.mean(-1) if method == "MEAN" else values.sum(-1)
        return [total * settings.coeff]

    return Operation(sizes, run)


@layer("ArgMax")
def argmax(layer: Layer) -> Operation:
    """Find the ``top_k`` largest along an axis, or in each sample; of equals the last.

    With an axis the top has the indices, or with ``out_max_val`` the values. Without, it is
    (batch, 1, top_k), or (batch, 2, top_k) with the values after the indices.
    """
    settings = layer.params.argmax_param
    count, values = settings.top_k, settings.out_max_val
    along = settings.HasField("axis")
    if count < 1:
        raise wrong(layer, "top_k 0, expected at least 1")

    def sizes(shapes: Sequence[Shape]) -> Sequence[Shape]:
        shape = shapes[0]
        at = axis_of(layer, shapes, settings.axis if along else 0)
        if count > (shape[at] if along else prod(shape[1:])):
            raise misfit(layer, shapes, f"at least {count} values, for top_k")
        if along:
            return [(*shape[:at], count, *shape[at + 1 :])]
        return [(shape[0], 2 if values else 1, count, *[1] * (len(shape) - 3))]

    def run(_: Weights, bottoms: Sequence[Tensor]) -> Sequence[Tensor]:
        x = bottoms[0]
        if along:
            top, index = largest(x, count, settings.axis)
            return [top if values else index.to(x.dtype)]
        top, index = largest(x.reshape(x.shape[0], -1), count, 1)
        found = [index.to(x.dtype), top] if values else [index.to(x.dtype)]
        ones = [1] * max(x.dim() - 3, 0)
        return [torch.stack(found, 1).reshape(x.shape[0], len(found), count, *ones)]

    return Operation(sizes, run)


def largest(x: Tensor, count: int, axis: int) -> tuple[Tensor, Tensor]:
    """Return the ``count`` largest along an axis and their indices; of equals the last first."""
    backwards = x.flip(axis)
    if count == 1:
        index = backwards.argmax(axis, keepdim=True)
        return backwards.gather(axis, index), x.shape[axis] - 1 - index
    top, index = backwards.sort(dim=axis, descending=True, stable=True)
    return top.narrow(axis, 0, count), x.shape[axis] - 1 - index.narrow(axis, 0, count)

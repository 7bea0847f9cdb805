"""The loops of the softmax over classes on the CPU, compiled by numba, around numpy's exp."""

from ..lattice.kernels import compiled


@compiled(fastmath=True)
def lower(start, q, first, last):  # type: ignore[no-untyped-def]
    """Add the start to every pixel's values, and take away the highest."""
    for pixel in range(first, last):
        value, other = q[pixel], start[pixel]
        highest = value[0] + other[0]
        for label in range(value.shape[0]):
            value[label] += other[label]
            highest = max(highest, value[label])
        for label in range(value.shape[0]):
            value[label] -= highest


@compiled(fastmath=True)
def normalise(q, first, last):  # type: ignore[no-untyped-def]
    """Scale every pixel's values to the sum of one."""
    for pixel in range(first, last):
        value = q[pixel]
        total = value[0] - value[0]
        for label in range(value.shape[0]):
            total += value[label]
        for label in range(value.shape[0]):
            value[label] /= total

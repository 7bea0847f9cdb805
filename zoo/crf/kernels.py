"""The loop of mean-field inference on the CPU, compiled by numba."""

import numpy as np

from ..lattice.kernels import compiled

_LOG2E = np.float32(1.44269504)
_LN2_HIGH = np.float32(0.693359375)
_LN2_LOW = np.float32(-2.12194440e-4)
_LOWEST = np.float32(-87.0)  # below which exp leaves float32's normal numbers
_HALF = np.float32(0.5)


@compiled(fastmath={"contract"})
def _exp(x):  # type: ignore[no-untyped-def]
    """Return exp of a float32 of at most 0, to 1.3e-7: Cephes' polynomial, as SIMD code."""
    x = max(x, _LOWEST)
    power = np.floor(x * _LOG2E + _HALF)
    rest = x - power * _LN2_HIGH - power * _LN2_LOW
    sum_ = np.float32(1.9875691500e-4)
    sum_ = sum_ * rest + np.float32(1.3981999507e-3)
    sum_ = sum_ * rest + np.float32(8.3334519073e-3)
    sum_ = sum_ * rest + np.float32(4.1665795894e-2)
    sum_ = sum_ * rest + np.float32(1.6666665459e-1)
    sum_ = sum_ * rest + _HALF
    sum_ = sum_ * rest * rest + rest + np.float32(1)
    return sum_ * np.int32((np.int32(power) + np.int32(127)) << np.int32(23)).view(np.float32)


@compiled(fastmath=True)
def update(rows, vertices, weights, start, q, first, last):  # type: ignore[no-untyped-def]
    """Gather the messages at every pixel, add the start, and make it probabilities q."""
    for pixel in range(first, last):
        value = q[pixel]
        value[:] = start[pixel]
        for corner in range(vertices.shape[1]):
            weight, row = weights[pixel, corner], rows[np.uint32(vertices[pixel, corner])]
            for label in range(value.shape[0]):
                value[label] += weight * row[label]
        highest = value[0]
        for label in range(value.shape[0]):
            highest = max(highest, value[label])
        total = np.float32(0)
        for label in range(value.shape[0]):
            value[label] = _exp(value[label] - highest)
            total += value[label]
        share = np.float32(1) / total
        for label in range(value.shape[0]):
            value[label] *= share

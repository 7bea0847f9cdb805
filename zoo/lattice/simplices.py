"""Features become simplices: the vertices around each pixel, by key, and its weights in them.

The loops run over a tile of pixels side by side, which makes SIMD code of them.
"""

import numpy as np

from .compiled import compiled

_TILE = 32  # pixels


@compiled()  # Nothing is contracted: the torch backend has the same roundings, hence vertices.
def embed(features, scale, strides, keys, weights, first, last):  # type: ignore[no-untyped-def]
    """Find each pixel's simplex: the keys ``(d + 1, pixels)`` of its vertices and their weights."""
    d = features.shape[1]
    scaled = np.zeros((d, _TILE))
    elevated = np.empty((d + 1, _TILE))
    cell = np.empty((d + 1, _TILE))
    inside = np.empty((d + 1, _TILE))
    rank = np.empty((d + 1, _TILE))
    total = np.empty(_TILE)
    for tile in range(first, last, _TILE):
        lanes = min(_TILE, last - tile)  # Others do what is left there: a fixed number is faster.
        for lane in range(lanes):
            for i in range(d):
                scaled[i, lane] = features[tile + lane, i] * scale[i]
        total[:] = 0
        for i in range(d, 0, -1):
            for lane in range(_TILE):
                elevated[i, lane] = (total[lane] - i * scaled[i - 1, lane]) / (d + 1)
                total[lane] += scaled[i - 1, lane]
        for lane in range(_TILE):
            elevated[0, lane] = total[lane] / (d + 1)
            total[lane] = 0
        for i in range(d + 1):
            for lane in range(_TILE):
                cell[i, lane] = np.rint(elevated[i, lane])
                inside[i, lane] = elevated[i, lane] - cell[i, lane]
                total[lane] += cell[i, lane]
        rank[:] = total
        for i in range(d):
            for j in range(i + 1, d + 1):
                for lane in range(_TILE):
                    lower = 1.0 if inside[i, lane] < inside[j, lane] else 0.0
                    rank[i, lane] += lower
                    rank[j, lane] += 1.0 - lower
        for i in range(d + 1):
            for lane in range(_TILE):
                carry = (1.0 if rank[i, lane] < 0 else 0.0) - (1.0 if rank[i, lane] > d else 0.0)
                rank[i, lane] += carry * (d + 1)
                cell[i, lane] += carry
                inside[i, lane] = elevated[i, lane] - cell[i, lane]
        _walk(cell, inside, rank, strides, keys, weights, tile, lanes)


@compiled()
def _walk(cell, inside, rank, strides, keys, weights, tile, lanes):  # type: ignore[no-untyped-def]
    """Go around the simplices of a tile: each step is along the axis of the next lower rank.

    Sums over all axes, of which one is not zero, are SIMD code, which a look-up is not.
    """
    d = cell.shape[0] - 1
    key = np.zeros(_TILE, np.int64)
    before = np.full(_TILE, -1.0)
    here = np.empty(_TILE)
    for i in range(d + 1):
        for lane in range(_TILE):
            key[lane] += np.int64(cell[i, lane]) * strides[i]
            before[lane] += inside[i, lane] if rank[i, lane] == 0 else 0.0
    for corner in range(d + 1):
        for lane in range(lanes):
            keys[corner, tile + lane] = key[lane]
        here[:] = 0
        for i in range(d + 1):
            step = strides[d + 1] - strides[i]
            for lane in range(_TILE):
                along = rank[i, lane] == d - corner
                here[lane] += inside[i, lane] if along else 0.0
                key[lane] += step if along else 0
        for lane in range(lanes):
            weights[tile + lane, corner] = here[lane] - before[lane]
        before[:] = here

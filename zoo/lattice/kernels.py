"""The loops of the CPU lattice, compiled by numba; each works on the range ``first..last``.

They release the interpreter's lock and hold no state, so that ``threads`` can hand ranges to
threads. numba's own ``parallel`` is left alone: its thread layers abort the process when a forked
child, or with some of them a second Python thread, enters a region.

Rows lie as ``(vertices, channels)``, so that the innermost loop runs over all channels of one
vertex and becomes SIMD code.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

_TILE = 32  # pixels at a time, for SIMD over pixels
_MIX = np.uint64(0x9E3779B97F4A7C15)  # spreads keys over a table by its top bits (Fibonacci)
_BLOCK = 8192  # vertices whose chains are sorted by length
_FREE = np.int32(-1)  # where a table has no number
_SPARSE = 8  # slots to a number, which keeps searches short


def compiled(**fast: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile on first use and keep the machine code on disk, where there is a place for it."""

    def decorate(function: Callable[..., Any]) -> Any:
        options = {"nogil": True, "error_model": "numpy", **fast}
        try:
            return njit(function, cache=True, **options)
        except RuntimeError:  # Neither the package's folder nor the user's cache can be written.
            return njit(function, **options)

    return decorate


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


@compiled()
def _find(table, names, key):  # type: ignore[no-untyped-def]
    """Return the slot of a key in an open-addressing table, or the free one where it belongs.

    The table has numbers alone, so that it stays in the cache; ``names`` has the numbers' keys.
    """
    mask = np.uint64(table.shape[0] - 1)
    mixed = np.uint64(key)
    mixed = (mixed ^ (mixed >> np.uint64(32))) * _MIX
    slot = (mixed ^ (mixed >> np.uint64(32))) & mask
    while table[slot] != _FREE and names[np.uint32(table[slot])] != key:
        slot = (slot + np.uint64(1)) & mask
    return slot


@compiled()
def _insert(table, names, keys, vertices, first, count):  # type: ignore[no-untyped-def]
    """Give numbers to keys until all names are taken; return where to go on and the count."""
    for pixel in range(first, keys.shape[0]):
        key = keys[pixel]
        slot = _find(table, names, key)
        number = table[slot]
        if number == _FREE:
            if count == names.shape[0]:
                return pixel, count
            number = table[slot] = count
            names[count] = key
            count += 1
        vertices[pixel] = number
    return keys.shape[0], count


@compiled()
def index(keys, vertices):  # type: ignore[no-untyped-def]
    """Give numbers to the distinct keys in the order of their first appearance, into ``vertices``.

    Returns the hash table of the numbers, and the keys by number.
    """
    names = np.empty(1024, np.int64)
    done = count = 0
    while True:
        table = np.full(_SPARSE * names.shape[0], _FREE)
        for number in range(count):
            table[_find(table, names, names[number])] = number
        done, count = _insert(table, names, keys, vertices, done, count)
        if done == keys.shape[0]:
            return table, names[:count]
        more = np.empty(4 * count, np.int64)
        more[:count] = names
        names = more


@compiled()
def merge(vertices, first):  # type: ignore[no-untyped-def]
    """Give the vertices of all remainders common numbers, in the order of first appearance.

    What a range of pixels touches then lies together, and threads seldom write to each other's.
    ``first`` says where each remainder's part of the returned numbers begins.
    """
    merged = np.empty(first[-1], np.int32)
    seen = np.zeros(vertices.shape[1], np.int32)
    count = 0
    for pixel in range(vertices.shape[0]):
        for corner in range(vertices.shape[1]):
            vertex = vertices[pixel, corner]
            if vertex == seen[corner]:
                seen[corner] += 1
                merged[first[corner] + vertex] = count
                count += 1
            vertices[pixel, corner] = merged[first[corner] + vertex]
    return merged


@compiled()
def follow(names, step, table, others, numbers, targets, following):  # type: ignore[no-untyped-def]
    """Look up each vertex's neighbour one step along an axis: its number, or -1.

    ``table`` and ``others`` are what `index` returned for the neighbours' remainder; ``numbers``
    and ``targets`` are the merged numbers of the vertices and of those neighbours.
    """
    for vertex in range(names.shape[0]):
        number = table[_find(table, others, names[vertex] + step)]
        found = number != _FREE
        following[np.uint32(numbers[vertex])] = targets[np.uint32(number)] if found else -1


@compiled()
def chain(following):  # type: ignore[no-untyped-def]
    """Line up the vertices that are neighbours along an axis.

    Returns the vertices chain after chain, and where each chain begins (and the last one ends).
    A vertex without neighbours is in none: the blur leaves it as it is. In each block of vertices
    chains of two come first, then those of three, so that the blur's branches are foreseen.
    """
    count = following.shape[0]
    led = np.zeros(count, np.bool_)
    for vertex in range(count):
        if following[vertex] >= 0:
            led[np.uint32(following[vertex])] = True
    order = np.empty(count, np.int32)
    starts = np.empty(count // 2 + 1, np.int32)
    leaders = np.empty((2, _BLOCK), np.int32)  # of three, of more
    filled = chains = 0
    for block in range(0, count, _BLOCK):
        three = more = 0
        for vertex in range(block, min(block + _BLOCK, count)):
            second = following[vertex]
            if second < 0 or led[vertex]:
                continue
            third = following[np.uint32(second)]
            if third < 0:
                order[filled], order[filled + 1] = vertex, second
                starts[chains] = filled
                filled, chains = filled + 2, chains + 1
            elif following[np.uint32(third)] < 0:
                leaders[0, three] = vertex
                three += 1
            else:
                leaders[1, more] = vertex
                more += 1
        for length, found in enumerate((three, more)):
            for link in leaders[length, :found]:
                starts[chains] = filled
                chains += 1
                while link >= 0:
                    order[filled] = link
                    filled += 1
                    link = following[np.uint32(link)]
    starts[chains] = filled
    return order, starts[: chains + 1]


@compiled()
def transpose(vertices, weights, gain, count, pixels, shares):  # type: ignore[no-untyped-def]
    """List by vertex the pixels around it, ascending, and their weights times the gain.

    Returns where each vertex's part of ``pixels`` and ``shares`` begins (and the last one ends).
    """
    starts = np.zeros(count + 2, np.int32)
    for vertex in vertices.flat:
        starts[vertex + 2] += 1
    for vertex in range(2, count + 2):
        starts[vertex] += starts[vertex - 1]
    for pixel in range(vertices.shape[0]):
        for corner in range(vertices.shape[1]):
            place = starts[vertices[pixel, corner] + 1]
            starts[vertices[pixel, corner] + 1] += 1
            pixels[place], shares[place] = pixel, weights[pixel, corner] * gain
    return starts[: count + 1]


@compiled(fastmath={"contract"})
def blur(rows, order, starts, first, last):  # type: ignore[no-untyped-def]
    """Add to each row half of its two neighbours' along the chains, in place."""
    before = np.empty(rows.shape[1], rows.dtype)
    half = rows.dtype.type(0.5)
    for line in range(first, last):
        start, end = starts[line], starts[line + 1]
        row, after = rows[np.uint32(order[start])], rows[np.uint32(order[start + 1])]
        if end - start == 2:  # as most are where the lattice is sparse
            for channel in range(row.shape[0]):
                x, y = row[channel], after[channel]
                row[channel] = x + half * y
                after[channel] = y + half * x
            continue
        if end - start == 3:
            third = rows[np.uint32(order[start + 2])]
            for channel in range(row.shape[0]):
                x, y, z = row[channel], after[channel], third[channel]
                row[channel] = x + half * y
                after[channel] = y + half * (x + z)
                third[channel] = z + half * y
            continue
        for channel in range(row.shape[0]):
            before[channel] = row[channel]
            row[channel] += half * after[channel]
        for place in range(start + 2, end):
            row, after = after, rows[np.uint32(order[place])]
            for channel in range(row.shape[0]):
                old = row[channel]
                row[channel] = old + half * (before[channel] + after[channel])
                before[channel] = old
        for channel in range(row.shape[0]):
            after[channel] += half * before[channel]

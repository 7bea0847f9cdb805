"""The loops of the CPU lattice after the embedding: its hash tables, chains, lists and blur.

Rows lie as ``(vertices, channels)``, so that the innermost loop runs over all channels of one
vertex and becomes SIMD code.
"""

import numpy as np

from .compiled import compiled

_MIX = np.uint64(0x9E3779B97F4A7C15)  # spreads keys over a table by its top bits (Fibonacci)
_BLOCK = 8192  # vertices whose chains are sorted by length
_FREE = np.int32(-1)  # where a table has no number
_SPARSE = 8  # slots to a number, which keeps searches short


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
def tally(vertices, counts, first, last):  # type: ignore[no-untyped-def]
    """Count how often a range of pixels touches each vertex."""
    for pixel in range(first, last):
        for corner in range(vertices.shape[1]):
            counts[np.uint32(vertices[pixel, corner])] += 1


@compiled()
def allot(counts):  # type: ignore[no-untyped-def]
    """Replace tallies (ranges, vertices) by where a range's part of each vertex's list begins.

    Returns where each vertex's list begins (and the last one ends).
    """
    ranges, count = counts.shape
    starts = np.empty(count + 1, np.int32)
    place = 0
    for vertex in range(count):
        starts[vertex] = place
        for part in range(ranges):
            here = counts[part, vertex]
            counts[part, vertex] = place
            place += here
    starts[count] = place
    return starts


@compiled()
def transpose(  # type: ignore[no-untyped-def]
    vertices, weights, gain, places, pixels, shares, first, last
):
    """List by vertex a range of pixels, ascending, and their weights times the gain.

    ``places`` says where each vertex's list goes on, in ``pixels`` and ``shares``.
    """
    for pixel in range(first, last):
        for corner in range(vertices.shape[1]):
            vertex = np.uint32(vertices[pixel, corner])
            place = np.uint32(places[vertex])
            places[vertex] += 1
            pixels[place], shares[place] = pixel, weights[pixel, corner] * gain


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

"""Masks become scribbles: a stroke along the middle of each region, as an annotator draws them.

A stroke joins the two ends of a region that are farthest apart, on the way where a step costs
the more the nearer it is to the region's border. So it follows the skeleton without its spurs,
and a smooth random field in the costs lets it wander as a hand does.
"""

import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...proto.errors import MissingDependencyError, UsageError
from ..evaluation.paint import indexed, palette
from .images import Bytes, read_mask
from .legend import REFUSED, VOID, Legend
from .rewrite import Progress, rewrite

try:
    from scipy import ndimage, sparse
    from scipy.sparse import csgraph
except ImportError:
    raise MissingDependencyError(
        "scribbles need scipy: pip install 'deeplab-zoo[scribbles]'."
    ) from None

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

SPECK = 1 / 2500  # Of the picture: a region below it is drawn on if its class has none above.
LEAST = 9  # Pixels that a region must have to be drawn on at all.
PEN = 1 / 120  # The pen's width, of the picture's shorter side; it may double.
WHOLE = 0.9  # Of a stroke's way: hands stop before the end.
ROUNDS = 4  # Of more strokes, branching off those there are, where few regions are large.
WANDER, HALF = 0.4, 3.0  # Standard deviation of the costs' logarithm; depth that halves a cost.


def scribble_masks(
    source: Path,
    target: Path,
    legend: Legend,
    *,
    share: float = 0.03,
    seed: int = 0,
    workers: int = 0,
    overwrite: bool = False,
    progress: Progress = lambda _done, _total: None,
) -> Iterator[Path]:
    """Draw scribbles of a mask, or of a folder of them, yielding each file written.

    Parameters
    ----------
    source, target
        Masks of any kind that `read_mask` knows; the file or folder of PNGs with a palette.
    legend
        What the masks' values mean.
    share
        How many of a picture's pixels to draw on, about.
    seed
        Of the strokes, which depend on it, the mask and its file's name, and on nothing else.
    workers
        Processes that draw; 0 draws in this one.
    overwrite
        Replace files that are there.
    progress
        Told how many of how many are done.

    Raises
    ------
    FormatError
        Some masks cannot be read. All of them are named, after the others were written.
    UsageError
        The share is none, the target lies in the source, or files are there already.

    """
    if not 0 < share <= 1:
        raise UsageError(f"share: {share}, expected more than 0 and at most 1 of the pixels.")
    draw = partial(_draw_file, legend=legend, share=share, seed=seed)
    yield from rewrite(
        source, target, draw, workers=workers, overwrite=overwrite, progress=progress
    )


def _draw_file(source: Path, legend: Legend, share: float, seed: int) -> bytes:
    """Return the PNG of a mask's scribbles."""
    random = np.random.Generator(np.random.PCG64([seed, zlib.crc32(os.fsencode(source.stem))]))
    return indexed(scribble(read_mask(source, legend), random, share), palette(legend.colours))


def scribble(mask: Bytes, random: np.random.Generator, share: float = 0.03) -> Bytes:
    """Return the scribbles of class ids (height, width): the same ids on strokes, else 255.

    Every region gets a stroke that is large enough to be seen, and every class in its largest.
    Where whole strokes would cover more than ``share`` of the pixels, all are shortened alike;
    where less, large regions get more of them, and then the pen gets wider.
    """
    land = _survey(mask, random)
    if not len(land.drawn):
        return np.full_like(mask, VOID)
    ways = _across(land)
    pen = max(2.0, PEN * min(mask.shape))

    def drawn(part: float, pen: float) -> NDArray[np.bool_]:
        return _ink(land, [_middle(way, part, pen) for way in ways], pen)

    ink = drawn(WHOLE, pen)
    for _ in range(ROUNDS):
        if ink.mean() >= share:
            break
        ways += _branches(land, ways, min(mask.shape) / 10)
        ink = drawn(WHOLE, pen)
    fits = share / ink.mean()
    ink = drawn(WHOLE * fits, pen) if fits < 1 else drawn(WHOLE, pen * min(2.0, fits))
    return np.where(ink, mask, np.uint8(VOID))


@dataclass(frozen=True, slots=True, eq=False)
class _Land:
    """A mask to draw on.

    Attributes
    ----------
    depth
        (height, width), each pixel's distance from the next of another class or of the outside;
        1 at a border.
    region
        (height, width), the number of the region that each pixel is of.
    drawn
        Numbers of the regions that get strokes.
    lengths, costs
        Of the steps between neighbouring pixels of one class, 8 around each.

    """

    depth: Floats
    region: Ints
    drawn: Ints
    lengths: sparse.csr_array
    costs: sparse.csr_array


def _survey(mask: Bytes, random: np.random.Generator) -> _Land:
    around = {"size": 3, "mode": "constant", "cval": VOID}
    inner = ndimage.maximum_filter(mask, **around) == ndimage.minimum_filter(mask, **around)
    depth = ndimage.distance_transform_edt(inner) + 1
    field = ndimage.gaussian_filter(random.standard_normal(mask.shape), min(mask.shape) / 24)
    field *= WANDER / (float(field.std()) or 1.0)  # One pixel has none.
    lengths, costs = _steps(mask, np.exp(field) / (depth + HALF))
    _, region = csgraph.connected_components(lengths, directed=False)
    area, first = np.bincount(region), np.unique(region, return_index=True)[1]
    owner = mask.ravel()[first]
    drawn = area >= max(LEAST, SPECK * mask.size)
    for one in np.unique(owner):
        largest = np.where(owner == one, area, 0).argmax()
        drawn[largest] |= area[largest] >= LEAST
    drawn &= owner < REFUSED
    return _Land(depth, region.reshape(mask.shape), np.flatnonzero(drawn), lengths, costs)


def _steps(mask: Bytes, price: Floats) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Return the lengths and the costs of the steps between neighbours of one class."""
    height, width = mask.shape
    number = np.arange(mask.size).reshape(mask.shape)
    parts = []
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        here = slice(height - down), slice(max(0, -right), width - max(0, right))
        there = slice(down, height), slice(max(0, right), width - max(0, -right))
        same = (mask[here] == mask[there]) & (mask[here] < REFUSED)
        length = np.full(int(same.sum()), np.hypot(down, right))
        cost = length * (price[here] + price[there])[same] / 2
        parts.append((number[here][same], number[there][same], length, cost))
    starts, ends, lengths, costs = (np.concatenate(one) for one in zip(*parts, strict=True))
    shape = mask.size, mask.size
    return (
        sparse.csr_array((lengths, (starts, ends)), shape=shape),
        sparse.csr_array((costs, (starts, ends)), shape=shape),
    )


def _across(land: _Land) -> list[Ints]:
    """Return a way through each region, between ends far apart: pixels' (y, x), in order."""
    # From anywhere, the farthest pixel is an end; from there, the other one. In a region with
    # holes that may miss the very farthest pair.
    middle = _farthest(land, land.depth.ravel())
    end = _farthest(land, _reach(land.lengths, middle)[0])
    other = _farthest(land, _reach(land.lengths, end)[0])
    before = _reach(land.costs, end)[1]
    return [_walk(before, one, land) for one in other]


def _branches(land: _Land, ways: Sequence[Ints], at_least: float) -> list[Ints]:
    """Return ways from those there are to each region's farthest pixel, the long ones."""
    taken = _numbers(np.concatenate(ways), land)
    distance = _reach(land.lengths, taken)[0]
    before = _reach(land.costs, taken)[1]
    ends = [one for one in _farthest(land, distance) if distance[one] >= at_least]
    return [_walk(before, one, land) for one in ends]


def _reach(steps: sparse.csr_array, starts: Ints) -> tuple[Floats, Ints]:
    """Return each pixel's distance from the next start, and the pixel before it on the way."""
    distance, before, _ = csgraph.dijkstra(
        steps, directed=False, indices=starts, return_predecessors=True, min_only=True
    )
    return distance, before


def _farthest(land: _Land, distance: Floats) -> Ints:
    """Return the pixel of each drawn region where a distance is largest."""
    reached = np.where(np.isfinite(distance), distance, -1).reshape(land.region.shape)
    places = ndimage.maximum_position(reached, land.region, land.drawn)
    return _numbers(np.array(places, np.intp), land)


def _numbers(places: Ints, land: _Land) -> Ints:
    """Return the numbers of pixels (y, x), row by row."""
    found: Ints = places[:, 0] * land.region.shape[1] + places[:, 1]
    return found


def _walk(before: Ints, end: int, land: _Land) -> Ints:
    """Return the way that leads to ``end``, smoothed within the region."""
    way = []
    while end >= 0:
        way.append(end)
        end = before[end]
    found = np.stack(np.unravel_index(way, land.region.shape), 1)
    sigma = min(land.region.shape) * PEN * 2
    smooth = np.rint(ndimage.gaussian_filter1d(found.astype(float), sigma, 0, mode="nearest"))
    smooth = smooth.astype(found.dtype)
    inside = land.region[tuple(smooth.T)] == land.region[tuple(found.T)]
    return np.where(inside[:, None], smooth, found)


def _middle(way: Ints, part: float, pen: float) -> Ints:
    """Return the middle part of a way, at least twice as long as the pen is wide."""
    kept = min(len(way), max(round(part * len(way)), round(2 * pen)))
    start = (len(way) - kept) // 2
    return way[start : start + kept]


def _ink(land: _Land, ways: Sequence[Ints], pen: float) -> NDArray[np.bool_]:
    """Draw along ways; the pen keeps off borders, except where a way has to go along them."""
    line = np.zeros(land.region.shape, np.bool_)
    line[tuple(np.concatenate(ways).T)] = True
    distance, (y, x) = ndimage.distance_transform_edt(~line, return_indices=True)
    near: NDArray[np.bool_] = (
        (distance <= pen / 2) & (land.region == land.region[y, x]) & (land.depth >= 2)
    )
    return near | line

"""Resampling a picture and its mask to a window of their scaled selves.

Only the pixels of the window are computed, and they are those of scaling the whole first.
Each `Grid` is one axis: which source positions the window's pixels look at.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Mode = Literal["half_pixel", "top_left", "antialias"]


@dataclass(frozen=True, slots=True)
class Grid:
    """One axis of a window.

    Attributes
    ----------
    source
        Pixels of the source.
    scaled
        Pixels of the scaled source.
    start, stop
        The window, inside ``0..scaled``.
    flip
        The scaled source is mirrored before the window is cut.

    """

    source: int
    scaled: int
    start: int
    stop: int
    flip: bool = False

    def places(self) -> NDArray[np.intp]:
        """Return the pixels of the scaled source that the window shows, in its order."""
        window = np.arange(self.start, self.stop)
        return self.scaled - 1 - window if self.flip else window


def photo(image: Bytes | Floats, rows: Grid, columns: Grid, mode: Mode) -> Floats:
    """Return the window of a picture (height, width, 3), bilinear.

    ``half_pixel``: the centres of the pixels count (OpenCV). ``top_left``: source = target *
    in / out (TensorFlow 1). Both look at two neighbours and stay in float32. ``antialias``:
    Pillow's filter, which averages when shrinking, and rounds to 8 bits.
    """
    if (rows.source, columns.source) == (rows.scaled, columns.scaled):  # Nothing between pixels.
        return image[rows.places()].take(columns.places(), 1).astype(np.float32)
    if mode == "antialias":
        return _antialias(image, rows, columns).astype(np.float32)
    above, below, weight = _neighbours(rows, mode)
    left, right, slope = _neighbours(columns, mode)
    first, last = left.min(), right.max() + 1  # Work on the columns that count.
    strip = image[:, first:last]
    value = strip[above].astype(np.float32)
    step = strip[below] - value
    step *= weight[:, None, None]
    value += step
    west, east = value.take(left - first, 1), value.take(right - first, 1)
    east -= west
    east *= slope[:, None]
    west += east
    window: Floats = west
    return window


def mask(ids: Bytes, rows: Grid, columns: Grid, mode: Mode) -> Bytes:
    """Return the window of a mask (height, width): the nearest pixel on the picture's grid.

    On the ``top_left`` grid that is the one at or before the position, as TensorFlow 1 has it.
    """
    window: Bytes = ids[_nearest(rows, mode)][:, _nearest(columns, mode)]
    return window


def _nearest(grid: Grid, mode: Mode) -> NDArray[np.intp]:
    # In whole numbers: a float's rounding must not choose the pixel.
    if mode == "top_left":
        return grid.places() * grid.source // grid.scaled
    return (2 * grid.places() + 1) * grid.source // (2 * grid.scaled)


def _neighbours(grid: Grid, mode: Mode) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
    """Return the pixels before and after each position, and the weight of the latter."""
    ratio = grid.source / grid.scaled
    offset = 0.0 if mode == "top_left" else 0.5
    position = ((grid.places() + offset) * ratio - offset).clip(0, grid.source - 1)
    before = position.astype(np.intp)
    after = np.minimum(before + 1, grid.source - 1)
    return before, after, (position - before).astype(np.float32)


def _antialias(image: Bytes | Floats, rows: Grid, columns: Grid) -> Bytes:
    """Let Pillow resize what the window shows.

    Its filter reaches beyond the box for the neighbours of the border. It takes the box in
    float32, so a value may round otherwise than from the whole picture, by two at most.
    """
    top, bottom, left, right = (
        edge * grid.source / grid.scaled
        for grid in (rows, columns)
        for edge in (int(grid.places().min()), int(grid.places().max()) + 1)
    )
    # A float is a whole number here: what this function returned.
    scaled = Image.fromarray(image.astype(np.uint8, copy=False)).resize(
        (columns.stop - columns.start, rows.stop - rows.start),
        Image.Resampling.BILINEAR,
        (left, top, min(right, columns.source), min(bottom, rows.source)),
    )
    window = np.asarray(scaled)
    return window[:: -1 if rows.flip else 1, :: -1 if columns.flip else 1]

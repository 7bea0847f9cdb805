"""Class ids (height, width) become pictures in a dataset's colours."""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..data.legend import VOID, Colour, colormap

Bytes = NDArray[np.uint8]
VOID_COLOUR: Colour = (224, 224, 192)  # As VOC's masks have it.


def palette(colours: Sequence[Colour]) -> Bytes:
    """Return 256 colours: the classes', then VOC's, and void's."""
    table = np.array(colormap(256), np.uint8)
    table[: len(colours)] = colours
    table[VOID] = VOID_COLOUR
    return table


def indexed(ids: Bytes, table: Bytes) -> bytes:
    """Return a PNG whose values are the ids, shown in the palette's colours."""
    picture = Image.fromarray(ids)
    picture.putpalette(table.tobytes())
    return png(picture)


def overlay(photo: Bytes, ids: Bytes, table: Bytes, opacity: float = 0.55) -> Bytes:
    """Lay the classes' colours over a photo; void leaves it as it is."""
    mixed = photo * (1 - opacity) + table[ids] * opacity
    seen: Bytes = np.where((ids == VOID)[..., None], photo, mixed.round().astype(np.uint8))
    return seen


def png(picture: Image.Image) -> bytes:
    """Return a picture's PNG; equal pictures give equal bytes."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()

"""Masks of any kind become masks of class ids, one grey byte per pixel.

Palette masks, masks in colours, SBD's .mat and, where no two classes in it share a grey, grey
pictures of colour masks.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from ...proto.errors import FormatError
from ..evaluation.paint import png
from .images import Bytes, luminance, read_mask, read_values
from .legend import REFUSED, VOID, Legend
from .rewrite import Progress, rewrite


def convert_masks(
    source: Path,
    target: Path,
    legend: Legend,
    *,
    grey: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda _done, _total: None,
) -> Iterator[Path]:
    """Convert a mask, or a folder of them, yielding each file written.

    ``grey`` takes the values for luminances of the legend's colours. Values that a legend
    renumbers (Cityscapes' labelIds) leave as class ids, void as 255. ``overwrite`` replaces
    files that are there. ``progress`` is told how many of how many are done.

    Raises
    ------
    FormatError
        Some masks cannot be read. All of them are named, after the others were written.
    UsageError
        The target is the source or lies in it, or a file would be replaced unasked.

    """
    read = read_grey if grey else read_mask

    def change(path: Path) -> bytes:
        return png(Image.fromarray(read(path, legend)))

    yield from rewrite(source, target, change, overwrite=overwrite, progress=progress)


def read_grey(path: Path, legend: Legend) -> Bytes:
    """Read a grey picture of a colour mask as class ids.

    Raises
    ------
    FormatError
        A grey is no colour's, or that of more than one class.

    """
    values = read_values(path, replace(legend, ink=()))
    lut = np.full(256, REFUSED, np.uint8)
    meanings: dict[int, set[int]] = {VOID: {VOID}}
    for colour, value in legend.ink:
        meanings.setdefault(luminance(colour), set()).add(legend.values[value])
    problems = []
    for grey in np.unique(values).tolist():
        ids = meanings.get(grey, set())
        if len(ids) == 1:
            (lut[grey],) = ids
        elif ids:
            names = " or ".join(_name(legend, one) for one in sorted(ids))
            problems.append(f"{grey} is {names}")
        else:
            problems.append(f"{grey} is no class's colour")
    if problems:
        raise FormatError(
            f"{path}: cannot be told from its greys: {'; '.join(problems)}. It takes the masks in "
            "colours or with the palette."
        )
    return lut[values]


def _name(legend: Legend, one: int) -> str:
    return legend.names[one] if one < len(legend.names) else "void"

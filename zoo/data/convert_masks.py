"""Masks of any kind become masks of class ids, one grey byte per pixel.

Palette masks, masks in colours, SBD's .mat and, where no two classes in it share a grey, grey
pictures of colour masks.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from ...converters.files import replacing
from ...proto.errors import FormatError, StorageError, UsageError, listing
from .images import Bytes, luminance, read_mask, read_values
from .legend import REFUSED, VOID, Legend
from .lists import MASKS, by_stem


def convert_masks(
    source: Path, target: Path, legend: Legend, *, grey: bool = False
) -> Iterator[Path]:
    """Convert a mask, or a folder of them, yielding each file written.

    ``grey`` takes the values for luminances of the legend's colours. Values that a legend
    renumbers (Cityscapes' labelIds) leave as class ids, void as 255.

    Raises
    ------
    FormatError
        Some masks cannot be read. All of them are named, after the others were written.
    UsageError
        The target is the source.

    """
    if target == source or (source.is_dir() and target.exists() and target.samefile(source)):
        raise UsageError(f"{target}: is what is read, expected another place to write to.")
    if source.is_dir():
        masks = by_stem(source, MASKS)
        if not masks:
            raise FormatError(f"{source}: holds no masks ({', '.join(MASKS)}).")
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{target}: cannot be made: {error.strerror}.") from error
        pairs = [(path, target / f"{stem}.png") for stem, path in masks.items()]
    else:
        pairs = [(source, target)]
    bad = []
    for path, out in pairs:
        try:
            ids = read_grey(path, legend) if grey else read_mask(path, legend)
        except FormatError as error:
            bad.append(str(error))
            continue
        write_mask(ids, out)
        yield out
    if bad:
        raise FormatError(f"{len(bad)} of {len(pairs)} masks not converted:\n{listing(bad)}")


def write_mask(ids: Bytes, path: Path) -> None:
    """Write class ids as an 8 bit grey PNG."""
    with replacing(path) as temporary:
        Image.fromarray(ids).save(temporary, "PNG")


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

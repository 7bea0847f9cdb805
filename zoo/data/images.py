"""Pictures and masks from files: uint8 RGB (height, width, 3), and class ids (height, width).

Whatever cannot be read names its file. A mask is read as indices whether its file has a
palette or not; a mask in colours is read by its legend; a grey picture of colours is refused,
because two classes may have the same grey.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ...proto.errors import FormatError, MissingDependencyError
from .legend import REFUSED, VOID, Colour, Legend

Bytes = NDArray[np.uint8]

PHOTO_MODES = ("RGB", "L", "P", "RGBA", "LA", "CMYK", "YCbCr", "1")


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture; whatever Pillow raises until the block ends names the file."""
    try:
        with Image.open(path) as picture:
            yield picture
    except FileNotFoundError:
        raise FormatError(f"{path}: no such file.") from None
    except (PermissionError, IsADirectoryError) as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}.") from None
    except UnidentifiedImageError:
        raise FormatError(f"{path}: is not a picture of a known format.") from None
    except Image.DecompressionBombError as error:
        raise FormatError(f"{path}: is damaged, or has to be cut into tiles: {error}.") from None
    except Exception as error:  # Damage can trip a decoder anywhere.
        raise FormatError(f"{path}: is damaged: {error}.") from error


def read_photo(path: Path) -> Bytes:
    """Decode a photo to uint8 RGB (height, width, 3); an EXIF rotation is not applied.

    Raises
    ------
    FormatError
        The file is missing, damaged, truncated or has more than eight bits per channel.

    """
    with opened(path) as picture:
        mode = picture.mode
        if mode in PHOTO_MODES:
            return np.asarray(picture if mode == "RGB" else picture.convert("RGB"))
    raise FormatError(f"{path}: has pixels of mode {mode}, expected 8 bit RGB.")


def read_mask(path: Path, legend: Legend) -> Bytes:
    """Read a mask as class ids (height, width).

    Raises
    ------
    FormatError
        The file is damaged, holds a value or colour that the legend does not know, or is a
        grey picture of colours.

    """
    raw = read_values(path, legend)
    # As bytes: three times as quick as indexing a table.
    ids = np.frombuffer(raw.tobytes().translate(legend.values), np.uint8).reshape(raw.shape)
    if (ids == REFUSED).any():
        raise FormatError(f"{path}: {complaint(np.bincount(raw.ravel(), minlength=256), legend)}")
    return ids


def read_values(path: Path, legend: Legend) -> Bytes:
    """Read the values (height, width) as the file has them, colours by the legend's ink."""
    if path.suffix.lower() == ".mat":
        return _whole(path, _read_mat(path))
    with opened(path) as picture:
        coloured = picture.mode in ("RGB", "RGBA")
        pixels = np.asarray(picture.convert("RGB") if coloured else picture)
    return _uncolour(path, pixels, legend) if coloured else _whole(path, pixels)


def _whole(path: Path, values: NDArray[Any]) -> Bytes:
    """Return labels (height, width) of any type as bytes."""
    if values.ndim == 2 and values.dtype == np.uint8:
        return values
    if values.ndim != 2 or values.dtype.kind not in "uibf" or (values != np.rint(values)).any():
        raise FormatError(
            f"{path}: has {values.dtype} of shape {values.shape}, expected class ids "
            "(height, width)."
        )
    if values.size and (values.min() < 0 or values.max() > VOID):
        raise FormatError(
            f"{path}: has labels from {values.min()} to {values.max()}, expected 0..255."
        )
    return values.astype(np.uint8)


def complaint(histogram: NDArray[np.int64], legend: Legend) -> str:
    """Say what is wrong with a mask that holds values the legend refuses, and the cure."""
    present = np.flatnonzero(histogram)
    refused = [int(one) for one in present if legend.values[one] == REFUSED]
    if is_grey_picture(present, legend):
        return (
            f"is a grey picture of a colour mask: its values {_some(refused)} are luminances of "
            "the palette's colours. Start from the masks with the palette, or try "
            "'deeplab-zoo labels convert --from grey'."
        )
    valid = [one for one in range(VOID) if legend.values[one] < REFUSED]
    return (
        f"has the labels {_some(refused)}, expected {len(legend.names)} classes "
        f"({min(valid)}..{max(valid)}) and {VOID} for void."
    )


def _some(values: list[int]) -> str:
    more = f" and {len(values) - 6} more" if len(values) > 6 else ""
    return ", ".join(map(str, values[:6])) + more


def luminance(colour: Colour) -> int:
    """Return the grey of a colour as Pillow, OpenCV and ITU-R 601 have it."""
    return round((299 * colour[0] + 587 * colour[1] + 114 * colour[2]) / 1000)


def is_grey_picture(present: NDArray[np.intp], legend: Legend) -> bool:
    """Say whether all of a mask's values are greys of the legend's colours."""
    greys = {luminance(colour) for colour, _ in legend.ink} | {VOID}
    return greys.issuperset(present.tolist())


def _uncolour(path: Path, pixels: Bytes, legend: Legend) -> Bytes:
    """Return the values that colours stand for; greys that are no colours are values."""
    red, green, blue = (pixels[..., channel].astype(np.int32) for channel in range(3))
    code = red << 16 | green << 8 | blue
    values: NDArray[np.int16] = _ink_table(legend.ink)[code]
    if values.min() >= 0:
        return values.astype(np.uint8)
    if (pixels == pixels[..., :1]).all():
        return pixels[..., 0]
    strange = np.unique(code[values < 0])
    shown = ", ".join(str((one >> 16, one >> 8 & 255, one & 255)) for one in strange[:4].tolist())
    raise FormatError(
        f"{path}: has {len(strange)} colours that are no class's: {shown}"
        f"{', ...' if len(strange) > 4 else ''}. Is it a photo, is the palette another dataset's, "
        "or have several classes one colour?"
    )


@lru_cache(maxsize=2)
def _ink_table(ink: tuple[tuple[Colour, int], ...]) -> NDArray[np.int16]:
    """Return the value of each of the 2^24 colours, -1 for those without one."""
    values = np.full(1 << 24, -1, np.int16)
    for (red, green, blue), value in ink:
        values[red << 16 | green << 8 | blue] = value
    return values


def _read_mat(path: Path) -> NDArray[Any]:
    """Read an SBD mask: the array ``Segmentation`` in the struct ``GTcls``; COCO-Stuff: ``S``."""
    try:
        from scipy.io import loadmat
    except ImportError:
        raise MissingDependencyError(
            f"{path}: reading .mat files needs scipy: pip install 'deeplab-zoo[sbd]'."
        ) from None
    try:
        content = loadmat(path, mat_dtype=False)
        if "S" in content:
            # COCO-Stuff 10k counts from 1; 0 is unlabelled.
            values = np.asarray(content["S"], np.float64) - 1
            return np.where(values == -1, VOID, values)
        return np.asarray(content["GTcls"][0, 0]["Segmentation"])
    except FileNotFoundError:
        raise FormatError(f"{path}: no such file.") from None
    except KeyError as error:
        raise FormatError(f"{path}: has no variable {error}, expected SBD's GTcls.") from None
    except Exception as error:  # loadmat raises whatever its parser stumbles over.
        raise FormatError(f"{path}: is damaged: {error}.") from error

"""Joint augmentation of a picture and its mask: scale, mirror, crop with padding, blur.

An `Augmentation` says what may happen, `draw` rolls the dice for one sample, `apply` does it.
The table has each ancestor's own way, by name.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageFilter

from ...converters.numerics import Numerics
from ...proto.errors import UsageError
from .legend import PADDING, VOID
from .resample import Bytes, Floats, Grid, Mode, mask, photo


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What may happen to a sample.

    Attributes
    ----------
    crop
        Side of the square that is cut at random; smaller pictures are padded. 0: no crop.
    scale
        Least and greatest factor, drawn uniformly.
    scales
        A set of factors to draw from, in place of ``scale``.
    base
        The factors say how long the shorter side becomes, in units of this many pixels,
        instead of multiplying the picture's own size. 0: they multiply.
    centre
        The crop is the middle one and not drawn.
    squash
        Stretch the picture to a square of this side first. 0: it keeps its shape.
    mirror, blur
        Whether half of the samples are mirrored; blurred with a radius drawn from 0..1.
    resize
        The grid of `resample.photo`.
    pad_side
        Where padding goes: at the bottom and right, or around.
    pad_mirrors
        The padded crop is mirrored, so that a mirrored picture is padded at the left, instead
        of the picture before it is padded.
    pad_value
        ``mean``: the colour that is zero at the network's input. ``black``: zero in the file.
    pad_label
        255, or 254 to tell padding from pixels nobody labelled.

    """

    name: str
    crop: int = 321
    scale: tuple[float, float] = (1.0, 1.0)
    scales: tuple[float, ...] = ()
    base: int = 0
    centre: bool = False
    squash: int = 0
    mirror: bool = True
    blur: bool = False
    resize: Mode = "half_pixel"
    pad_side: Literal["end", "around"] = "end"
    pad_mirrors: bool = False
    pad_value: Literal["mean", "black"] = "mean"
    pad_label: int = VOID


STEPS = (0.5, 0.75, 1.0, 1.25, 1.5)

AUGMENTATIONS = {
    row.name: row
    for row in (
        # Nothing: evaluation at the original size.
        Augmentation("none", crop=0, mirror=False),
        # DeepLab v2's Caffe and the prototxts of rloss: scale_factors, mirror, crop_size. Caffe
        # mirrors when it copies the crop.
        Augmentation("caffe", scales=STEPS, pad_mirrors=True),
        # DrSleep: image_reader.py.
        Augmentation("drsleep", scale=(0.5, 1.5), resize="top_left"),
        # isht7: train.py. The picture is squashed and not cropped; batches of one size only.
        Augmentation("isht7", crop=0, squash=321, scale=(0.5, 1.3)),
        # bermanmaxim/jaccardSegment: compose.py.
        Augmentation(
            "jaccard-segment", scale=(0.5, 1.5), resize="antialias",
            pad_side="around", pad_value="black",
        ),
        # rloss, PyTorch: dataloaders/custom_transforms.py; the shorter side becomes 256..1026.
        Augmentation(
            "rloss", crop=513, scale=(0.5, 2.0), base=513, blur=True, resize="antialias",
            pad_value="black", pad_label=PADDING,
        ),
        # kazuto1011: libs/datasets/base.py.
        Augmentation("kazuto1011", scales=STEPS, pad_mirrors=True),
    )
}  # fmt: skip


def augmentation(name: str) -> Augmentation:
    """Return a row of the table; raise `UsageError` for an unknown name."""
    if name not in AUGMENTATIONS:
        raise UsageError(
            f"augmentation {name!r} is unknown, expected one of {', '.join(AUGMENTATIONS)}."
        )
    return AUGMENTATIONS[name]


def centre_crop(side: int) -> Augmentation:
    """Return the square in the middle, after the shorter side is resized to its side.

    jfzhang95's way of validating: FixScaleCrop in dataloaders/custom_transforms.py.
    """
    return Augmentation(
        "centre-crop", crop=side, base=side, centre=True, mirror=False, resize="antialias"
    )


@dataclass(frozen=True, slots=True)
class Draw:
    """What happens to one sample: the scaled size, the crop's corner, mirror, blur radius.

    The corner is counted in the padded picture.
    """

    size: tuple[int, int]
    corner: tuple[int, int] = (0, 0)
    mirror: bool = False
    blur: float = 0.0


def generator(seed: int, position: int, index: int) -> np.random.Generator:
    """Return the random numbers of one sample, whoever computes it and whenever."""
    return np.random.Generator(np.random.PCG64([seed, position, index]))


def draw(way: Augmentation, size: tuple[int, int], random: np.random.Generator) -> Draw:
    """Roll the dice for a picture of ``size`` (height, width)."""
    size = (way.squash, way.squash) if way.squash else size
    if way.base:
        # The shorter side is drawn in whole pixels; the longer is cut to whole pixels.
        low, high = (int(way.base * one) for one in way.scale)
        short = int(random.integers(low, high, endpoint=True))
        scaled = tuple(short if one == min(size) else short * one // min(size) for one in size)
    else:
        factor = float(random.choice(way.scales) if way.scales else random.uniform(*way.scale))
        scaled = tuple(max(1, int(one * factor)) for one in size)
    mirror = way.mirror and bool(random.random() < 0.5)
    spare = [max(one - way.crop, 0) if way.crop else 0 for one in scaled]
    corner = tuple(
        round(one / 2) if way.centre else int(random.integers(one, endpoint=True)) for one in spare
    )
    blur = float(random.random()) if way.blur and random.random() < 0.5 else 0.0
    return Draw((scaled[0], scaled[1]), (corner[0], corner[1]), mirror, blur)


def apply(
    way: Augmentation, drawn: Draw, image: Bytes, ids: Bytes | None, numerics: Numerics
) -> tuple[Floats, Bytes | None]:
    """Do to a picture and its mask what was drawn.

    Takes RGB uint8 (height, width, 3) and class ids (height, width); returns the network's
    input, float32 (3, height, width), centred and in the profile's channel order, and the ids.
    """
    picture: Bytes | Floats = image
    if way.squash:
        rows, columns = (Grid(one, way.squash, 0, way.squash) for one in image.shape[:2])
        picture = photo(image, rows, columns, way.resize)
        ids = None if ids is None else mask(ids, rows, columns, way.resize)
    out = (way.crop, way.crop) if way.crop else drawn.size
    grids, places = [], []
    for axis in range(2):
        scaled, corner = drawn.size[axis], drawn.corner[axis]
        spare = max(out[axis] - scaled, 0)
        before = spare // 2 if way.pad_side == "around" else 0
        stop = min(corner + out[axis], scaled)
        flip = drawn.mirror and axis == 1
        if flip and way.pad_mirrors:
            corner, stop, before = scaled - stop, scaled - corner, spare - before
        grids.append(Grid(picture.shape[axis], scaled, corner, stop, flip))
        places.append(slice(before, before + stop - corner))
    pixels = photo(picture, grids[0], grids[1], way.resize)
    if drawn.blur:
        soft = Image.fromarray(np.rint(pixels).astype(np.uint8))
        pixels = np.asarray(soft.filter(ImageFilter.GaussianBlur(drawn.blur)), np.float32)
    centred = _centre(pixels, out, places, way, numerics)
    if ids is None:
        return centred, None
    label = np.full(out, way.pad_label, np.uint8)
    label[places[0], places[1]] = mask(ids, grids[0], grids[1], way.resize)
    return centred, label


def _centre(
    pixels: Floats, out: tuple[int, ...], places: list[slice], way: Augmentation, numerics: Numerics
) -> Floats:
    """Put a window (height, width, 3), RGB, on its padded canvas (3, height, width)."""
    mean = np.asarray(numerics.mean, np.float32)
    order = (2, 1, 0) if numerics.channel_order == "BGR" else (0, 1, 2)
    canvas = np.zeros((3, *out), np.float32)
    if way.pad_value == "black":
        canvas -= mean[:, None, None]
    for channel, colour in enumerate(order):
        np.subtract(pixels[..., colour], mean[channel], out=canvas[channel, places[0], places[1]])
    if numerics.std != (1.0, 1.0, 1.0):
        canvas /= np.asarray(numerics.std, np.float32)[:, None, None]
    return canvas

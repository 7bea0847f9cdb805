"""Where the DenseCRF loss pulls, class by class: probabilities and a photo become a sheet."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from ...proto.errors import UsageError

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

CAPTION = 14  # Height of the line above a tile, in pixels.


@dataclass(frozen=True, slots=True)
class Reach:
    """The DenseCRF loss's reach; the defaults are those of rloss's inference program.

    ``sigma_rgb`` in colours of 0..255, ``sigma_xy`` in pixels, ``scale`` of the picture.
    """

    sigma_rgb: float = 15.0
    sigma_xy: float = 80.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        sigmas = self.sigma_rgb, self.sigma_xy
        if not all(0 < one < math.inf for one in sigmas) or not 0 < self.scale <= 1:
            raise UsageError(f"heat map: {self}, expected sigmas above 0 and a scale up to 1.")


WEIGHT = 1e-8  # As there. It is the unit of the gradients, and changes no picture.


def reach_of(given: Mapping[str, float]) -> Reach:
    """Return the reach with some numbers replaced, by name; raise `UsageError` for wrong ones."""
    known = [field.name for field in fields(Reach)]
    if unknown := sorted(set(given) - set(known)):
        raise UsageError(f"heat map: {', '.join(unknown)}, expected some of {', '.join(known)}.")
    return replace(Reach(), **given)


def gradients(shares: Tensor, photo: Bytes, reach: Reach) -> Floats:
    """Return the loss's gradient in probabilities (classes, height, width).

    Where it is most negative, the loss wants more of a class.
    """
    from ..losses.densecrf import DenseCRFLoss  # Late: it compiles its kernels.
    from ..losses.heatmap import gradient_maps

    loss = DenseCRFLoss(WEIGHT, reach.sigma_rgb, reach.sigma_xy, reach.scale)
    with torch.inference_mode(False):
        image = torch.from_numpy(photo.transpose(2, 0, 1).copy())[None].to(shares.device).float()
        maps = gradient_maps(lambda given: loss(image, given), shares[None].clone())
    found: Floats = maps[0].cpu().numpy()
    return found


def hot(shares: Floats) -> Bytes:
    """Paint numbers of 0..1 from black over red and yellow to white, RGB in the last axis."""
    stops = (0.0, 0.365, 0.365, 0.746, 0.746, 1.0)  # Red is full at the second, and so on.
    ramps = [np.interp(shares, stops[2 * one : 2 * one + 2], (0, 255)) for one in range(3)]
    painted: Bytes = np.rint(np.stack(ramps, -1)).astype(np.uint8)
    return painted


def sheet(photo: Bytes, found: Floats, names: Sequence[str]) -> Image.Image:
    """Draw the photo and a heat map for each class, white where the class is pulled at most.

    Each has its own scale, as in rloss; the caption says what white stands for.
    """
    height, width = photo.shape[:2]
    peaks = [float(-one.min()) for one in found]
    tiles = [("photo", photo)] + [
        (f"{name} {peak:.1e}", hot(-one / max(peak, 1e-30)))
        for name, one, peak in zip(names, found, peaks, strict=True)
    ]
    columns = math.ceil(math.sqrt(len(tiles)))
    rows = math.ceil(len(tiles) / columns)
    page = Image.new("RGB", (columns * width, rows * (height + CAPTION)), "white")
    pen = ImageDraw.Draw(page)
    for number, (caption, tile) in enumerate(tiles):
        row, column = divmod(number, columns)
        corner = column * width, row * (height + CAPTION)
        pen.text((corner[0] + 2, corner[1] + 1), caption, fill="black")
        page.paste(Image.fromarray(tile), (corner[0], corner[1] + CAPTION))
    return page

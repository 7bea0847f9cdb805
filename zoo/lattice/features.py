"""Pixel positions and colours as points of a feature space, in units of their sigmas."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...proto.errors import UsageError
from .threads import conduct

Sigmas = float | Sequence[float]


def position_features(height: int, width: int, sigma: Sigmas, like: Tensor) -> Tensor:
    """Return (x, y) of every pixel, (1, pixels, 2), divided by sigma (of x, of y)."""
    points = like.new_empty(1, height * width, 2)
    _place(points.view(1, height, width, 2), sigma)
    return points


def bilateral_features(images: Tensor, sigma_xy: Sigmas, sigma_rgb: Sigmas) -> Tensor:
    """Return position and colour of images (batch, channels, height, width), one row a pixel."""
    if images.dim() != 4 or not all(images.shape):
        raise UsageError(
            f"images: shape {tuple(images.shape)}, expected (batch, channels, height, width), "
            "none of them 0"
        )
    return conduct(_bilateral, images.detach(), sigma_xy, sigma_rgb)


def _bilateral(colours: Tensor, sigma_xy: Sigmas, sigma_rgb: Sigmas) -> Tensor:
    if not colours.is_floating_point() or colours.element_size() < 4:
        colours = colours.float()
    batch, channels, height, width = colours.shape
    scale = colours.new_tensor(_sigmas("sigma of colours", sigma_rgb, channels))
    points = colours.new_empty(batch, height * width, 2 + channels)
    _place(points.view(batch, height, width, -1), sigma_xy)
    torch.div(colours.flatten(2).transpose(1, 2), scale, out=points[..., 2:])
    return points


def _place(points: Tensor, sigma: Sigmas) -> None:
    """Write (x, y) into the first columns of points (batch, height, width, d)."""
    of_x, of_y = points.new_tensor(_sigmas("sigma of positions", sigma, 2))
    _, height, width, _ = points.shape
    x, y = (torch.arange(size, device=points.device).to(points) for size in (width, height))
    points[..., 0] = x / of_x
    points[..., 1] = (y / of_y)[:, None]


def _sigmas(what: str, given: Sigmas, count: int) -> list[float]:
    sigmas = np.asarray(given, np.float64)
    if sigmas.shape not in ((), (count,)) or not ((sigmas > 0) & (sigmas < np.inf)).all():
        raise UsageError(f"{what}: {given}, expected a positive number, or {count} of them")
    found: list[float] = np.broadcast_to(sigmas, count).tolist()
    return found

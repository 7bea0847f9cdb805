"""The Gaussian itself, pixel by pixel: what the lattice approximates, at quadratic cost."""

import torch
from torch import Tensor

from .geometry import Bounds
from .orders import Order

_PAIRS = 2**24  # at a time: 128 MiB of float64


def build(features: Tensor, bounds: Bounds, dtype: torch.dtype, deterministic: bool) -> Tensor:
    """Return the features (batch, pixels, d) themselves."""
    del bounds, deterministic
    return features.to(dtype)


def apply(features: Tensor, values: Tensor, order: Order) -> Tensor:
    """Sum values (batch, pixels, channels) weighted by ``exp(-|f_i - f_j|**2 / 2)``."""
    del order  # The Gaussian is its own adjoint.
    source = values.detach()
    rows = max(1, _PAIRS // features.shape[1])
    return torch.stack(
        [
            torch.cat([_weights(part, image) @ value for part in image.split(rows)])
            for image, value in zip(features.expand(len(source), -1, -1), source, strict=True)
        ]
    )


def _weights(some: Tensor, every: Tensor) -> Tensor:
    # Differences, not the matrix product's expansion of the square, which cancels.
    distance = torch.cdist(some, every, compute_mode="donot_use_mm_for_euclid_dist")
    return distance.square_().mul_(-0.5).exp_()

"""From a photo to a mask under a numerics profile."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ...converters.numerics import Numerics
from ...proto.errors import MismatchError
from .resampling import resize

GRID = 32  # Sizes 32 k + 1 keep the grids of all three scales aligned.


def prepare(image: NDArray[np.uint8], numerics: Numerics) -> Tensor:
    """Turn RGB uint8 (height, width, 3) into the network's input (1, 3, height, width).

    Raises
    ------
    MismatchError
        The array has another shape or type.

    """
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise MismatchError(
            f"image: {image.dtype} of shape {image.shape}, expected uint8 (height, width, 3), RGB."
        )
    channels = image[..., ::-1] if numerics.channel_order == "BGR" else image
    centred = channels.astype(np.float32) - np.asarray(numerics.mean, np.float32)
    divided = centred / np.asarray(numerics.std, np.float32)
    return torch.from_numpy(np.ascontiguousarray(divided.transpose(2, 0, 1)))[None]


def pixels(prepared: Tensor, numerics: Numerics) -> Tensor:
    """Undo `prepare` for (batch, 3, height, width): channels on 0..255, in the profile's order."""
    mean, std = (prepared.new_tensor(one).view(3, 1, 1) for one in (numerics.mean, numerics.std))
    return prepared * std + mean


def padded_size(size: int, numerics: Numerics) -> int:
    """Return the side that an image is padded to: the test size, or the next 32 k + 1."""
    if not numerics.test_size:
        return size
    return max(numerics.test_size, -(-(size - 1) // GRID) * GRID + 1)


@torch.inference_mode()
def predict(model: nn.Module, image: NDArray[np.uint8], numerics: Numerics) -> NDArray[np.uint8]:
    """Segment one photo as the authors' test scripts do.

    The image is centred and, where the profile has a test size, padded with zeros (the mean
    colour) at the bottom and right to that size, or beyond it to 32 k + 1. Scores are resized
    to the padded size as the profile says, cropped back to the image, and the largest wins.
    """
    x = prepare(image, numerics)
    height, width = x.shape[-2:]
    size = padded_size(height, numerics), padded_size(width, numerics)
    x = functional.pad(x, (0, size[1] - width, 0, size[0] - height))
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    try:
        scores = model(x.to(device))
    finally:
        model.train(training)
    scores = resize(scores, size, numerics)
    mask: NDArray[np.uint8] = scores[0, :, :height, :width].argmax(0).byte().cpu().numpy()
    return mask

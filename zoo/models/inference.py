"""From a photo to a mask under a numerics profile; what a network must offer for that."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ...converters.numerics import Numerics
from ...proto.errors import MismatchError
from ..devices import plain_float32
from .resampling import resize

if TYPE_CHECKING:
    from .optimize import Precision

IDS = 256  # That a byte holds.
GRID = 32  # Sizes 32 k + 1 keep the grids of all three scales aligned.


class Sizes(Protocol):
    """What every family's config says."""

    @property
    def classes(self) -> int:
        """Channels of the scores."""


class Network(Protocol):
    """A native model."""

    @property
    def numerics(self) -> Numerics:
        """The conventions of its weights."""

    @property
    def config(self) -> Sizes:
        """Its sizes."""

    def __call__(self, image: Tensor) -> Tensor:
        """Map (batch, 3, h, w) to class scores, at any size."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield its parameters; they tell the device."""

    def modules(self) -> Iterator[nn.Module]:
        """Yield its parts, itself included."""


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


def photos(prepared: Tensor, numerics: Numerics) -> Tensor:
    """Undo `prepare` for RGB (batch, 3, height, width): whole numbers 0..255, float32."""
    levels = pixels(prepared, numerics).round()
    return levels.flip(1) if numerics.channel_order == "BGR" else levels


def padded_size(size: int, numerics: Numerics) -> int:
    """Return the side that an image is padded to: the test size, or the next 32 k + 1."""
    if not numerics.test_size:
        return size
    return max(numerics.test_size, -(-(size - 1) // GRID) * GRID + 1)


@contextmanager
def scoring(model: Network, precision: "Precision | None" = None) -> Iterator[torch.device]:
    """Have the model in eval mode, without gradients, until the block ends; give its device.

    Then each of its parts is in the mode it was in: frozen batch norms stay frozen. Float32 is
    that on a GPU too, see `plain_float32`; an optimised model keeps its own precision.
    """
    device = next(model.parameters()).device
    modes = [(part, part.training) for part in model.modules()]
    for part, _ in modes:
        part.training = False
    half = precision == "bf16" and not hasattr(model, "precision")
    cast = torch.autocast(device.type, torch.bfloat16) if half else nullcontext()
    try:
        with torch.inference_mode(), plain_float32(), cast:
            yield device
    finally:
        for part, training in modes:
            part.training = training


def whole(model: Network, images: Tensor, numerics: Numerics) -> Tensor:
    """Score images (batch, 3, h, w) as the authors' test scripts do: (batch, classes, h, w).

    Where the profile has a test size, images are padded with zeros (the mean colour) at the
    bottom and right to that size, or beyond it to 32 k + 1. Scores are resized to the padded
    size as the profile says, in float32, and cropped back.
    """
    height, width = images.shape[-2:]
    size = padded_size(height, numerics), padded_size(width, numerics)
    padded = functional.pad(images, (0, size[1] - width, 0, size[0] - height))
    return resize(model(padded).float(), size, numerics)[..., :height, :width]


def demand_ids(what: str, classes: int) -> None:
    """Raise `MismatchError` if there are more classes than a mask's bytes hold."""
    if classes > IDS:
        raise MismatchError(f"{what}: {classes} classes, a mask holds {IDS} at most.")


def predict(model: Network, image: NDArray[np.uint8], numerics: Numerics) -> NDArray[np.uint8]:
    """Segment one photo, RGB (height, width, 3), see `prepare` and `whole`: class ids.

    The largest score wins; that of a single class is judged by its sign.

    Raises
    ------
    MismatchError
        The image is none, see `prepare`, or there are more classes than a mask's bytes hold.

    """
    demand_ids("model", model.config.classes)
    with scoring(model) as device:
        scores = whole(model, prepare(image, numerics).to(device), numerics)[0]
        ids = scores[0] > 0 if len(scores) == 1 else scores.argmax(0)
    mask: NDArray[np.uint8] = ids.byte().cpu().numpy()
    return mask

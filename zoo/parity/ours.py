"""Our own side: a native model or a graph, on any device and in any precision."""

import copy
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from ...converters.graph.engine import Graph
from ...converters.numerics import CAFFE_V2, Numerics
from ...proto.errors import MismatchError, UsageError
from ..devices import device_called, plain_float32
from ..models.load import Native
from ..models.optimize import Precision, optimized
from .blobs import activations, scores_of
from .engine import Arrays, Engine

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def numerics_of(model: Native | Graph) -> Numerics:
    """Return the profile that a model obeys; a graph is Caffe's."""
    return model.numerics if isinstance(model, Native) else CAFFE_V2


def outputs_of(model: Native | Graph) -> tuple[str, ...]:
    """Return the blobs that a model is there for."""
    if isinstance(model, Graph):
        return tuple(one for one in model.outputs if one not in model.inputs)
    return (scores_of(model),)


def engine(
    model: Native | Graph, device: str = "cpu", precision: str = "fp32", *, optimize: bool = False
) -> Engine:
    """Run our model, optimised for inference if wanted; TF32, which rounds float32, is off.

    Raises
    ------
    UsageError
        A device or precision that is not there, or a graph is to be optimised.

    """
    if precision not in PRECISIONS:
        raise UsageError(f"precision {precision!r}, expected one of {', '.join(PRECISIONS)}.")
    place = device_called(device)
    dtype = PRECISIONS[precision]
    if optimize:  # Then images are float32, whatever its convolutions compute in.
        dtype = torch.float32
        if isinstance(model, Graph):
            raise UsageError("optimize: the model is a graph, expected a native one.")
        model = optimized(model, place, precision=cast(Precision, precision)).net
    elif place.type != "cpu" or dtype != torch.float32:
        model = copy.deepcopy(model).to(place, dtype)
    model.eval()

    def run(inputs: Arrays) -> Arrays:
        with torch.inference_mode(), plain_float32():
            if isinstance(model, Native):
                return activations(model, _image(inputs), dtype)
            given = {
                name: torch.from_numpy(np.asarray(value)).to(place, dtype)
                for name, value in inputs.items()
            }
            # What nothing reads but Silence, as labels, a graph's file asks for all the same.
            given |= {name: torch.zeros(1) for name in model.inputs if name not in given}
            return {name: _numpy(value) for name, value in model(given, blobs="all").items()}

    label = "deeplab-zoo" if device == "cpu" else f"deeplab-zoo on {_device_name(place)}"
    return Engine(f"{label}, {'optimised ' if optimize else ''}{precision}", "", run)


def _image(inputs: Arrays) -> NDArray[np.float32]:
    """Return the one input of a native model, which may have any name."""
    shapes = {name: value.shape for name, value in inputs.items()}
    for name, shape in shapes.items():
        if len(shapes) > 1 or len(shape) != 4 or shape[1] != 3 or 0 in shape:
            raise MismatchError(
                f"input {name!r}: shape {list(shape)}, expected one input alone, of (batch, 3, "
                "height, width)."
            )
    (image,) = inputs.values()
    return np.asarray(image)


def _numpy(value: torch.Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = value.float().cpu().numpy()
    return found


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)

"""A weights file becomes a model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ...converters.export import open_weights
from ...converters.numerics import profile
from ...converters.weights import Weights
from .deeplab_v2 import DeepLabV2


def load(
    path: str | Path, *, numerics: str | None = None, evaluate_as: str | None = None
) -> DeepLabV2:
    """Load a converted model, in eval mode, on the CPU.

    Parameters
    ----------
    path
        ``.safetensors``, ``.pth`` (in any layout that `export` writes), or an archive.
    numerics
        The profile of a file that does not record one; of a file that does, it must be the
        same.
    evaluate_as
        Run the weights under another profile than their own, knowing that they give other
        results there.

    Returns
    -------
    DeepLabV2
        With ``model.numerics`` and ``model.config`` as the file says.

    """
    weights = open_weights(path, numerics=numerics)
    if evaluate_as:
        weights = replace(weights, numerics=profile(evaluate_as))
    return build(weights)


def build(weights: Weights) -> DeepLabV2:
    """Make the model that these weights belong to."""
    with torch.device("meta"):
        model = DeepLabV2(weights.config, weights.numerics)
    state = {
        name: torch.from_numpy(np.array(data, order="C")) for name, data in weights.state.items()
    }
    for name, buffer in model.named_buffers():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.zeros_like(buffer, device="cpu")
    model.load_state_dict(state, assign=True)
    return model.eval()

"""A weights file, or an entry of the registry, becomes a model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ...converters.export import open_weights
from ...converters.numerics import profile
from ...converters.weights import SUFFIXES, Weights
from .deeplab_v2 import DeepLabV2


def load(
    name_or_path: str | Path, *, numerics: str | None = None, evaluate_as: str | None = None
) -> DeepLabV2:
    """Load a converted model, in eval mode, on the CPU.

    Parameters
    ----------
    name_or_path
        ``.safetensors``, ``.pth`` (in any layout that `export` writes), or an archive; else the
        name of an entry, which is fetched, verified and converted if it was not before.
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
    weights = open_weights(_path(name_or_path), numerics=numerics)
    if evaluate_as:
        weights = replace(weights, numerics=profile(evaluate_as))
    return build(weights)


def _path(name_or_path: str | Path) -> Path:
    """Tell a file from a name: what exists is a file, and so is what has a folder or suffix."""
    path = Path(name_or_path)
    if isinstance(name_or_path, Path) or path.exists() or path.suffix in SUFFIXES:
        return path
    if len(path.parts) > 1:
        return path
    from ..weights.fetch import fetch  # Late: a file needs no network.

    return fetch(str(name_or_path), convert=True)


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

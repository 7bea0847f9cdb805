"""A weights file, or an entry of the registry, becomes a model."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import overload

import numpy as np
import torch

from ...converters import families, graph_file
from ...converters.archive import Origin
from ...converters.export import open_weights
from ...converters.graph.build import of_file
from ...converters.graph.engine import Graph
from ...converters.numerics import profile
from ...converters.weights import SUFFIXES, Weights
from ...proto.errors import UsageError
from ..devices import device_called
from .deeplab_v2 import DeepLabV2
from .deeplab_v3 import DeepLabV3
from .largefov import LargeFOV
from .optimize import Optimize, Optimized, Precision, optimized

Native = DeepLabV2 | DeepLabV3 | LargeFOV


@overload
def load(
    name_or_path: str | Path,
    *,
    numerics: str | None = None,
    evaluate_as: str | None = None,
    device: str | torch.device = "cpu",
    optimize: None = None,
    precision: None = None,
) -> Native | Graph: ...


@overload
def load(
    name_or_path: str | Path,
    *,
    numerics: str | None = None,
    evaluate_as: str | None = None,
    device: str | torch.device = "cpu",
    optimize: Optimize,
    precision: Precision | None = None,
) -> Optimized: ...


def load(
    name_or_path: str | Path,
    *,
    numerics: str | None = None,
    evaluate_as: str | None = None,
    device: str | torch.device = "cpu",
    optimize: Optimize | None = None,
    precision: Precision | None = None,
) -> Native | Graph | Optimized:
    """Load a converted model, in eval mode.

    Parameters
    ----------
    name_or_path
        ``.safetensors`` (a graph's too), ``.pth`` (in any layout that `export` writes), or an
        archive; else the name of an entry, which is fetched, verified and converted if it was
        not before.
    numerics
        The profile of a file that does not record one; of a file that does, it must be the
        same.
    evaluate_as
        Run the weights under another profile than their own, knowing that they give other
        results there.
    device
        Where it runs.
    optimize
        ``inference`` for a quicker model that does nothing else; ``compiled`` for a still
        quicker one, whose first image takes half a minute. See `optimize.Optimized`.
    precision
        Of a model that is optimised, ``fp32`` or ``bf16``; None is the device's quickest.

    Returns
    -------
    DeepLabV2, DeepLabV3 or LargeFOV
        With ``model.numerics`` and ``model.config`` as the file says; or a `Graph`; or what
        `optimize` makes of the former.

    Raises
    ------
    UsageError
        A graph is to be optimised, a precision is given for a model that is not, or the device
        is not there.

    """
    present = torch.cuda.current_device() if torch.cuda.is_available() else 0
    device = device_called(str(device), present)
    model = open_model(file_of(name_or_path), numerics=numerics, evaluate_as=evaluate_as)[0]
    if optimize is None:
        if precision:
            raise UsageError(f"precision {precision}: is of a model that is optimised.")
        return model.to(device)
    if isinstance(model, Graph):
        raise UsageError(
            f"{name_or_path}: is a graph, expected a native model to optimise. "
            "fold_batch_norm makes a graph quicker."
        )
    return optimized(model, device, optimize, precision)


def file_of(name_or_path: str | Path) -> Path:
    """Return the file that is meant: what exists, has a folder or a suffix is one.

    Anything else is the name of an entry, which is fetched.
    """
    path = Path(name_or_path)
    if isinstance(name_or_path, Path) or path.exists() or path.suffix in SUFFIXES:
        return path
    if len(path.parts) > 1:
        return path
    from ..weights.fetch import fetch  # Late: a file needs no network.

    return fetch(str(name_or_path), convert=True)


def open_model(
    path: Path, *, numerics: str | None = None, evaluate_as: str | None = None
) -> tuple[Native | Graph, Origin]:
    """Load a model as `load` does, and where its weights came from."""
    if graph_file.fields_of(path) is None:
        weights = open_weights(path, numerics=numerics)
        if evaluate_as:
            weights = replace(weights, numerics=profile(evaluate_as))
        return build(weights), weights.origin
    if numerics or evaluate_as:
        raise UsageError(f"{path}: is a graph, which has no numerics profile. Leave it out.")
    found = graph_file.read(path)
    return of_file(found, str(path)), found.origin


def build(weights: Weights) -> Native:
    """Make the model that these weights belong to."""
    module, name = families.of_config(weights.config).model
    with torch.device("meta"):
        model: Native = getattr(import_module(f".{module}", __package__), name)(
            weights.config, weights.numerics
        )
    state = {
        name: torch.from_numpy(np.array(data, order="C")) for name, data in weights.state.items()
    }
    for name, buffer in model.named_buffers():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.zeros_like(buffer, device="cpu")
    model.load_state_dict(state, assign=True)
    return model.eval()

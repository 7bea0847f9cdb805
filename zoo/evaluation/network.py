"""How the network that is to be evaluated is opened."""

import torch

from ...converters.graph.engine import Graph
from ...proto.errors import UsageError
from ..models.inference import Network
from ..models.load import load
from ..models.optimize import Optimize, Precision


def open_network(
    name: str,
    device: torch.device,
    numerics: str | None = None,
    evaluate_as: str | None = None,
    optimize: Optimize | None = None,
    precision: Precision | None = None,
) -> Network:
    """Load a file, or an entry of the registry, on a device; see `load`.

    Only an optimised network has a precision of its own; others have that of their run.

    Raises
    ------
    UsageError
        It is a graph, whose inputs and scores nobody has described.

    """
    if optimize:
        return load(
            name, numerics=numerics, evaluate_as=evaluate_as, device=device, optimize=optimize,
            precision=precision,
        )  # fmt: skip
    model = load(name, numerics=numerics, evaluate_as=evaluate_as, device=device)
    if isinstance(model, Graph):
        raise UsageError(f"{name}: is a graph without a numerics profile, expected a native model.")
    return model

"""What a network must offer to be evaluated, and how one is opened."""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

from ...converters.graph.engine import Graph
from ...converters.numerics import Numerics
from ...proto.errors import UsageError
from ..models.load import load
from ..models.optimize import Optimize, Precision


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

"""Names of losses in, modules out: what ``--loss`` offers. Imports torch when a loss is built."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ...proto.errors import UsageError

if TYPE_CHECKING:
    from .criterion import Criterion


@dataclass(frozen=True, slots=True)
class Row:
    """One loss: where its class is, whether it is of two classes, the options it takes."""

    module: str
    name: str
    binary: bool
    options: tuple[str, ...]


_CE = ("ignore_index", "weight", "validate")
_BINARY = ("ignore_index", "validate")
_LOVASZ = ("ignore_index", "per_image", "distributed", "validate")
_PARTIAL = ("unlabelled", "weight", "validate")
_PATH = ("ignore_index", "lam", "method", "max_steps")

LOSSES = {
    "ce":           Row(".entropy", "CrossEntropyLoss", False, _CE),
    "partial-ce":   Row(".entropy", "PartialCrossEntropyLoss", False, _PARTIAL),
    "focal":        Row(".entropy", "FocalLoss", False, (*_CE, "gamma", "alpha")),
    "lovasz":       Row(".lovasz", "LovaszSoftmaxLoss", False, (*_LOVASZ, "weight", "classes")),
    "lovasz-hinge": Row(".lovasz", "LovaszHingeLoss", True, _LOVASZ),
    "proximal":     Row(".proximal", "ProximalLovaszHingeLoss", True, _PATH),
    "hinge":        Row(".binary", "HingeLoss", True, _BINARY),
    "bce":          Row(".binary", "BinaryCrossEntropyLoss", True, _BINARY),
    "jaccard":      Row(".binary", "SoftJaccardLoss", True, _BINARY),
}  # fmt: skip

NAMES = (*LOSSES, "ce+lovasz")


def build_loss(name: str, weights: Sequence[float] | None = None, **options: Any) -> "Criterion":
    """Return the loss of a name in `LOSSES`, or the sum of several: ``"ce+lovasz"``.

    Parameters
    ----------
    name
        Names joined by ``+``.
    weights
        The factor of each; ones if not given.
    options
        What the modules take, such as ``ignore_index`` and ``weight`` (of the classes);
        each loss of a sum takes those that it has.

    Raises
    ------
    UsageError
        A name or an option that does not exist; losses of two classes mixed with
        losses of many.

    """
    from .criterion import Criterion

    names = name.split("+")
    unknown = [part for part in names if part not in LOSSES]
    if unknown or len(set(names)) < len(names):
        raise UsageError(
            f"loss: {name!r}, expected one of {', '.join(NAMES)}, or different ones joined by +."
        )
    rows = [LOSSES[part] for part in names]
    if len({row.binary for row in rows}) > 1:
        raise UsageError(f"loss: {name!r} mixes losses of two classes with losses of many.")
    if weights is not None and len(weights) != len(names):
        raise UsageError(f"loss: {len(weights)} weights for {name!r}, expected {len(names)}.")
    if weights is not None and not all(map(math.isfinite, weights)):
        raise UsageError(f"loss: weights {list(weights)}, expected finite numbers.")
    known = {option for row in rows for option in row.options}
    if not set(options) <= known:
        strange = ", ".join(sorted(set(options) - known))
        raise UsageError(
            f"loss: {name!r} has no option {strange}, expected {', '.join(sorted(known))}."
        )
    modules = {}
    for part, row in zip(names, rows, strict=True):
        build = getattr(import_module(row.module, __package__), row.name)
        modules[part] = build(
            **{key: value for key, value in options.items() if key in row.options}
        )
    return Criterion(modules, dict(zip(names, weights or [1.0] * len(names), strict=True)))

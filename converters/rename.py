"""An archive becomes a state dict: every tensor used, dropped by a rule, or an error.

`rename` looks names up in the naming table; `check` holds the result against the
architecture. Both collect all problems before they raise.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ..proto.errors import MismatchError, listing
from .archive import Archive, Float32, Role, Tensor
from .naming.scheme import Naming

SUFFIX = {
    Role.WEIGHT: "weight",
    Role.BIAS: "bias",
    Role.GAMMA: "weight",
    Role.BETA: "bias",
    Role.MEAN: "running_mean",
    Role.VARIANCE: "running_var",
}

RAW_SUMS = "Caffe's raw batch-norm sums, kept in the archive for the way back"


@dataclass(frozen=True, slots=True, eq=False)
class Conversion:
    """A state dict under canonical names, and what became of every source tensor.

    Attributes
    ----------
    state
        Canonical name to array.
    sources
        Canonical name to the places in the source that hold it.
    dropped
        Source tensor and the rule that dropped it.

    """

    state: dict[str, Float32] = field(repr=False)
    sources: Mapping[str, tuple[str, ...]]
    dropped: tuple[tuple[str, str], ...]


def rename(
    archive: Archive,
    module_of: Callable[[str], str | None],
    drop: Callable[[Tensor], str | None],
) -> Conversion:
    """Give an archive's tensors their canonical names.

    ``module_of`` maps a source layer to a canonical module or None; ``drop`` returns the
    reason to leave a tensor behind, or None. Several tensors may reach one name (the
    branches of a multi-scale net): they must be equal, and one is kept.

    Raises
    ------
    MismatchError
        Tensors that no rule places, or copies that differ; all are listed.

    """
    state: dict[str, Float32] = {}
    sources: dict[str, tuple[str, ...]] = {}
    dropped = list(archive.dropped)
    problems: list[str] = []
    for tensor in archive.tensors:
        reason = RAW_SUMS if tensor.role not in SUFFIX else drop(tensor)
        module = module_of(tensor.layer)
        if reason is not None:
            dropped += [(source, reason) for source in tensor.sources]
        elif module is None:
            problems.append(f"{tensor.name} {list(tensor.data.shape)}: no rule places it")
        else:
            name = f"{module}.{SUFFIX[tensor.role]}"
            if name in state and not np.array_equal(state[name], tensor.data, equal_nan=True):
                problems.append(
                    f"{tensor.name}: differs from {sources[name][0]}, and both are {name}"
                )
            state.setdefault(name, tensor.data)
            sources[name] = sources.get(name, ()) + tensor.sources
    if problems:
        raise MismatchError(
            f"{len(problems)} tensors have no place in the model:\n{listing(problems)}\n"
            "If they are of another head: convert with --reset-head. Else it is another model."
        )
    return Conversion(state, sources, tuple(dropped))


def check(state: Mapping[str, Float32], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Hold names and shapes against the architecture's; raise one error for all problems."""
    problems = [f"{name}: missing" for name in expected if name not in state]
    problems += [f"{name}: not part of the model" for name in state if name not in expected]
    problems += [
        f"{name}: shape {list(state[name].shape)}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in state and state[name].shape != shape
    ]
    if problems:
        raise MismatchError(f"{len(problems)} tensors do not fit the model:\n{listing(problems)}")


def without_aliases(
    state: Mapping[str, Float32], naming: Naming, layout: str, place: str
) -> tuple[dict[str, Float32], tuple[str, ...]]:
    """Leave a state dict's second names of tensors out; return what is left, and those names.

    Raises
    ------
    MismatchError
        A tensor is not the same under both of its names; all are listed.

    """
    named = ((naming.alias_of(layout, name), name) for name in state)
    aliases = {alias: name for alias, name in named if alias in state and alias is not None}
    problems = [
        f"{alias}: differs from {name}, whose second name it is"
        for alias, name in aliases.items()
        if not np.array_equal(state[alias], state[name], equal_nan=True)
    ]
    if problems:
        raise MismatchError(
            f"{place}: {len(problems)} tensors differ under their second names:\n"
            f"{listing(problems)}\nWhich are meant is not known."
        )
    kept = {name: data for name, data in state.items() if name not in aliases}
    return kept, tuple(aliases)

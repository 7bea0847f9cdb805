"""TensorFlow to archive: a checkpoint's variables become named arrays in the normal form.

Enters: variables by name. Leaves: the weights as `Tensor`, each with its role, and what was
left behind by which rule (optimizer slots, step counters, bookkeeping). Also serves programs
that kept TensorFlow's names in files of their own.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from numpy.typing import NDArray

from ..proto.checkpoint import Checkpoint
from ..proto.errors import MismatchError, UsageError, listing
from .archive import Role, Tensor, single
from .caffe import non_finite
from .naming.families import looks_like

ROLES = {
    "weights": Role.WEIGHT,
    "depthwise_weights": Role.WEIGHT,
    "biases": Role.BIAS,
    "gamma": Role.GAMMA,
    "beta": Role.BETA,
    "moving_mean": Role.MEAN,
    "moving_variance": Role.VARIANCE,
}

# Variables that are no part of the network.
DROPS = (
    (r"(.*/)?(Momentum|Adam|Adam_1|RMSProp|RMSProp_1|Adagrad)", "an optimizer's slot"),
    (r".+/\.OPTIMIZER_SLOT/.+", "an optimizer's slot"),
    (r"(.*/)?ExponentialMovingAverage", "a running mean of a variable, which nothing evaluates"),
    (r"(.*/)?(beta1_power|beta2_power)", "an optimizer's state"),
    (r"Variable(_\d+)?", "an unnamed gradient accumulator of train_msc.py"),
    (r"(.*/)?(global_step|step|save_counter)", "a step counter"),
    (r"_CHECKPOINTABLE_OBJECT_GRAPH", "bookkeeping of object-based checkpoints"),
)
UNSELECTED = "not selected by --variables"

# Whatever stands before one in a checkpoint is the network's scope.
ANCHORS = (
    "res2a_branch1/weights",
    "MobilenetV2/Conv/weights",
    "xception_65/entry_flow/conv1_1/weights",
)
OBJECT_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
SLOT = "/.OPTIMIZER_SLOT/"


@dataclass(frozen=True, slots=True)
class Found:
    """What a set of variables gave: tensors, and places with the rule that dropped them."""

    tensors: tuple[Tensor, ...]
    dropped: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stored:
    """A variable to convert: its type as stored, its shape, and how to read it."""

    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], NDArray[Any]]


def stored(checkpoint: Checkpoint) -> dict[str, Stored]:
    """Return a checkpoint's variables by name.

    An object-based checkpoint has keys instead; a variable's own name is used where no other
    has it, else the key. Only the key tells an optimizer's slot.
    """
    keys = {key: key.removesuffix(OBJECT_SUFFIX) for key in checkpoint}
    own = {key: name for key, name in checkpoint.full_names.items() if name and SLOT not in key}
    taken = Counter([*own.values(), *keys.values()])
    return {
        own[key] if key in own and taken[own[key]] == 1 else keys[key]: Stored(
            one.dtype, one.shape, one.read
        )
        for key, one in checkpoint.items()
    }


def tensors(
    variables: Mapping[str, Stored], *, select: Sequence[str] = (), axes: str = "tensorflow"
) -> Found:
    """Read variables into the normal form.

    Parameters
    ----------
    variables
        By name; ``scope/layer/weights`` and so on, the scope is found and taken off.
    select
        Patterns (``*`` and ``?``) of the variables to take; none takes all.
    axes
        ``tensorflow``: convolutions are (height, width, in, out). ``pytorch``: as here.

    Raises
    ------
    MismatchError
        Variables that are neither weights nor known to be left behind; all are listed.
    UsageError
        A pattern that selects nothing.

    """
    for pattern in select:
        if not any(fnmatchcase(name, pattern) for name in variables):
            raise UsageError(f"--variables {pattern!r} selects none of {len(variables)} variables.")
    chosen = {n for n in variables if not select or any(fnmatchcase(n, one) for one in select)}
    scope = scope_of(sorted(chosen))
    found: list[Tensor] = []
    dropped: list[tuple[str, str]] = []
    problems: list[str] = []
    for name, variable in variables.items():
        if name not in chosen:
            dropped.append((name, UNSELECTED))
            continue
        reason = _reason(name)
        layer, _, parameter = name.removeprefix(scope).rpartition("/")
        if reason:
            dropped.append((name, reason))
        elif parameter not in ROLES or not layer:
            problems.append(f"{name}: {variable.dtype} {list(variable.shape)}")
        elif "float" not in variable.dtype:
            problems.append(f"{name}: {variable.dtype}, expected numbers with a fraction")
        else:
            found.append(_tensor(name, layer, ROLES[parameter], variable, axes))
    if problems:
        family = looks_like(variables)
        raise MismatchError(
            f"{len(problems)} variables are neither weights nor known to be left behind:\n"
            f"{listing(problems)}\n"
            + (f"It looks like {family}. " if family else "")
            + "To take only some variables: convert tf --variables PATTERN."
        )
    return Found(tuple(found), tuple(dropped), tuple(notes_of(found)))


def notes_of(found: Sequence[Tensor]) -> Iterator[str]:
    """Note which tensors were not float32, and which hold NaN or infinity."""
    types = dict.fromkeys(one.source_dtype for one in found if one.source_dtype != "float32")
    for dtype in types:
        names = [one.name for one in found if one.source_dtype == dtype]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        yield f"{to_float32(dtype)}: {', '.join(names[:3])}{more}"
    yield from non_finite(found)


def to_float32(dtype: str) -> str:
    """Say what becomes of values of another type of floats."""
    return f"{dtype} {'rounded' if dtype == 'float64' else 'widened'} to float32"


def layers(variables: Iterable[str]) -> list[str]:
    """Return the layers that variables are of, for telling what they are."""
    names = list(variables)
    scope = scope_of(names)
    return [name.removeprefix(scope).rpartition("/")[0] for name in names]


def scope_of(names: Iterable[str]) -> str:
    """Return what stands before the network's own names, ``""`` for nothing."""
    scopes = [
        name.removesuffix(anchor) for name in names for anchor in ANCHORS if name.endswith(anchor)
    ]
    return min((one for one in scopes if not one or one.endswith("/")), key=len, default="")


def _reason(name: str) -> str | None:
    return next((reason for pattern, reason in DROPS if re.fullmatch(pattern, name)), None)


def _tensor(name: str, layer: str, role: Role, variable: Stored, axes: str) -> Tensor:
    data = variable.read()
    transforms = []
    if variable.dtype != "float32":
        transforms.append(to_float32(variable.dtype))
    if name.endswith("/depthwise_weights") and data.ndim == 4:
        data = data.transpose(2, 3, 0, 1)
        transforms.append("axes to in, multiplier, height, width")
    elif role is Role.WEIGHT and axes == "tensorflow" and data.ndim in (2, 4):
        data = data.transpose(3, 2, 0, 1) if data.ndim == 4 else data.T
        transforms.append("axes to out, in, height, width" if data.ndim == 4 else "transposed")
    return Tensor(
        layer,
        role,
        single(data),
        (name,),
        variable.dtype,
        ", ".join(transforms) or "none",
    )

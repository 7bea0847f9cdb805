"""Other programs' own files to archive: ``.npy``, deepdish ``.h5``, ``.pth``; and ours.

Enters: a file, told by its content. Leaves: an `Archive` under the names of its program, with
the scales that program ran the model at. Nothing in a file is executed.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..proto import deepdish, kaffe
from ..proto.errors import FormatError, MismatchError, UsageError
from . import families, hdf5, tensorflow, weights
from .archive import Archive, Origin, Role, Tensor, single, tool
from .files import sha256
from .kinds import Kind, check_command, kind_of
from .naming.scheme import ALIAS, DROPPED
from .numerics import (
    CAFFE_V2,
    JACCARD_SEGMENT,
    JFZHANG95,
    OPENMMLAB,
    PYTORCHCV,
    TF_SLIM,
    TORCH_HALFPIXEL,
    TORCHVISION,
    Numerics,
    profile,
)
from .rename import without_aliases

Scales = tuple[float, ...]

KAFFE_ROLES = {
    "weights": Role.WEIGHT,
    "biases": Role.BIAS,
    "scale": Role.GAMMA,
    "offset": Role.BETA,
    "mean": Role.MEAN,
    "variance": Role.VARIANCE,
}


class Habit(NamedTuple):
    """How a program ran its models: under which conventions, at which scales."""

    numerics: Numerics | None
    scales: Scales


# Layouts of a ``.pth`` that another program wrote. AdvSemiSeg's conventions are not settled
# by its files, so they must be named.
HABITS = {
    "isht7": Habit(CAFFE_V2, (1.0, 0.75, 0.5)),
    "kazuto1011": Habit(TORCH_HALFPIXEL, (1.0, 0.75, 0.5)),
    "advsemiseg": Habit(None, (1.0,)),
    "canonical": Habit(None, (1.0,)),
    "jfzhang95": Habit(JFZHANG95, (1.0,)),
    "torchvision": Habit(TORCHVISION, (1.0,)),
    "openmmlab": Habit(OPENMMLAB, (1.0,)),
    "pytorchcv": Habit(PYTORCHCV, (1.0,)),
    "pytorchcv-renumbered": Habit(PYTORCHCV, (1.0,)),
}


def habit(layout: str) -> Habit:
    """Return how the program of a state dict's layout ran its models."""
    return HABITS.get(layout, Habit(None, (1.0,)))


def read(path: Path, numerics: str | None = None) -> Archive:
    """Read any legacy file; ``numerics`` names the profile where the file cannot tell.

    Raises
    ------
    FormatError
        The file is damaged, or of no format that is read here.
    MismatchError
        ``numerics`` is not what the file says, or is needed and missing.

    """
    named = profile(numerics) if numerics else None
    check_command(path, "convert legacy")
    match kind_of(path):
        case Kind.KAFFE:
            return _archive(path, "caffe-tensorflow", named or TF_SLIM, _of_kaffe(path))
        case Kind.DEEPDISH:
            return _deepdish(path, named or JACCARD_SEGMENT)
        case Kind.ARCHIVE:
            archive = hdf5.read(path)
            _agree(path, archive.numerics, named)
            return archive
    return _of_state(path, named)


def _archive(
    path: Path,
    framework: str,
    numerics: Numerics | None,
    tensors: Iterator[Tensor],
    dropped: tuple[tuple[str, str], ...] = (),
    scales: Scales = (1.0,),
) -> Archive:
    found = tuple(tensors)
    origin = Origin(framework, {path.name: sha256(path)}, tool())
    notes = tuple(tensorflow.notes_of(found))
    return Archive(origin, numerics, None, found, {"scales": scales}, notes, dropped)


def _of_kaffe(path: Path) -> Iterator[Tensor]:
    for layer, arrays in kaffe.read(path).items():
        for name, array in arrays.items():
            if name not in KAFFE_ROLES:
                raise FormatError(
                    f"{path}: {layer}/{name}: unknown parameter, expected one of "
                    f"{', '.join(KAFFE_ROLES)}."
                )
            data = array
            transform = "none"
            if KAFFE_ROLES[name] is Role.WEIGHT and array.ndim in (2, 4):
                data = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
                transform = "axes to PyTorch's order"
            yield _tensor(layer, KAFFE_ROLES[name], data, f"{layer}/{name}", transform, path)


def _deepdish(path: Path, numerics: Numerics) -> Archive:
    variables = {
        name: tensorflow.Stored(str(array.dtype), array.shape, lambda array=array: array)  # type: ignore[misc]
        for name, array in deepdish.read(path).items()
    }
    found = tensorflow.tensors(variables, axes="pytorch")
    return _archive(path, "tensorflow", numerics, iter(found.tensors), found.dropped)


def _of_state(path: Path, named: Numerics | None) -> Archive:
    """Read a state dict: ours says what it is, another program's goes by its layout."""
    state, described = weights.read_named(path)
    if described:
        ours = weights.read(path)
        _agree(path, ours.numerics, named)
        return of_weights(ours)
    found = families.of_state(state)
    layout = found[1] if found else ""
    numerics = named or habit(layout).numerics
    if numerics is None and layout:
        raise UsageError(
            f"{path}: a state dict in the {layout} layout, which does not tell the conventions it "
            "was trained under. Name them: --numerics caffe-v2 (or another profile)."
        )
    dropped = tuple(
        (name, reason)
        for name in state
        if (reason := DROPPED.get(name.rpartition(".")[2])) is not None
    )
    kept = {k: v for k, v in state.items() if k.rpartition(".")[2] not in DROPPED}
    if found:
        kept, aliases = without_aliases(kept, found[0].naming, layout, str(path))
        dropped += tuple((name, ALIAS) for name in aliases)
    return _archive(path, "pytorch", numerics, _of_names(kept, path), dropped, habit(layout).scales)


def _of_names(state: Mapping[str, NDArray[np.generic]], path: Path) -> Iterator[Tensor]:
    """Tell roles by names: what has running statistics is a normalisation."""
    norms = {name.rpartition(".")[0] for name in state if name.endswith("running_mean")}
    roles = {
        ("weight", False): Role.WEIGHT,
        ("bias", False): Role.BIAS,
        ("weight", True): Role.GAMMA,
        ("bias", True): Role.BETA,
        ("running_mean", True): Role.MEAN,
        ("running_var", True): Role.VARIANCE,
    }
    for name, data in state.items():
        module, _, parameter = name.rpartition(".")
        role = roles.get((parameter, module in norms))
        if role is None or not module:
            raise FormatError(
                f"{path}: {name}: expected a weight, bias or running statistic of a layer."
            )
        yield _tensor(module, role, data, name, "none", path)


def _tensor(
    layer: str, role: Role, data: NDArray[np.generic], source: str, transform: str, path: Path
) -> Tensor:
    dtype = data.dtype.newbyteorder("=")
    if dtype.kind != "f":
        raise FormatError(f"{path}: {source}: {dtype}, expected numbers with a fraction.")
    if dtype != np.float32:
        change = tensorflow.to_float32(str(dtype))
        transform = change if transform == "none" else f"{change}, {transform}"
    return Tensor(layer, role, single(data), (source,), str(dtype), transform)


def _agree(path: Path, found: Numerics | None, named: Numerics | None) -> None:
    if named is not None and found is not None and named != found:
        raise MismatchError(
            f"{path}: was trained under {found.name!r}, asked for {named.name!r}. "
            "Leave --numerics out."
        )


def of_weights(found: weights.Weights) -> Archive:
    """Return native weights as an archive under their canonical names."""
    family = families.of_config(found.config)
    state = {name: found.state[name] for name in family.parameters(found.config)}
    tensors = tuple(_of_names(state, Path("weights")))
    origin = Origin("pytorch", found.origin.files, found.origin.tool)
    return Archive(origin, found.numerics, None, tensors, family.settings(found.config))

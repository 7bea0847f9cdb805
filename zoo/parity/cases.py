"""What to compare at: photos and noise, at sizes that are odd, even and not square."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...proto.errors import MismatchError, UsageError
from ..data.images import read_photo
from .engine import Case
from .original import Original

# All are sizes at which the three branches of a Caffe net meet: (n - 1) mod 32 is 0 to 5.
SIZES = (("photo", (321, 321)), ("noise", (322, 452)), ("photo", (513, 513)))
NOISE = 60.0  # About what pixels deviate from the mean.


def default_cases(
    original: Original, seed: int = 0, *, native: bool
) -> tuple[list[Case], list[str]]:
    """Return the standard inputs of a source's network, and which sizes it cannot take.

    A native model's network takes photos of any size; any other net is given what its file
    states.
    """
    if not native:
        return _as_stated(original, seed), []
    cases, notes = [], []
    for kind, size in SIZES:
        case = _pictured(kind, size, seed)
        problem = _misfit(original, case)
        if problem:
            notes.append(f"{case.name} left out: {problem}")
        else:
            cases.append(case)
    if not cases:
        return _as_stated(original, seed), notes
    return cases, notes


def sized_case(original: Original, kind: str, size: tuple[int, int], seed: int = 0) -> Case:
    """Return a photo or noise of a size; raise `MismatchError` where the net cannot take it."""
    if min(size) < 1:
        raise UsageError(f"size {size[0]}x{size[1]}: expected numbers above 0.")
    case = _pictured(kind, size, seed)
    problem = _misfit(original, case)
    if problem:
        raise MismatchError(f"{case.name}: {problem}")
    return case


def image_case(path: Path) -> Case:
    """Read a picture file as an input of its own size."""
    picture = read_photo(path)
    return Case(f"{path.name}, {picture.shape[0]}x{picture.shape[1]}", picture)


def photo(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Draw a photo-like RGB picture (height, width, 3): a sky, a ground, some round things."""
    random = np.random.Generator(np.random.PCG64(seed))
    y, x = np.mgrid[:height, :width]
    image = np.stack([90 + 0.5 * y, 130 + 0.3 * y, 200 - 0.6 * y], -1)
    image[y > 0.6 * height] = (95, 110, 60)
    for _ in range(6):
        centre, radius = random.uniform(0, (height, width)), random.uniform(0.05, 0.25) * height
        image[np.hypot(y - centre[0], x - centre[1]) < radius] = random.uniform(0, 255, 3)
    noise = random.normal(0, 8, image.shape)
    return (image + noise).clip(0, 255).astype(np.uint8)


def _pictured(kind: str, size: tuple[int, int], seed: int) -> Case:
    if kind == "photo":
        picture = photo(*size, seed)
    else:
        random = np.random.Generator(np.random.PCG64(seed))
        picture = random.integers(0, 256, (*size, 3), np.uint8)
    return Case(f"{kind}, {size[0]}x{size[1]}", picture)


def _misfit(original: Original, case: Case) -> str:
    """Say why the source's own network cannot take an input; empty where it can."""
    if original.numerics.padding == "same" or case.picture is None:
        return ""
    try:
        original.graph.sizes({original.image: (1, 3, *case.picture.shape[:2])})
    except MismatchError as error:
        return str(error)
    return ""


def _as_stated(original: Original, seed: int) -> list[Case]:
    inputs = original.graph.inputs
    if not inputs:
        raise UsageError("the network reads no input, expected one at least to compare at.")
    unknown = [name for name, shape in inputs.items() if shape is None]
    if unknown:
        raise UsageError(f"input {unknown[0]!r}: its file states no shape. Give --size.")
    shapes = {name: tuple(shape or ()) for name, shape in inputs.items()}
    if len(shapes) == 1 and _is_image(next(iter(shapes.values()))):
        size = next(iter(shapes.values()))[2:]
        return [_pictured(kind, (size[0], size[1]), seed) for kind in ("photo", "noise")]
    random = np.random.Generator(np.random.PCG64(seed))
    blobs = {
        name: random.normal(0, NOISE, shape).astype(np.float32) for name, shape in shapes.items()
    }
    sizes = ", ".join("x".join(map(str, shape)) for shape in shapes.values())
    return [Case(f"noise, {sizes}", blobs=blobs)]


def _is_image(shape: Sequence[int]) -> bool:
    return len(shape) == 4 and tuple(shape[:2]) == (1, 3)

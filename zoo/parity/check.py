"""Is a converted model the same function as its original? Both are run; a report leaves."""

import platform
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ...converters import families
from ...converters.archive import tool
from ...converters.compare import Difference, difference
from ...converters.deeplab_v2 import DeepLabV2Config
from ...converters.files import digests
from ...converters.graph.engine import Graph
from ...converters.kinds import Kind
from ...converters.numerics import Numerics
from ...proto.errors import MismatchError, MissingDependencyError, UsageError, ZooError, listing
from ..models.load import Native
from . import conventions, diagnosis, opencv, ours, pycaffe, tensorflow
from .comparison import Tolerance, compare, with_exact
from .engine import Arrays, Case, Engine
from .original import Original
from .report import Compared, ParityReport, Pictures, Weighed

Progress = Callable[[str], None]


class Sides(NamedTuple):
    """Both sides' blobs at one input, and what the reference was given."""

    case: Case
    given: Arrays
    ours: Arrays
    reference: Arrays


def check(
    model: Native | Graph,
    original: Original,
    engine: Engine,
    cases: Sequence[Case],
    limit: Tolerance,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    optimize: bool = False,
    exact: bool = True,
    diagnose: bool = False,
    notes: Sequence[str] = (),
    files: Sequence[Path] = (),
    progress: Progress = lambda _: None,
) -> ParityReport:
    """Run a model and a reference engine at every case and compare every blob.

    Parameters
    ----------
    model
        The converted model.
    original
        What the source states.
    engine
        The reference, see `choose`.
    cases
        The inputs.
    limit
        What passes.
    device, precision, optimize
        Of our side: ``cpu``, ``cuda``, ...; ``fp32`` or ``bf16``; optimised for inference.
    exact
        Run the source in float64 too.
    diagnose
        Where a blob differs, look for the convention that explains it.
    notes, files
        For the report: what the reader should know, and the files beside the source's.
    progress
        Is told what is being done.

    Raises
    ------
    MismatchError
        The sides have no blob in common.
    UsageError
        A device or precision that is not there, or a graph is to be optimised.

    """
    side = ours.engine(model, device, precision, optimize=optimize)
    numerics = ours.numerics_of(model)
    found: list[Compared] = []
    seen: set[str] = set()
    first: tuple[Sides, str] | None = None  # Where the first blob differs, and which.
    for case in cases:
        sides = _run(case, original, engine, side, numerics, progress)
        if exact:
            progress(f"{case.name}: float64")
        found.append(_compared(sides, original, engine, exact=exact))
        seen |= set(sides.reference) - set(sides.given) - {*found[-1].blobs}
        if first is None and (failures := found[-1].failures(limit)):
            first = sides, failures[0].blob
        del sides  # The next case needs the memory.
    report = ParityReport(
        _subject(model),
        engine.label,
        digests([*files, *original.files]),
        (numerics.name, original.numerics.name),
        limit,
        _weighed(model, original),
        tuple(found),
        tuple(sorted(seen)),
        None,
        (*notes, *original.graph.notes),
        environment(side, engine),
        ours.outputs_of(model),
    )
    differ = [one.name for one in report.weights.differences] if report.weights else []
    if not diagnose or not (first or differ):
        return report
    progress("diagnosis")
    if first is None:
        return replace(report, diagnosis=diagnosis.of_weights(differ))
    sides, blob = first
    cause = diagnosis.diagnose(original, sides.ours, sides.reference, blob, sides.case.picture)
    return replace(report, diagnosis=cause)


def choose(original: Original, name: str, scales: Sequence[float]) -> tuple[Engine, list[str]]:
    """Return the reference engine of a name, or the first that works, and why others are unfit.

    Raises
    ------
    UsageError
        An unknown name.
    MissingDependencyError
        No engine but our own is installed, or not the one that was asked for.
    MismatchError
        The engine that was asked for is no reference for this source.

    """
    makers: dict[str, Callable[[], Engine]] = {
        "pycaffe": lambda: pycaffe.engine(original),
        "opencv": lambda: opencv.engine(original),
        "tensorflow": lambda: tensorflow.engine(_checkpoint(original), scales),
        "float64": lambda: float64(original),
    }
    if name in makers:
        return makers[name](), []
    if name != "auto":
        known = ", ".join(["auto", *makers])
        raise UsageError(f"engine {name!r} is unknown, expected one of {known}.")
    order = ["tensorflow"] if original.kind is Kind.CHECKPOINT else ["pycaffe", "opencv"]
    problems: list[str] = []
    unfit: list[str] = []
    for one in order if original.kind in (Kind.CHECKPOINT, Kind.CAFFEMODEL) else ():
        try:
            return makers[one](), unfit
        except ZooError as error:
            problems.append(f"{one}: {error}")
            unfit += [] if isinstance(error, MissingDependencyError) else problems[-1:]
    if not problems:
        kind = original.kind.value if original.kind else "no source"
        return float64(original), [
            f"no other engine runs a {kind}; the reference is our own float64"
        ]
    raise MissingDependencyError(
        f"no reference engine for this source:\n{listing(problems)}\n"
        "--engine float64 compares with exact arithmetic of our own, which is no independent proof."
    )


def _checkpoint(original: Original) -> Path:
    if original.checkpoint is None:
        raise MismatchError("TensorFlow is a reference for checkpoints only.")
    return original.checkpoint


def float64(original: Original) -> Engine:
    """Make an engine of the source's own statement in float64."""

    def run(inputs: Arrays) -> Arrays:
        blobs: dict[str, NDArray[np.float32]] = {}

        def keep(name: str, value: torch.Tensor) -> None:
            blobs[name] = value.float().numpy()

        given = {name: torch.from_numpy(np.asarray(value)) for name, value in inputs.items()}
        conventions.exact(original.graph, original.numerics, given, keep)
        return blobs

    return Engine("our own PyTorch float64", torch.__version__, run)


def _run(
    case: Case,
    original: Original,
    engine: Engine,
    side: Engine,
    numerics: Numerics,
    progress: Progress,
) -> Sides:
    """Run both sides; each prepares a picture as its own profile says."""
    image = original.image if case.picture is not None else ""
    given = case.inputs(image, original.numerics)
    progress(f"{case.name}: {engine.label}")
    theirs = engine.run(given)
    prepared = case.inputs(image, numerics)
    progress(f"{case.name}: {side.label}")
    mine = side.run(prepared)
    # Of the other inputs an engine may not show what became of them.
    held = [{name: inputs[name] for name in original.kept} for inputs in (prepared, given)]
    return Sides(case, given, {**held[0], **mine}, {**held[1], **theirs})


def _compared(sides: Sides, original: Original, engine: Engine, *, exact: bool) -> Compared:
    """Compare every blob that both sides have, and keep the pictures of the prediction."""
    case, given, mine, theirs = sides
    inputs = original.kept
    order = [blob for blob in original.graph.blobs if blob in theirs and blob in mine]
    if set(order) <= inputs:
        raise MismatchError(
            f"{engine.label}: none of its blobs is one of ours: it has "
            f"{', '.join(list(theirs)[:8])}; expected names such as {', '.join(list(mine)[:8])}."
        )
    if case.picture is None:  # Then both sides have the same ones.
        order = [blob for blob in order if blob not in inputs]
    maps = [
        blob
        for blob in order
        if blob not in inputs and theirs[blob].ndim == 4 and theirs[blob].shape[1] > 1
    ]
    scores = maps[-1] if maps else None
    classes = theirs[scores].shape[1] if scores else 0
    comparisons = {
        blob: compare(blob, mine[blob], theirs[blob], classes=theirs[blob].shape[1:2] == (classes,))
        for blob in order
    }

    def visit(name: str, value: torch.Tensor) -> None:
        if name in comparisons:
            comparisons[name] = with_exact(
                comparisons[name], mine[name], theirs[name], value.numpy()
            )

    if exact:
        tensors = {name: torch.from_numpy(np.asarray(value)) for name, value in given.items()}
        conventions.exact(original.graph, original.numerics, tensors, visit)
    pictures = None
    if scores is not None and mine[scores].ndim == 4 and min(mine[scores].shape[2:]) > 1:
        pictures = Pictures(case.picture, mine[scores][0].argmax(0), theirs[scores][0].argmax(0))
    shape = tuple(next(iter(given.values())).shape)
    blank = not any(np.any(value) for value in given.values())
    return Compared(case.name, shape, tuple(comparisons.values()), scores, pictures, blank)


def _weighed(model: Native | Graph, original: Original) -> Weighed | None:
    """Hold every tensor of the model against the source's."""
    state = {
        name: value.detach().cpu().numpy()
        for name, value in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    if isinstance(model, Graph):
        if model is original.graph:
            return None
        expected = {
            name: value.detach().numpy() for name, value in original.graph.state_dict().items()
        }
    elif original.state is None:
        return None
    else:
        expected = dict(original.state)
    names = dict.fromkeys([*state, *expected])
    if not names:
        return None
    differences = [difference(name, state.get(name), expected.get(name)) for name in names]
    return Weighed(len(names), tuple(one for one in differences if isinstance(one, Difference)))


def _subject(model: Native | Graph) -> str:
    if isinstance(model, Graph):
        return f"a Caffe net of {len(model.steps)} layers"
    config = model.config
    if not isinstance(config, DeepLabV2Config):
        return families.of_config(config).summary(config)
    form = "multi-scale" if len(config.scales) > 1 else "single-scale"
    name = {(3, 4, 23, 3): "ResNet-101", (3, 4, 6, 3): "ResNet-50"}.get(config.blocks, "ResNet")
    return f"DeepLab v2 {name}, {config.classes} classes, {form}"


def environment(*engines: Engine) -> dict[str, str]:
    """Return the versions of what took part."""
    return {
        "program": tool(),
        "engines": ", ".join(engine.label for engine in engines),
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "threads": str(torch.get_num_threads()),
    }

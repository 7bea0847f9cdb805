"""The parity check from files to a report: what ``deeplab-zoo parity`` calls."""

from collections.abc import Sequence
from pathlib import Path

from ...converters.export import open_weights
from ...converters.files import sha256
from ...converters.graph.engine import Graph
from ...converters.kinds import Kind, kind_of
from ...proto.errors import UsageError
from ..models.load import Native, load
from . import onnxruntime, recorded
from .blobs import scores_of
from .cases import default_cases, image_case, sized_case
from .check import Progress, check, choose
from .comparison import tolerance as tolerance_called
from .engine import Case, Engine
from .original import Original, of_graph, of_weights, open_original
from .report import ParityReport


def parity(
    *files: str | Path,
    recorded_blobs: str | Path | None = None,
    engine: str = "auto",
    sizes: Sequence[tuple[int, int]] = (),
    images: Sequence[str | Path] = (),
    device: str = "cpu",
    precision: str = "fp32",
    optimize: bool = False,
    tolerance: str | None = None,
    exact: bool = True,
    diagnose: bool = False,
    numerics: str | None = None,
    seed: int = 0,
    progress: Progress = lambda _: None,
) -> ParityReport:
    """Say whether a converted model computes what its source does.

    Parameters
    ----------
    files
        The model (``.safetensors``, ``.pth``, archive), then its source: ``[PROTOTXT]
        CAFFEMODEL``, a TensorFlow checkpoint, another program's file, or an ``.onnx`` of the
        model. A prototxt and caffemodel alone check the generic graph engine on them.
    recorded_blobs
        Activations recorded elsewhere (``.npz``, ``.h5``), the input among them, to be the
        reference.
    engine
        The reference: ``auto``, ``pycaffe``, ``opencv``, ``tensorflow`` or ``float64``.
    sizes, images
        Photos drawn at these sizes, and picture files; none takes the standard inputs.
    device, precision
        Where and how our side runs: ``cpu`` or ``cuda``, ``fp32`` or ``bf16``.
    optimize
        Run our side as `load` makes it with ``optimize="inference"``.
    tolerance
        ``exact``, ``fp32`` or ``bf16``; None is the precision's own.
    exact
        Run the source in float64 too, for each side's own error.
    diagnose
        Where a blob differs, look for the convention that explains it.
    numerics
        The profile of files that do not record one.
    seed
        Of the drawn inputs.
    progress
        Is told what is being done.

    Raises
    ------
    UsageError
        Files that do not make a model and a source, an unknown name, an impossible size.
    MissingDependencyError
        The reference engine is not installed; says how to install it.
    ZooError
        A file cannot be read, or the two sides have no blob in common.

    """
    paths = [Path(file) for file in files]
    onnx = paths.pop() if len(paths) > 1 and paths[-1].suffix.lower() == ".onnx" else None
    stored = Path(recorded_blobs) if recorded_blobs is not None else None
    limit = tolerance_called(tolerance or precision)
    if (given := stored or onnx) and engine != "auto":
        raise UsageError(f"engine {engine}: the reference is {given}. Leave the engine out.")
    if stored and onnx:
        raise UsageError(f"{onnx} and {stored}: two references, expected one.")
    if stored and (sizes or images):
        raise UsageError(f"{stored}: holds the input too. Leave out --size and --image.")
    progress("reading the files")
    model, original = _opened(paths, numerics, alone=given is not None)
    notes: list[str] = []
    if stored:
        reference, case = recorded.read(stored, tuple(original.graph.inputs))
        cases = [case]
    else:
        reference, only, notes = _reference(model, original, onnx, engine)
        cases, left_out = _cases(model, original, sizes, images, only, seed)
        notes += left_out
    return check(
        model,
        original,
        reference,
        cases,
        limit,
        device=device,
        precision=precision,
        optimize=optimize,
        exact=exact,
        diagnose=diagnose,
        notes=notes,
        files=[paths[0], *([given] if given else [])],
        progress=progress,
    )


def _opened(
    paths: list[Path], numerics: str | None, *, alone: bool
) -> tuple[Native | Graph, Original]:
    """Return the model and its source, for which it may stand itself if it comes ``alone``."""
    if not paths:
        raise UsageError("no files, expected a model and its source.")
    if kind_of(paths[0]) in (Kind.PROTOTXT, Kind.CAFFEMODEL):
        if numerics:
            raise UsageError(f"{paths[0]}: is Caffe's, as its numerics are. Leave numerics out.")
        original = open_original(paths)
        return original.graph, original
    own, *sources = paths
    model = load(own, numerics=numerics)
    if sources:
        original = open_original(sources, scales=_scales(model), numerics=numerics)
        if sha256(own) in map(sha256, original.files):
            raise UsageError(f"{own}: is its own source, expected what it was converted from.")
        return model, original
    if not alone:
        raise UsageError(
            f"{own}: nothing to compare it with. Give its source ([PROTOTXT] CAFFEMODEL, a "
            "checkpoint, ...) or recorded activations."
        )
    if isinstance(model, Graph):
        return model, of_graph(model)
    return model, of_weights(open_weights(own, numerics=numerics))


def _reference(
    model: Native | Graph, original: Original, onnx: Path | None, engine: str
) -> tuple[Engine, tuple[int, int] | None, list[str]]:
    """Return the engine, the one size that it takes (None: any), and why others are unfit."""
    if onnx is None:
        reference, unfit = choose(original, engine, _scales(model))
        return reference, None, unfit
    scores = scores_of(model) if isinstance(model, Native) else onnxruntime.SCORES
    return (*onnxruntime.engine(onnx, tuple(original.graph.inputs), scores), [])


def _cases(
    model: Native | Graph,
    original: Original,
    sizes: Sequence[tuple[int, int]],
    images: Sequence[str | Path],
    only: tuple[int, int] | None,
    seed: int,
) -> tuple[list[Case], list[str]]:
    """Return the inputs asked for, else the standard ones, and which sizes are left out."""
    if sizes or images:
        cases = [sized_case(original, "photo", size, seed) for size in sizes]
        return [*cases, *(image_case(Path(image)) for image in images)], []
    if only is not None:
        return [sized_case(original, kind, only, seed) for kind in ("photo", "noise")], []
    return default_cases(original, seed, native=isinstance(model, Native))


def _scales(model: Native | Graph) -> tuple[float, ...]:
    return model.config.scales if isinstance(model, Native) else (1.0,)

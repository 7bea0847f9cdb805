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
    limit = tolerance_called(tolerance or precision)
    progress("reading the files")
    model, sources, own = _opened(paths, numerics)
    if not sources and recorded_blobs is None:
        raise UsageError(
            f"{paths[0]}: nothing to compare it with. Give its source ([PROTOTXT] CAFFEMODEL, a "
            "checkpoint, ...) or recorded activations."
        )
    original = _original(model, sources, own, numerics)
    notes: list[str] = []
    if recorded_blobs is not None:
        reference, case = recorded.read(Path(recorded_blobs), tuple(original.graph.inputs))
        cases = [case]
    else:
        reference, only, notes = _reference(model, original, sources[-1], engine)
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
        files={path.name: sha256(path) for path in own},
        progress=progress,
    )


def _opened(
    paths: list[Path], numerics: str | None
) -> tuple[Native | Graph, list[Path], list[Path]]:
    """Return the model, the files of its source, and its own."""
    if not paths:
        raise UsageError("no files, expected a model and its source.")
    if kind_of(paths[0]) in (Kind.PROTOTXT, Kind.CAFFEMODEL):
        return open_original(paths).graph, paths, []
    return load(paths[0], numerics=numerics), paths[1:], paths[:1]


def _original(
    model: Native | Graph, sources: list[Path], own: list[Path], numerics: str | None
) -> Original:
    if sources and sources[-1].suffix != ".onnx":
        return open_original(sources, scales=_scales(model), numerics=numerics)
    if isinstance(model, Graph):
        return of_graph(model)
    return of_weights(open_weights(own[0], numerics=numerics))


def _reference(
    model: Native | Graph, original: Original, source: Path, engine: str
) -> tuple[Engine, tuple[int, int] | None, list[str]]:
    """Return the engine, the one size that it takes (None: any), and why others are unfit."""
    if source.suffix != ".onnx":
        reference, unfit = choose(original, engine, _scales(model))
        return reference, None, unfit
    scores = scores_of(model) if isinstance(model, Native) else "scores"
    return (*onnxruntime.engine(source, "data", scores), [])


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
        if len(inputs := original.graph.inputs) > 1:
            raise UsageError(
                f"the network reads {len(inputs)} inputs ({', '.join(inputs)}), expected one, the "
                "picture. Leave out --size and --image."
            )
        cases = [sized_case(original, "photo", size, seed) for size in sizes]
        return [*cases, *(image_case(Path(image)) for image in images)], []
    if only is not None:
        return [sized_case(original, kind, only, seed) for kind in ("photo", "noise")], []
    return default_cases(original, seed, native=isinstance(model, Native))


def _scales(model: Native | Graph) -> tuple[float, ...]:
    return model.config.scales if isinstance(model, Native) else (1.0,)

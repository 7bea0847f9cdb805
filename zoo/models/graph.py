"""A Caffe net that no naming table knows is converted to a graph: one file, three formats."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ...converters import families, graph_file, weights
from ...converters.archive import Origin
from ...converters.convert import read_caffe
from ...converters.files import check_apart, replacing
from ...converters.graph.build import of_file
from ...converters.graph.weights import FILLED
from ...converters.native import recognised, to_native
from ...converters.weights import Weights
from ...proto.errors import MismatchError, UsageError, ZooError, listing
from .load import build
from .onnx import IMAGE, export_onnx

SUFFIXES = (".pt2", ".onnx", ".safetensors")


@dataclass(frozen=True, slots=True)
class Converted:
    """What was written, what it is in words, its inputs and outputs, and what to know of it."""

    written: Path
    summary: str
    inputs: Mapping[str, tuple[int, ...] | None]
    outputs: tuple[str, ...]
    notes: tuple[str, ...]


def convert_graph(
    prototxt: str | Path | None,
    caffemodel: str | Path,
    out: str | Path,
    *,
    size: tuple[int, int] | None = None,
    strict: bool = True,
) -> Converted:
    """Convert any Caffe net: to its native model where it has one, else to a graph.

    Parameters
    ----------
    prototxt, caffemodel, strict
        As for `convert_caffe`; of the prototxt the layers of the TEST phase are taken.
    out
        ``.safetensors`` (for `load`), ``.onnx``, or ``.pt2`` (for ``torch.export.load``), which
        takes a dict of the input blobs and returns a dict of the outputs.
    size
        Height and width of the inputs with four axes, in place of the prototxt's.

    Raises
    ------
    MismatchError
        The weights lack layers of the net; all are listed.
    ZooError
        As for `load_caffe` and `export_onnx`. Nothing half-written remains.

    """
    out = Path(out)
    if out.suffix not in SUFFIXES:
        raise UsageError(
            f"{out}: suffix {out.suffix!r}, expected one of {', '.join(SUFFIXES)} for a graph."
        )
    text = Path(prototxt) if prototxt else None
    check_apart([path for path in (text, Path(caffemodel)) if path], [out])
    found, notes = _native(text, Path(caffemodel), strict=strict)
    if found is not None:
        return _write_native(found, out, size, notes)
    stored = graph_file.of_caffe(text, Path(caffemodel), strict=strict)
    graph = of_file(stored, str(text or caffemodel))
    if lacking := [note for note in graph.notes if note.endswith(FILLED)]:
        raise MismatchError(
            f"{caffemodel}: lacks the weights of {len(lacking)} layers of the net, which would "
            f"hold random values:\n{listing(lacking)}\nIs it the prototxt of these weights?"
        )
    if size is not None:
        shapes = graph.input_shapes(size)
        stored = replace(stored, shapes=shapes)
        graph = of_file(stored, str(text or caffemodel))
    if out.suffix == ".safetensors":
        graph_file.write(stored, out)
    elif out.suffix == ".onnx":
        export_onnx(graph, out, origin=stored.origin)
    else:
        inputs = {name: torch.zeros(shape) for name, shape in graph.input_shapes(None).items()}
        _write_program(graph, inputs, out, stored.origin)
    summary = f"a graph of {len(graph.steps)} layers"
    notes += stored.net.unknown + graph.notes
    return Converted(out, summary, graph.inputs, graph.outputs, notes)


def _native(
    prototxt: Path | None, caffemodel: Path, *, strict: bool
) -> tuple[Weights | None, tuple[str, ...]]:
    """Try the naming tables; a net that only looks like one of theirs gets a note."""
    try:
        archive = read_caffe(prototxt, caffemodel, strict=strict)
    except MismatchError:
        return None, ()
    if recognised(archive) is None:
        return None, ()
    try:
        native = to_native(archive)
    except MismatchError as error:
        return None, (f"not a native model: {error}",)
    title = families.of_config(native.weights.config).title
    return native.weights, (f"recognised as {title}: written as the native model", *native.notes)


def _write_native(
    found: Weights, out: Path, size: tuple[int, int] | None, notes: tuple[str, ...]
) -> Converted:
    model = build(found)
    side = found.numerics.test_size or IMAGE
    sides = size or (side, side)
    if out.suffix == ".safetensors":
        weights.write(found, out)
    elif out.suffix == ".onnx":
        export_onnx(model, out, size=sides, origin=found.origin)
    else:
        _write_program(model, torch.zeros(1, 3, *sides), out, found.origin)
    summary = families.of_config(found.config).summary(found.config)
    shape = None if out.suffix == ".safetensors" else (1, 3, *sides)
    return Converted(out, summary, {"image": shape}, ("scores",), notes)


def _write_program(
    module: nn.Module, example: Tensor | dict[str, Tensor], out: Path, origin: Origin
) -> None:
    """Write a module as torch's ExportedProgram, for inputs of the example's sizes."""
    said = json.dumps({**asdict(origin), "files": dict(origin.files)}, sort_keys=True)
    with replacing(out) as temporary, temporary.open("wb") as file:
        try:
            with torch.no_grad():
                program = torch.export.export(module.eval(), (example,))
        except (RuntimeError, SyntaxError, torch._dynamo.exc.TorchDynamoException) as error:
            reason = str(error).strip().partition("\n")[0]
            raise ZooError(f"{out}: the net cannot be exported by torch ({reason}).") from error
        torch.export.save(program, file, extra_files={"origin.json": said})

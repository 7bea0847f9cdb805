"""A native model or a graph becomes an ONNX file."""

import json
import logging
import operator
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ... import __version__
from ...converters import families
from ...converters.archive import Origin
from ...converters.files import replacing
from ...converters.graph.engine import Graph
from ...proto.errors import MismatchError, MissingDependencyError, UsageError, ZooError
from .load import Native
from .optimize import folded

# What torch's exporter writes without a version converter, and runtimes of 2022 on read.
OPSET = 18
IMAGE = 321  # Height and width of an input whose size nothing tells.
TRACED = (65, 97)  # Any sizes that differ do where height and width are symbolic.
LARGEST = 2**31 - 1  # A protobuf message, in bytes.
GROWTH = (32, 64)  # Multiples of any DeepLab's stride, so that its branches still meet.
IMAGE_AXES = {0: "batch", 2: "height", 3: "width"}


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """What is traced: a module, its inputs and outputs by name, and what the file says."""

    module: nn.Module
    inputs: Mapping[str, Tensor]
    symbolic: Sequence[Mapping[int, str]]
    outputs: Sequence[str]
    metadata: Mapping[str, str]


class Positional(nn.Module):
    """A graph with its blobs in order: ONNX has neither dicts nor a choice of blobs."""

    def __init__(self, graph: Graph, outputs: Sequence[str]) -> None:
        super().__init__()
        self.net = graph  # Not `graph`: traced modules keep their code under that name.
        self.outputs = tuple(outputs)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Map the inputs' tensors to the outputs'."""
        named = dict(zip(self.net.inputs, inputs, strict=True))
        return tuple(self.net(named, self.outputs).values())


def export_onnx(
    model: Native | Graph,
    out: str | Path,
    *,
    size: tuple[int, int] | None = None,
    opset: int | None = None,
    dynamic: bool = False,
    origin: Origin | None = None,
) -> Path:
    """Write a model as one ONNX file, checked, or write nothing.

    A native model has the input ``image`` (batch, 3, h, w), prepared as its profile says,
    and the output ``scores`` (batch, classes, h', w'); a graph's have their blobs' names.
    Batch norms of a native model are folded into its convolutions.

    Parameters
    ----------
    model
        In float32; it is not changed.
    out
        A name that ends in ``.onnx``.
    size
        Height and width of the input; the default is the profile's test size or 321, and
        what a graph's file states.
    opset
        18 (the default) or newer.
    dynamic
        Leave batch, height and width open, of each input with four axes.
    origin
        Where the weights came from, for the file to say.

    Raises
    ------
    MissingDependencyError
        onnx or onnxscript are not installed.
    UsageError
        A suffix, size or opset that cannot be, or a graph in its TRAIN phase.
    ZooError
        The model cannot be stated in ONNX; with ``dynamic``, not for every size.
    StorageError
        The disk does not let us; what was there before is untouched.

    """
    out = Path(out)
    onnx = _onnx()
    if out.suffix != ".onnx":
        raise UsageError(f"{out}: expected a name that ends in .onnx.")
    opset = OPSET if opset is None else opset
    newest = onnx.defs.onnx_opset_version()
    if not OPSET <= opset <= newest:
        raise UsageError(f"opset {opset}: expected {OPSET} to {newest}, the newest of this onnx.")
    if size is not None and (dynamic or min(size) < 1):
        problem = "and dynamic, which leaves it open, exclude each other" if dynamic else "below 1"
        raise UsageError(f"size {size[0]},{size[1]}: {problem}.")
    state = _of_graph if isinstance(model, Graph) else _of_native
    request = state(model, size, dynamic, origin)  # type: ignore[arg-type]
    with replacing(out) as temporary:  # Before the work, so that a bad folder is told at once.
        proto = _traced(request, opset, dynamic)
        _check_interface(proto, request, opset, dynamic)
        if proto.ByteSize() > LARGEST:
            raise ZooError(f"{out}: would be larger than 2 GB, which one ONNX file cannot be.")
        temporary.write_bytes(proto.SerializeToString(deterministic=True))
        try:
            onnx.checker.check_model(str(temporary), full_check=True)  # Infers the shapes too.
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise ZooError(
                f"{out}: torch's exporter made no sound model of it ({error})."
            ) from error
    return out


def _onnx() -> Any:
    try:
        import_module("onnxscript")
        import_module("onnx.checker")
        return import_module("onnx")
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"ONNX export: {error.name} is not installed. pip install 'deeplab-zoo[onnx]'"
        ) from None


def _of_native(
    model: Native, size: tuple[int, int] | None, dynamic: bool, origin: Origin | None
) -> Request:
    side = model.numerics.test_size or IMAGE
    height, width = TRACED if dynamic else size or (side, side)
    # torch takes a batch of 1 for a constant.
    image = torch.zeros(2 if dynamic else 1, 3, height, width)
    metadata = {
        "family": families.of_config(model.config).name,
        "config": json.dumps(model.config.to_json(), sort_keys=True),
        "numerics": model.numerics.name,
        "numerics_fields": json.dumps(asdict(model.numerics), sort_keys=True),
    }
    return Request(
        folded(model), {"image": image}, [IMAGE_AXES], ["scores"], metadata | _said(origin)
    )


def _of_graph(
    graph: Graph, size: tuple[int, int] | None, dynamic: bool, origin: Origin | None
) -> Request:
    if graph.training:
        raise UsageError("graph: is in its TRAIN phase, expected TEST.")
    inputs, symbolic = {}, []
    for name, shape in graph.input_shapes(size, TRACED if dynamic else None).items():
        axes: Mapping[int, str] = {}
        if len(shape) == 4:
            axes = {
                axis: one if len(graph.inputs) == 1 else f"{name}_{one}"
                for axis, one in IMAGE_AXES.items()
            }
        many = dynamic and len(shape) == 4
        inputs[name] = torch.zeros(max(shape[0], 2) if many else shape[0], *shape[1:])
        symbolic.append(axes)
    graph.sizes({name: tuple(value.shape) for name, value in inputs.items()})
    if dynamic:
        _check_open(graph, inputs)
    written = {top for step in graph.steps for top in step.layer.tops}
    # A data layer's top that no layer reads is an output to Caffe, but the input itself.
    outputs = [blob for blob in graph.outputs if blob in written]
    if not outputs or not graph.inputs.keys().isdisjoint(outputs):
        raise MismatchError(
            f"outputs {outputs}: expected some, with other names than the inputs {list(inputs)}. "
            "Give the last layer a top of its own."
        )
    module = Positional(graph, outputs)
    return Request(module.eval(), inputs, symbolic, outputs, {"family": "graph"} | _said(origin))


def _check_open(graph: Graph, inputs: Mapping[str, Tensor]) -> None:
    """Refuse a net that takes one size only; torch would leave that to whoever runs it."""
    grown = {}
    for name, value in inputs.items():
        shape = list(value.shape)
        if len(shape) == 4:
            shape[2:] = [size + more for size, more in zip(shape[2:], GROWTH, strict=True)]
        grown[name] = shape
    try:
        graph.sizes(grown)
    except MismatchError as error:
        raise MismatchError(
            f"dynamic: the net does not take other sizes: {error} Export it without dynamic."
        ) from error


def _said(origin: Origin | None) -> dict[str, str]:
    said = {"deeplab_zoo": __version__}
    if origin is not None:
        fields = {**asdict(origin), "files": dict(origin.files)}
        said["origin"] = json.dumps(fields, sort_keys=True)
    return said


def _traced(request: Request, opset: int, dynamic: bool) -> Any:
    """Return the ONNX model, as protobuf."""
    with _quiet():
        try:
            program = torch.onnx.export(
                request.module,
                tuple(request.inputs.values()),
                dynamo=True,
                verbose=False,
                opset_version=opset,
                input_names=list(request.inputs),
                output_names=list(request.outputs),
                dynamic_shapes=_dynamic_shapes(request) if dynamic else None,
                custom_translation_table={operator.floordiv: _floor_division(opset)},
            )
        except torch.onnx.OnnxExporterError as error:
            reason = str(error.__cause__ or error).strip().partition("\n")[0]
            cure = " Export it without dynamic, at one size." if dynamic else ""
            raise ZooError(f"the model cannot be stated in ONNX: {reason}.{cure}") from error
    if program is None:  # Only with ``dynamo=False``, but the signature allows it.
        raise ZooError("the model cannot be stated in ONNX: torch's exporter returned nothing.")
    proto = program.model_proto
    _anonymous(proto)
    _name_axes(proto)
    for key, value in sorted(request.metadata.items()):
        proto.metadata_props.add(key=key, value=value)
    return proto


def _dynamic_shapes(request: Request) -> tuple[Any, ...]:
    axes = tuple(dict(one) or None for one in request.symbolic)
    return (axes,) if isinstance(request.module, Positional) else axes


def _floor_division(opset: int) -> Callable[..., Any]:
    """Return integer division that rounds down, as Python's does.

    torch's own translation is ONNX's Div, which rounds towards zero. Sizes are negative on
    their way in -(-n // s), the usual form of a division that rounds up.
    """
    op = import_module("onnxscript").values.Opset("", opset)

    def floor_division(self: Any, other: Any) -> Any:
        return op.Div(op.Sub(self, op.Mod(self, other)), other)

    return floor_division


def _anonymous(proto: Any) -> None:
    """Remove what the exporter notes about its run: folders and line numbers of this machine."""
    del proto.metadata_props[:]
    del proto.graph.metadata_props[:]
    del proto.graph.value_info[:]  # Sizes on the way, which any reader can infer.
    for held in (proto.graph.node, proto.graph.input, proto.graph.output):
        for one in held:
            del one.metadata_props[:]
            one.ClearField("doc_string")
    for tensor in proto.graph.initializer:
        del tensor.metadata_props[:]
        tensor.ClearField("doc_string")


def _name_axes(proto: Any) -> None:
    """Give open axes of outputs names, in place of formulas longer than a line."""
    for value in proto.graph.output:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_param and not dim.dim_param.isidentifier():
                dim.dim_param = f"{value.name}_{IMAGE_AXES.get(axis, axis)}"


def _check_interface(proto: Any, request: Request, opset: int, dynamic: bool) -> None:
    """Refuse a file whose inputs, outputs or opset are not what was asked for."""
    found = [one.version for one in proto.opset_import if one.domain == ""]
    if found != [opset]:
        raise ZooError(f"opset {opset}: torch's exporter made {found} of it. Leave the opset out.")
    names = [[one.name for one in held] for held in (proto.graph.input, proto.graph.output)]
    if names != [list(request.inputs), list(request.outputs)]:
        raise MismatchError(
            f"inputs and outputs: found {names}, expected {list(request.inputs)} and "
            f"{list(request.outputs)}."
        )
    if not dynamic:
        return
    for value, axes in zip(proto.graph.input, request.symbolic, strict=True):
        dims = value.type.tensor_type.shape.dim
        fixed = [name for axis, name in axes.items() if not dims[axis].dim_param]
        if fixed:
            raise ZooError(
                f"input {value.name!r}: {', '.join(fixed)} cannot be left open, since the model "
                "takes one size only. Export it without dynamic."
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what the exporter says about itself and not about the model."""

    def telling(record: logging.LogRecord) -> bool:
        return "torchvision is not installed" not in record.getMessage()

    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    logger.addFilter(telling)
    try:
        with warnings.catch_warnings():
            # torch copies its own tree specifications, which deprecate the class they are of.
            warnings.filterwarnings("ignore", r".*LeafSpec.* is deprecated", FutureWarning)
            # Inputs of a graph that must have equal sizes share the name of the first.
            warnings.filterwarnings("ignore", r"# The axis name: .* will not be used", UserWarning)
            yield
    finally:
        logger.removeFilter(telling)

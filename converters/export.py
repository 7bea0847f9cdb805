"""Native weights go abroad: any layout, any framework's file."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..proto import caffemodel, checkpoint_write, kaffe, prototxt
from ..proto.errors import MismatchError, UsageError
from ..proto.records import Blob, Layer, Net
from ..proto.source import head, sniff
from . import families, hdf5, legacy, weights
from .archive import Archive, Role
from .files import check_apart, replacing
from .native import to_native
from .weights import Weights
from .write_caffe import filled

SIZE = 321  # Of the input in a prototxt that we write; Caffe reshapes to what it is given.

# TensorFlow's names of a convolution's parameters and of a normalisation's.
TF_CONVOLUTION = {"weight": "weights", "bias": "biases"}
TF_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
KAFFE_NAMES = {
    "weights": "weights",
    "biases": "biases",
    "gamma": "scale",
    "beta": "offset",
    "moving_mean": "mean",
    "moving_variance": "variance",
}


class Source(NamedTuple):
    """What is exported: native weights, and the archive where they came from one."""

    weights: Weights
    archive: Archive | None


def open_source(path: Path, numerics: str | None = None) -> Source:
    """Read native weights from ``.safetensors``, ``.pth`` or an archive (``.h5``)."""
    if sniff(head(path)) == "an HDF5 file" and hdf5.is_archive(path):
        archive = hdf5.read(path)
        found = to_native(archive).weights
        if numerics and found.numerics.name != numerics:
            raise MismatchError(
                f"{path}: was trained under {found.numerics.name!r}, asked for {numerics!r}."
            )
        return Source(found, archive)
    return Source(weights.read(path, numerics=numerics), None)


def open_weights(path: str | Path, *, numerics: str | None = None) -> Weights:
    """Read native weights; ``numerics`` is for a file that does not record its profile."""
    return open_source(Path(path), numerics).weights


def export(
    source: str | Path,
    out: str | Path,
    *,
    to: str = "pth",
    layout: str = "canonical",
    mixed_numerics: bool = False,
) -> list[Path]:
    """Write native weights for another program; return the files written.

    Parameters
    ----------
    source
        ``.safetensors``, ``.pth`` or archive of ours.
    out
        The file; for ``tf`` the checkpoint's prefix.
    to
        ``pth``, ``safetensors``, ``h5``, ``caffe`` (the prototxt comes beside it), ``tf``
        (V2), ``tf-v1``, or ``npy`` (caffe-tensorflow's).
    layout
        Whose names a ``pth`` or ``safetensors`` gets; the others have their framework's.
    mixed_numerics
        Allow a framework's file for weights of another framework's conventions, which that
        framework will run otherwise than they were trained.

    Raises
    ------
    UsageError
        An unknown target or layout, a suffix that is not the target's, or ``source`` for ``out``.
    MismatchError
        The weights' conventions are not the target's.

    """
    out = Path(out)
    if to not in TARGETS:
        raise UsageError(f"target {to!r} is unknown, expected one of {', '.join(TARGETS)}.")
    if layout not in families.LAYOUTS:
        known = ", ".join(families.LAYOUTS)
        raise UsageError(f"layout {layout!r} is unknown, expected one of {known}.")
    target = TARGETS[to]
    if not out.name:
        raise UsageError(f"{out}: is a folder, expected the name of a file to write.")
    if target.suffix and out.suffix != target.suffix:
        raise UsageError(f"{out}: expected a name that ends in {target.suffix} for {to}.")
    if layout != "canonical" and target.write is not _write_state:
        raise UsageError(f"layout {layout!r} goes with pth or safetensors, not with {to}.")
    check_apart([Path(source)], [out])
    found = open_source(Path(source))
    trained = found.weights.numerics.name
    run = target.numerics.get(families.source_of(found.weights.config) or "", "")
    if target.numerics and not run:
        family = families.of_config(found.weights.config)
        raise MismatchError(
            f"{source}: {family.summary(found.weights.config)}: there never was one for {to}, so "
            "its layers have no names there."
        )
    if target.numerics and run != trained and not mixed_numerics:
        raise MismatchError(
            f"{source}: was trained under {trained!r}, a file for {to} is run under {run!r} and "
            "would give other results. To write it all the same: --mixed-numerics."
        )
    return target.write(found, out, layout)


def variables(found: Weights) -> dict[str, NDArray[np.float32]]:
    """Return the weights under TensorFlow's names, in its axis order (H, W, in, out)."""
    family = families.of_config(found.config)
    scheme = families.source_of(found.config) or ""
    context = family.context(found.config)
    named = {}
    for name in family.parameters(found.config):
        module, _, parameter = name.rpartition(".")
        kinds = TF_NORM if _is_norm(module, found) else TF_CONVOLUTION
        layer = family.naming.from_canonical(scheme, module, context)
        variable = f"{layer}/{kinds[parameter]}"
        data = found.state[name]
        if data.ndim == 4 and layer.endswith("depthwise"):
            data = data.transpose(2, 3, 0, 1)
            variable = f"{layer}/depthwise_weights"
        elif data.ndim == 4:
            data = data.transpose(2, 3, 1, 0)
        named[variable] = np.ascontiguousarray(data)
    return named


def _is_norm(module: str, found: Weights) -> bool:
    return f"{module}.running_mean" in found.state


def _write_state(source: Source, out: Path, layout: str) -> list[Path]:
    weights.write(source.weights, out, layout=layout)
    return [out]


def _write_archive(source: Source, out: Path, _: str) -> list[Path]:
    hdf5.write(source.archive or legacy.of_weights(source.weights), out)
    return [out]


def _write_tf(source: Source, prefix: Path, _: str) -> list[Path]:
    index = prefix.with_name(f"{prefix.name}.index")
    data = prefix.with_name(f"{prefix.name}.data-00000-of-00001")
    with (  # The last to come is the index, as TensorFlow does it: without it there is nothing.
        replacing(index) as index_path,
        replacing(data) as data_path,
        data_path.open("wb") as data_file,
        index_path.open("wb") as index_file,
    ):
        checkpoint_write.write_v2(variables(source.weights), index_file, data_file)
    return [index, data]


def _write_tf_v1(source: Source, out: Path, _: str) -> list[Path]:
    with replacing(out) as temporary, temporary.open("wb") as file:
        checkpoint_write.write_v1(variables(source.weights), file)
    return [out]


def _write_npy(source: Source, out: Path, _: str) -> list[Path]:
    layers: dict[str, dict[str, NDArray[np.generic]]] = {}
    for name, data in variables(source.weights).items():
        layer, _, kind = name.rpartition("/")
        layers.setdefault(layer, {})[KAFFE_NAMES[kind]] = data
    with replacing(out) as temporary:
        temporary.write_bytes(kaffe.encode(layers))
    return [out]


def _write_caffe(source: Source, out: Path, _: str) -> list[Path]:
    archive = source.archive
    if archive is not None and archive.graph is not None:
        net = as_stored(archive, archive.graph)
    else:
        net = of_state(source.weights)
    text = out.with_suffix(".prototxt")
    with (  # Both or neither: the prototxt comes first, and the caffemodel after it.
        replacing(out) as model_path,
        replacing(text) as text_path,
        model_path.open("wb") as file,
    ):
        caffemodel.write(net, file)
        text_path.write_text(prototxt.format_net(net), encoding="utf-8")
    return [out, text]


def as_stored(archive: Archive, graph: Net) -> Net:
    """Give a graph the blobs it had in its file, to the bit (raw batch-norm sums included)."""
    blobs: dict[str, dict[int, Blob]] = {}
    divided = {tensor.layer for tensor in archive.tensors if tensor.role is Role.FACTOR}
    for tensor in archive.tensors:
        if tensor.layer in divided and tensor.role in (Role.MEAN, Role.VARIANCE):
            continue  # The sums stand for them.
        data = tensor.data.T if "transposed" in tensor.transform else tensor.data
        for place in tensor.sources:
            layer, _, index = place.removesuffix("]").rpartition("[")
            blobs.setdefault(layer, {})[int(index)] = Blob(data.shape, data)
    return replace(graph, layers=tuple(_with_blobs(layer, blobs) for layer in graph.layers))


def _with_blobs(layer: Layer, blobs: dict[str, dict[int, Blob]]) -> Layer:
    held = blobs.get(layer.name, {})
    return replace(layer, blobs=tuple(held[index] for index in sorted(held)))


def of_state(found: Weights) -> Net:
    """State the network of native weights in Caffe's terms; statistics have the factor 1."""
    family = families.of_config(found.config)
    if family.caffe is None:
        raise MismatchError(f"{family.title}: Caffe never had it, so there is no net to write.")
    net = family.caffe.deploy(found.config, SIZE, SIZE, bn_eps=found.numerics.bn_eps)
    context = family.context(found.config)
    blobs: dict[str, tuple[Blob, ...]] = {}
    one = np.ones(1, np.float32)
    for name in family.parameters(found.config):
        module, _, parameter = name.rpartition(".")
        layer = family.naming.from_canonical("caffe", module, context)
        if parameter == "running_mean":
            mean, variance = found.state[name], found.state[f"{module}.running_var"]
            blobs[layer] = _as_blobs(mean, variance, one)
        elif parameter == "weight" and _is_norm(module, found):
            gamma, beta = found.state[name], found.state[f"{module}.bias"]
            blobs[f"scale{layer.removeprefix('bn')}"] = _as_blobs(gamma, beta)
        elif parameter == "weight":
            bias = [found.state[f"{module}.bias"]] if f"{module}.bias" in found.state else []
            blobs[layer] = _as_blobs(found.state[name], *bias)
    return filled(net, blobs)


def _as_blobs(*arrays: NDArray[np.float32]) -> tuple[Blob, ...]:
    return tuple(Blob(one.shape, one) for one in arrays)


class Target(NamedTuple):
    """A format to export to.

    ``suffix`` is its files', ``numerics`` the profile under which its framework runs a file with
    layers of a scheme's names; none where a file records its own. ``write`` writes one.
    """

    suffix: str
    numerics: Mapping[str, str]
    write: Callable[[Source, Path, str], list[Path]]


TF = {"caffe": "tf-slim", "tensorflow": "tf-deeplab"}
TARGETS = {
    "pth": Target(".pth", {}, _write_state),
    "safetensors": Target(".safetensors", {}, _write_state),
    "h5": Target(".h5", {}, _write_archive),
    "caffe": Target(".caffemodel", {"caffe": "caffe-v2"}, _write_caffe),
    "tf": Target("", TF, _write_tf),
    "tf-v1": Target("", TF, _write_tf_v1),
    "npy": Target(".npy", {"caffe": "tf-slim"}, _write_npy),
}

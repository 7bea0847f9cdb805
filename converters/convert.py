"""The conversions as functions: what the ``convert`` and ``export`` commands call."""

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from ..proto import caffemodel as caffemodel_format
from ..proto import prototxt as prototxt_format
from ..proto import snapshot
from ..proto.errors import FormatError, MismatchError, UsageError, listing
from ..proto.records import Net
from ..proto.source import head as first_bytes
from ..proto.source import sniff
from . import caffe, caffe_graph, hdf5, weights
from .archive import Archive, Origin
from .files import sha256
from .native import Head, Native, is_backbone, to_native
from .numerics import CAFFE_V2
from .weights import Weights


def convert_caffe(
    prototxt: str | Path | None,
    caffemodel: str | Path,
    out: str | Path,
    *,
    keep_hdf5: str | Path | None = None,
    num_classes: int | None = None,
    reset_head: bool = False,
    seed: int = 0,
    strict: bool = True,
) -> Native:
    """Convert a Caffe DeepLab v2 to a weights file for PyTorch.

    Parameters
    ----------
    prototxt
        The network's text; None uses the graph that the weights file carries.
    caffemodel
        Weights: binary of any age (V0, V1, V2), or Caffe's HDF5 snapshot.
    out
        ``.safetensors``, ``.pth`` or ``.h5`` (the archive) by the suffix.
    keep_hdf5
        Where to keep the archive too.
    num_classes, reset_head, seed
        See `Head`.
    strict
        Refuse fields that are not known; False lists them in the result's notes.

    Raises
    ------
    ZooError
        See the children: damaged file, files that do not fit, disk trouble. Nothing
        half-written remains.

    """
    out = Path(out)
    if out.suffix not in weights.SUFFIXES:
        raise UsageError(
            f"{out}: suffix {out.suffix!r}, expected one of {', '.join(weights.SUFFIXES)}."
        )
    if out.suffix == ".h5" and reset_head:
        raise UsageError(
            f"{out}: an archive holds only what the source has; --reset-head goes with "
            ".safetensors or .pth."
        )
    archive = read_caffe(
        Path(prototxt) if prototxt else None,
        Path(caffemodel),
        reset_head=reset_head,
        strict=strict,
    )
    native = to_native(archive, Head(num_classes, reset_head, seed))
    if keep_hdf5:
        hdf5.write(archive, Path(keep_hdf5))
    if out.suffix == ".h5":
        hdf5.write(archive, out)
    else:
        weights.write(native.weights, out)
    return native


def read_caffe(
    prototxt: Path | None, caffemodel: Path, *, reset_head: bool = False, strict: bool = True
) -> Archive:
    """Read a Caffe net and its weights into an archive; see `convert_caffe`."""
    stored = _read_weights(caffemodel)
    notes: tuple[str, ...] = ()
    if prototxt is not None:
        graph = caffe_graph.select(prototxt_format.read(prototxt, strict=strict))
        notes += graph.unknown
        net, copies = caffe_graph.with_weights(
            graph, stored, reset=lambda layer: reset_head and not _keeps(layer, graph)
        )
        notes += copies
    elif not stored.has_graph:
        raise MismatchError(
            f"{caffemodel}: holds no graph (Caffe's HDF5 weights never do). Give the prototxt too."
        )
    else:
        if strict and stored.unknown:
            raise FormatError(
                f"{caffemodel}: {len(stored.unknown)} unknown fields in the graph it carries:\n"
                f"{listing(stored.unknown)}\n"
                "They may change what the network computes. Give the prototxt, or --lenient."
            )
        net = caffe_graph.select(stored)
        notes += stored.unknown
    tensors, found = caffe.tensors(net)
    files = {path.name: sha256(path) for path in (prototxt, caffemodel) if path}
    bare = replace(net, layers=tuple(replace(layer, blobs=()) for layer in net.layers))
    origin = Origin("caffe", files, f"deeplab-zoo {version('deeplab-zoo')}")
    return Archive(origin, CAFFE_V2, bare, tensors, notes + found)


def _keeps(layer: str, graph: Net) -> bool:
    """Tell whether a reset head leaves this layer alone: the backbone and its Scale layers."""
    targets = caffe.scale_targets(graph)
    return is_backbone(targets.get(layer, layer))


def _read_weights(path: Path) -> Net:
    if sniff(first_bytes(path)) == "an HDF5 file":
        return snapshot.read(path)
    return caffemodel_format.read(path)


def open_weights(path: str | Path, *, numerics: str | None = None) -> Weights:
    """Read native weights from ``.safetensors``, ``.pth`` or an archive (``.h5``)."""
    path = Path(path)
    if sniff(first_bytes(path)) == "an HDF5 file":
        return to_native(hdf5.read(path)).weights
    return weights.read(path, numerics=numerics)


def export(source: str | Path, out: str | Path, *, layout: str = "canonical") -> Weights:
    """Write native weights for another program: a ``.pth`` with another layout's names."""
    found = open_weights(source)
    weights.write(found, Path(out), layout=layout)
    return found

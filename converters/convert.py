"""The conversions as functions: what the ``convert`` commands call."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..proto import prototxt as prototxt_format
from ..proto.errors import FormatError, MismatchError, UsageError, listing
from ..proto.records import Net
from . import caffe, caffe_graph, families, hdf5, legacy, weights
from .archive import Archive, Origin, tool
from .files import check_apart, sha256
from .graph_file import read_weights
from .kinds import check_command
from .native import Head, Native, is_backbone, recognised, to_native
from .numerics import CAFFE_V2, TF_DEEPLAB, TF_SLIM

if TYPE_CHECKING:
    from . import tensorflow

MULTI_SCALE = (1.0, 0.75, 0.5)

# Whose variables they are tells the conventions. DrSleep's took Caffe's names.
NUMERICS = {"caffe": TF_SLIM, "tensorflow": TF_DEEPLAB}


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
    head = Head(num_classes, reset_head, seed)
    out = _checked_output(out, keep_hdf5, [prototxt, caffemodel], head)
    archive = read_caffe(
        Path(prototxt) if prototxt else None,
        Path(caffemodel),
        reset_head=reset_head,
        strict=strict,
    )
    return _write(archive, to_native(archive, head), out, keep_hdf5)


def convert_tensorflow(
    checkpoint: str | Path,
    out: str | Path,
    *,
    keep_hdf5: str | Path | None = None,
    variables: Sequence[str] = (),
    multi_scale: bool = False,
    num_classes: int | None = None,
    reset_head: bool = False,
    seed: int = 0,
) -> Native:
    """Convert TensorFlow's DeepLab, or DrSleep's v2, to a weights file.

    Parameters
    ----------
    checkpoint
        Any name of it: a prefix, one of its files, a folder. V1, V2, sharded, object-based.
        Or a frozen graph, ``.pb``; it tells output stride and rates too.
    out, keep_hdf5, num_classes, reset_head, seed
        As for `convert_caffe`.
    variables
        Patterns of the variables to take, where a checkpoint holds more than the network.
    multi_scale
        Make the model of ``evaluate_msc.py``: scales 1, 0.75 and 0.5, fused by the maximum.

    Raises
    ------
    ZooError
        As for `convert_caffe`.

    """
    head = Head(num_classes, reset_head, seed)
    out = _checked_output(out, keep_hdf5, [checkpoint], head)
    archive = read_tensorflow(Path(checkpoint), variables)
    if multi_scale:
        archive = replace(archive, settings={**archive.settings, "scales": MULTI_SCALE})
    return _write(archive, to_native(archive, head), out, keep_hdf5)


def convert_legacy(
    file: str | Path,
    out: str | Path,
    *,
    numerics: str | None = None,
    keep_hdf5: str | Path | None = None,
    multi_scale: bool | None = None,
    output_stride: int | None = None,
    num_classes: int | None = None,
    reset_head: bool = False,
    seed: int = 0,
) -> Native | None:
    """Convert another program's own file: ``.npy``, deepdish ``.h5``, ``.pth``; or ours.

    A file of a network that has no native model (kazuto1011's DeepLab v1, say) can be kept as
    an archive, in the normal form and under its own names; None is returned then.

    Parameters
    ----------
    file
        caffe-tensorflow's ``.npy``, jaccardSegment's ``.h5``, a ``.pth`` of isht7,
        kazuto1011 or AdvSemiSeg, a ``.pth.tar`` of jfzhang95 or rloss, our archive,
        safetensors or ``.pth``.
    numerics
        The profile it was trained under; None takes the program's own where it is known.
    multi_scale
        None does as the program did.
    output_stride
        Of a DeepLab v3 or v3+, which its weights do not show; None takes the published one. The
        rates are those that go with it.
    out, keep_hdf5, num_classes, reset_head, seed
        As for `convert_caffe`.

    Raises
    ------
    ZooError
        As for `convert_caffe`.

    """
    head = Head(num_classes, reset_head, seed)
    out = _checked_output(out, keep_hdf5, [file], head)
    archive = legacy.read(Path(file), numerics)
    if multi_scale is not None:
        scales = MULTI_SCALE if multi_scale else (1.0,)
        archive = replace(archive, settings={**archive.settings, "scales": scales})
    if output_stride is not None:
        kept = {name: values for name, values in archive.settings.items() if name != "rates"}
        archive = replace(archive, settings={**kept, "output_stride": (float(output_stride),)})
    if out.suffix == ".h5" and recognised(archive) is None:
        hdf5.write(archive, out)
        return None
    return _write(archive, to_native(archive, head), out, keep_hdf5)


def _checked_output(
    out: str | Path, keep_hdf5: str | Path | None, read: Sequence[str | Path | None], head: Head
) -> Path:
    """Refuse outputs that cannot be, before anything is read."""
    out = Path(out)
    check_apart(
        [Path(path) for path in read if path], [out, *([Path(keep_hdf5)] if keep_hdf5 else [])]
    )
    if out.suffix not in weights.SUFFIXES:
        raise UsageError(
            f"{out}: suffix {out.suffix!r}, expected one of {', '.join(weights.SUFFIXES)}."
        )
    if out.suffix == ".h5" and head.reset:
        raise UsageError(
            f"{out}: an archive holds only what the source has; --reset-head goes with "
            ".safetensors or .pth."
        )
    return out


def _write(archive: Archive, native: Native, out: Path, keep_hdf5: str | Path | None) -> Native:
    if keep_hdf5:
        hdf5.write(archive, Path(keep_hdf5))
    if out.suffix == ".h5":
        hdf5.write(archive, out)
    else:
        weights.write(native.weights, out)
    return native


def read_tensorflow(path: Path, select: Sequence[str] = ()) -> Archive:
    """Read a TensorFlow checkpoint into an archive; see `convert_tensorflow`."""
    from ..proto.checkpoint import open_checkpoint
    from ..proto.frozen_graph import is_frozen_graph
    from ..proto.source import head
    from . import tensorflow

    check_command(path, "convert tf")
    if path.is_file() and is_frozen_graph(head(path)):
        return _read_frozen(path, select)
    checkpoint = open_checkpoint(path)
    found = tensorflow.tensors(tensorflow.stored(checkpoint), select=select)
    return _of_variables(found, checkpoint.files, checkpoint.notes)


def _read_frozen(path: Path, select: Sequence[str]) -> Archive:
    """Read a frozen graph, which tells what the network dilates too."""
    from ..proto.frozen_graph import open_frozen_graph
    from . import frozen, tensorflow

    graph = frozen.read_graph(open_frozen_graph(path))
    archive = _of_variables(tensorflow.tensors(graph.variables, select=select), (path,))
    archive = replace(archive, dropped=(*archive.dropped, *graph.dropped))
    if archive.numerics is not TF_DEEPLAB:
        return archive
    archive = replace(archive, settings=frozen.settings(graph.rates))
    frozen.check(graph.rates, to_native(archive, Head(reset=True)).weights.config)
    return archive


def _of_variables(
    found: "tensorflow.Found", files: Sequence[Path], notes: Sequence[str] = ()
) -> Archive:
    known = families.of_layers(tensor.layer for tensor in found.tensors)
    return Archive(
        Origin("tensorflow", {one.name: sha256(one) for one in files}, tool()),
        NUMERICS[known[1]] if known else TF_SLIM,
        None,
        found.tensors,
        notes=(*notes, *found.notes),
        dropped=found.dropped,
    )


def read_caffe(
    prototxt: Path | None, caffemodel: Path, *, reset_head: bool = False, strict: bool = True
) -> Archive:
    """Read a Caffe net and its weights into an archive; see `convert_caffe`."""
    stored = read_weights(caffemodel)
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
    origin = Origin("caffe", files, tool())
    return Archive(origin, CAFFE_V2, bare, tensors, notes=notes + found)


def _keeps(layer: str, graph: Net) -> bool:
    """Tell whether a reset head leaves this layer alone: the backbone and its Scale layers."""
    targets = caffe.scale_targets(graph)
    return is_backbone(targets.get(layer, layer))

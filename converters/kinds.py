"""Which of the formats we read a file is, by its content."""

from enum import Enum
from pathlib import Path

from ..proto import table
from ..proto.errors import FormatError
from ..proto.frozen_graph import is_frozen_graph
from ..proto.source import head, sniff, wrong_kind


class Kind(Enum):
    """A format; the value is what to call it."""

    PROTOTXT = "Caffe prototxt"
    CAFFEMODEL = "Caffe caffemodel"
    SNAPSHOT = "Caffe HDF5 weights"
    CHECKPOINT = "TensorFlow checkpoint"
    FROZEN = "TensorFlow frozen graph"
    KAFFE = "caffe-tensorflow weights"
    DEEPDISH = "deepdish weights of jaccardSegment"
    ARCHIVE = "deeplab-zoo archive"
    SAFETENSORS = "safetensors weights"
    PTH = "PyTorch state dict"


READABLE = (
    "a prototxt, caffemodel, .caffemodel.h5, TensorFlow checkpoint or frozen graph, .npy, "
    "deepdish .h5, archive, .safetensors or .pth"
)

_BY_SIGNATURE = {
    "a NumPy array": Kind.KAFFE,
    "a safetensors file": Kind.SAFETENSORS,
    "a zip archive (PyTorch's .pth is one)": Kind.PTH,
    "a pickle": Kind.PTH,
}


def kind_of(path: Path) -> Kind:
    """Tell a file's format; what is no file may be a checkpoint's prefix or folder.

    Raises
    ------
    FormatError
        The file is of no format that is read here.

    """
    # The graph beside a checkpoint and its data tell nothing by their content.
    if path.suffix == ".meta" or ".data-" in path.name or path.is_dir() or _is_prefix(path):
        return Kind.CHECKPOINT
    signature = sniff(head(path))
    if signature in _BY_SIGNATURE:
        return _BY_SIGNATURE[signature]
    if signature == "text":
        return Kind.CHECKPOINT if path.name == "checkpoint" else Kind.PROTOTXT
    if signature == "binary":
        if is_frozen_graph(head(path)):
            return Kind.FROZEN
        return Kind.CHECKPOINT if table.is_table(path) else Kind.CAFFEMODEL
    if signature == "an HDF5 file":
        return _kind_of_hdf5(path)
    raise FormatError(wrong_kind(path, signature, READABLE))


def _is_prefix(path: Path) -> bool:
    """Tell a checkpoint's prefix, which is no file, by the files that begin with it."""
    beside = path.parent.iterdir() if path.parent.is_dir() else iter(())
    start = path.name.partition("?")[0]  # model.ckpt-?????-of-00003 names all its shards.
    return not path.is_file() and any(one.name.startswith(start) for one in beside)


def _kind_of_hdf5(path: Path) -> Kind:
    # Here, so that telling a text file does not import HDF5.
    import h5py

    from ..proto import deepdish
    from ..proto.hdf5 import opened
    from . import hdf5

    with opened(path, "an HDF5 file of weights") as file:
        if file.attrs.get("format") == hdf5.FORMAT:
            return Kind.ARCHIVE
        if deepdish.MARK in file.attrs:
            return Kind.DEEPDISH
        if isinstance(file.get("data"), h5py.Group):
            return Kind.SNAPSHOT
    raise FormatError(f"{path}: an HDF5 file of an unknown kind, expected {READABLE}.")

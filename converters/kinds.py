"""Which of the formats we read a file is, by its content, and which command converts it."""

import re
from enum import Enum
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from ..proto import table
from ..proto.caffemodel import is_caffemodel
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

COMMANDS = {
    Kind.PROTOTXT: "convert caffe",
    Kind.CAFFEMODEL: "convert caffe",
    Kind.SNAPSHOT: "convert caffe",
    Kind.CHECKPOINT: "convert tf",
    Kind.FROZEN: "convert tf",
    Kind.KAFFE: "convert legacy",
    Kind.DEEPDISH: "convert legacy",
    Kind.ARCHIVE: "convert legacy",
    Kind.SAFETENSORS: "convert legacy",
    Kind.PTH: "convert legacy",
}

_BY_SIGNATURE = {
    "a NumPy array": Kind.KAFFE,
    "a safetensors file": Kind.SAFETENSORS,
    "a pickle": Kind.PTH,
}

# What follows a checkpoint's prefix in the names of its files, and of those whose content tells
# nothing: the graph beside it, and its data.
_PART = r"(\.index|\.meta|(\.data)?-\d{5}-of-\d{5})"
_MUTE = re.compile(r".+(\.meta|\.data-(\d{5}|\?{5})-of-\d{5})", re.DOTALL)


def kind_of(path: Path) -> Kind:
    """Tell a file's format; what is no file may be a checkpoint's prefix or folder.

    Raises
    ------
    FormatError
        The file is of no format that is read here.

    """
    if kind := _told(path):
        return kind
    signature = sniff(head(path))
    if signature == "an HDF5 file":
        raise FormatError(f"{path}: an HDF5 file of an unknown kind, expected {READABLE}.")
    raise FormatError(wrong_kind(path, signature, READABLE))


def check_command(path: Path, command: str) -> None:
    """Refuse a file that another command than this one converts, and name that.

    What is of no format passes, and so do a folder, and text that is not called a prototxt: the
    command's own reader says what it expected.

    Raises
    ------
    FormatError
        The file is another command's.

    """
    kind = _told(path)
    vague = path.is_dir() or (kind is Kind.PROTOTXT and path.suffix != ".prototxt")
    if kind and not vague and COMMANDS[kind] != command:
        what = kind.value if "weights" in kind.value else f"a {kind.value}"
        raise FormatError(f"{path}: holds {what}, use `deeplab-zoo {COMMANDS[kind]}`.")


def _told(path: Path) -> Kind | None:
    """Tell a file's format, None where it is none of ours or nothing is there."""
    if _MUTE.fullmatch(path.name) or path.is_dir() or _is_prefix(path):
        return Kind.CHECKPOINT
    if not path.is_file():
        return None
    start = head(path)
    match sniff(start):
        case "text":
            return Kind.CHECKPOINT if path.name == "checkpoint" else Kind.PROTOTXT
        case "an HDF5 file":
            return _kind_of_hdf5(path)
        case "a zip archive (PyTorch's .pth is one)":
            return Kind.PTH if _is_pth(path, start) else None
        case "binary" if is_frozen_graph(start):
            return Kind.FROZEN
        case "binary" if table.is_table(path):
            return Kind.CHECKPOINT
        case "binary" if is_caffemodel(start):
            return Kind.CAFFEMODEL
        case signature:
            return _BY_SIGNATURE.get(signature)


def _is_prefix(path: Path) -> bool:
    """Tell a checkpoint's prefix, which is no file, by the checkpoint's files."""
    beside = path.parent.iterdir() if path.parent.is_dir() else iter(())
    prefix = re.escape(path.name.partition("-?")[0])  # model.ckpt-?????-of-00003 names all shards.
    return not path.is_file() and any(re.fullmatch(prefix + _PART, one.name) for one in beside)


def _is_pth(path: Path, start: bytes) -> bool:
    """Tell PyTorch's zip from any other, also where its end is lost."""
    try:
        with ZipFile(path) as file:
            return any(name.endswith("/data.pkl") for name in file.namelist())
    except (BadZipFile, NotImplementedError, ValueError):
        return b"/data.pkl" in start


def _kind_of_hdf5(path: Path) -> Kind | None:
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
    return None

"""An archive on disk: HDF5, format version 1, specified in ``docs/archive-format.md``.

Equal archives give equal files, byte for byte: no times are stored, and everything is
written in sorted order.
"""

from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import h5py
import numpy as np

from ..proto import prototxt
from ..proto.errors import FormatError
from ..proto.hdf5 import child, floats, opened
from ..proto.records import Net
from .archive import Archive, Origin, Role, Tensor, contiguous
from .files import replacing
from .numerics import Numerics, profile

FORMAT = "deeplab-zoo archive"
VERSION = 1
TEXT = h5py.string_dtype()
TEXT_ON_DISK = h5py.h5t.py_create(TEXT, logical=True)
OVERHEAD = 800  # Bytes that HDF5 adds for a dataset with three attributes, about.


def write(archive: Archive, path: Path) -> None:
    """Write an archive; raise `StorageError` where the disk does not let us."""
    size = sum(tensor.data.nbytes + OVERHEAD for tensor in archive.tensors)
    # HDF5's earliest file version: later ones stamp every group with the time.
    with replacing(path, size) as temporary, h5py.File(temporary, "w", libver="earliest") as file:
        file.attrs["format"] = FORMAT
        file.attrs["version"] = np.int64(VERSION)
        file.attrs["tool"] = archive.origin.tool
        file.attrs["framework"] = archive.origin.framework
        origin = file.create_group("origin")
        for name, digest in sorted(archive.origin.files.items()):
            origin.attrs[quote(name, safe=" ")] = digest
        if archive.numerics is not None:
            numerics = file.create_group("numerics")
            for name, value in sorted(asdict(archive.numerics).items()):
                numerics.attrs[name] = value
        for name, values in sorted(archive.settings.items()):
            stored = values if isinstance(values, str) else np.array(values, "<f8")
            file.require_group("settings").attrs[name] = stored
        if archive.graph is not None:
            text = prototxt.format_net(archive.graph).encode()
            file.create_dataset("graph", data=np.frombuffer(text, np.uint8))
        tensors = file.create_group("tensors")
        by_layer = sorted(archive.tensors, key=lambda one: one.layer)
        for layer, members in groupby(by_layer, key=lambda one: one.layer):
            group = tensors.create_group(quote(layer, safe=" "))
            for tensor in sorted(members, key=lambda one: one.role.value):
                _write_tensor(group, tensor)


def _write_tensor(group: h5py.Group, tensor: Tensor) -> None:
    # Every value is written, so HDF5 need not fill the space before.
    dataset = group.create_dataset(
        tensor.role.value, data=contiguous(tensor.data), fill_time="never"
    )
    _set_text(dataset, "source", list(tensor.sources))
    _set_text(dataset, "source_dtype", tensor.source_dtype)
    _set_text(dataset, "transform", tensor.transform)


def _set_text(dataset: h5py.Dataset, name: str, text: str | list[str]) -> None:
    """Set a text attribute; what ``dataset.attrs`` does, in a third of the time."""
    value = np.array(text, TEXT)
    space = h5py.h5s.create_simple(value.shape) if value.shape else h5py.h5s.create(h5py.h5s.SCALAR)
    h5py.h5a.create(dataset.id, name.encode(), TEXT_ON_DISK, space).write(value)


def read(path: Path) -> Archive:
    """Read an archive of any version so far.

    Raises
    ------
    FormatError
        The file is not an archive, is damaged, or comes from a newer deeplab-zoo.

    """
    with opened(path, "a deeplab-zoo archive (HDF5)") as file:
        if file.attrs.get("format") != FORMAT:
            raise FormatError(
                f"{path}: an HDF5 file of another kind, expected a deeplab-zoo archive."
            )
        version = int(_attribute(file, "version"))
        if version not in READERS:
            raise FormatError(
                f"{path}: archive version {version}, expected at most {VERSION}. "
                "It is from a newer deeplab-zoo: upgrade to read it."
            )
        archive: Archive = READERS[version](file)
        return archive


def is_archive(path: Path) -> bool:
    """Tell an archive from other HDF5 files."""
    with opened(path, "an HDF5 file") as file:
        return bool(file.attrs.get("format") == FORMAT)


def _read_1(file: h5py.File) -> Archive:
    origin = child(file, "origin", h5py.Group)
    tensors = child(file, "tensors", h5py.Group)
    return Archive(
        Origin(
            str(_attribute(file, "framework")),
            {unquote(name): str(digest) for name, digest in origin.attrs.items()},
            str(_attribute(file, "tool")),
        ),
        _numerics(child(file, "numerics", h5py.Group)) if "numerics" in file else None,
        _graph(file) if "graph" in file else None,
        tuple(
            _read_tensor(child(tensors, layer, h5py.Group), role)
            for layer in tensors
            for role in child(tensors, layer, h5py.Group)
        ),
        _settings(file) if "settings" in file else {},
    )


def _graph(file: h5py.File) -> Net:
    dataset = child(file, "graph", h5py.Dataset)
    place = f"{file.filename}: /graph"
    stored = dataset.id.get_storage_size()
    if dataset.dtype != np.uint8 or dataset.ndim != 1 or dataset.nbytes > stored:
        raise FormatError(f"{place}: {dataset.dtype} {dataset.shape}, expected UTF-8 bytes.")
    return prototxt.parse_net(bytes(dataset[()]).decode(), place)


def _settings(file: h5py.File) -> dict[str, tuple[float, ...] | str]:
    attributes = child(file, "settings", h5py.Group).attrs
    return {
        name: value if isinstance(value, str) else tuple(np.ravel(value).tolist())
        for name, value in attributes.items()
    }


def _numerics(group: h5py.Group) -> Numerics:
    known = profile(str(_attribute(group, "name")))
    for name, value in asdict(known).items():
        if name == "std" and name not in group.attrs:
            continue  # Archives older than it divide by 1.
        stored = _attribute(group, name)
        if not np.array_equal(stored, value):  # Other files keep the profile's name only.
            raise FormatError(
                f"{group.file.filename}: {group.name}: {name} is {stored}, expected {value} as in "
                f"the profile {known.name!r}."
            )
    return known


def _read_tensor(layer: h5py.Group, role: str) -> Tensor:
    where = f"{layer.file.filename}: {layer.name}/{role}"
    if role not in [known.value for known in Role]:
        raise FormatError(f"{where}: unknown role, expected one of {[r.value for r in Role]}.")
    data = floats(layer, role)
    if data.dtype != np.float32:
        raise FormatError(f"{where}: {data.dtype}, expected float32.")
    attrs = layer[role]
    return Tensor(
        unquote(layer.name.rpartition("/")[2]),
        Role(role),
        data,
        tuple(map(str, _attribute(attrs, "source"))),
        str(_attribute(attrs, "source_dtype")),
        str(_attribute(attrs, "transform")),
    )


def _attribute(item: Any, name: str) -> Any:
    if name not in item.attrs:
        raise FormatError(f"{item.file.filename}: {item.name}: attribute {name!r} is missing.")
    return item.attrs[name]


READERS = {1: _read_1}

"""Caffe's HDF5 weights: a ``.caffemodel.h5`` becomes a `Net` without connections.

The file holds ``/data/<layer>/<index>``. A layer that shares another's parameters is an
empty group; types and connections are not stored, so a prototxt must come with it.
"""

from pathlib import Path

import h5py

from .caffe_pb2 import LayerParameter
from .errors import FormatError
from .hdf5 import child, floats, opened
from .records import Layer, Net, shaped


def read(path: Path) -> Net:
    """Read every layer's blobs; names only, no types.

    Raises
    ------
    FormatError
        The file is damaged or has another layout; the dataset is named.

    """
    with opened(path, "Caffe's HDF5 weights (.caffemodel.h5)") as file:
        data = child(file, "data", h5py.Group)
        layers = tuple(_layer(name, child(data, name, h5py.Group)) for name in data)
    if not layers:
        raise FormatError(f"{path}: holds no layer, expected Caffe's HDF5 weights.")
    return Net("", layers, has_graph=False)


def _layer(name: str, group: h5py.Group) -> Layer:
    blobs = []
    for index in range(len(group)):
        data = floats(group, str(index))
        blobs.append(shaped(data.reshape(-1), data.shape, f"{group.file.filename}: {group.name}"))
    return Layer(name, "", (), (), LayerParameter(name=name), tuple(blobs))

"""Caffe itself as the reference, where its Python module is installed."""

from types import ModuleType

import numpy as np

from ...converters.graph.inputs import SOURCES
from ...proto.errors import MismatchError, MissingDependencyError
from .engine import Arrays, Engine
from .original import Original


def module() -> ModuleType:
    """Import pycaffe; raise `MissingDependencyError` where it does not work."""
    try:
        import caffe  # type: ignore[import-not-found]

        caffe.set_mode_cpu()  # Any folder of this name can be imported, but has not that.
    except (ImportError, OSError, AttributeError) as error:
        raise MissingDependencyError(
            f"pycaffe does not work here ({error}). Build Caffe (the DeepLab fork has Interp) "
            "and put its python folder on PYTHONPATH."
        ) from None
    found: ModuleType = caffe
    return found


def engine(original: Original) -> Engine:
    """Hand a prototxt and caffemodel to Caffe, on the CPU.

    Raises
    ------
    MissingDependencyError
        ``import caffe`` does not work.
    MismatchError
        The source is no prototxt with a caffemodel, or reads its data by itself.

    """
    caffe = module()
    if len(original.files) != 2:
        raise MismatchError("pycaffe needs a prototxt and a caffemodel.")
    if data := [one for one in original.net.layers if one.type in SOURCES - {"Input"}]:
        raise MismatchError(
            f"{data[0].place}: {data[0].type}: pycaffe would read its own data, expected Input."
        )
    text, binary = map(str, original.files)
    net = caffe.Net(text, binary, caffe.TEST)

    def run(inputs: Arrays) -> Arrays:
        for name, value in inputs.items():
            net.blobs[name].reshape(*value.shape)
        net.reshape()
        for name, value in inputs.items():
            net.blobs[name].data[...] = value
        net.forward()
        return {
            name: np.array(blob.data, np.float32)
            for name, blob in net.blobs.items()
            if "_split_" not in name and name not in inputs
        }

    return Engine("Caffe", str(getattr(caffe, "__version__", "")), run)

"""OpenCV's Caffe engine as an independent reference.

OpenCV 4 reads prototxt and caffemodel with its own parsers and runs them with its own
kernels, so agreement with it says something. OpenCV 5 dropped the importer. The prototxt is
rewritten before it is handed over, because OpenCV differs in two ways that are not errors of
ours: its blobs keep each layer's own output, so in-place tops get names of their own, and it
does not resolve an Interp given by factors, so those get their size.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ...converters.caffe_sizes import Size, output_size
from ...proto import prototxt
from ...proto.caffe_pb2 import InterpParameter, LayerParameter
from ...proto.errors import MismatchError, MissingDependencyError, listing
from ...proto.records import Layer, Net

# Layers whose result in OpenCV was found to be Caffe's.
ALLOWED = frozenset({
    "Input", "Convolution", "BatchNorm", "Scale", "ReLU", "Pooling", "Eltwise", "Interp", "Dropout",
})  # fmt: skip


def version() -> str:
    """Return OpenCV's version; raise `MissingDependencyError` where it cannot be used."""
    try:
        import cv2

        cv2.dnn.readNetFromCaffe  # noqa: B018  OpenCV 5 has no such function.
    except (ImportError, AttributeError):
        raise MissingDependencyError(
            "OpenCV 4 with its Caffe engine is not installed. Install it: "
            "pip install 'deeplab-zoo[parity]'."
        ) from None
    return str(cv2.__version__)


def run(
    net: Net, caffemodel: NDArray[np.uint8], image: NDArray[np.float32]
) -> dict[str, NDArray[np.float32]]:
    """Return every computed blob for an input (1, 3, h, w): final values by blob name.

    Parameters
    ----------
    net
        The TEST-phase graph, with one input called ``data``.
    caffemodel
        The weights file's own bytes, which OpenCV parses itself.
    image
        The prepared input.

    Raises
    ------
    MismatchError
        The net has layers that OpenCV does not compute as Caffe does; all are listed.

    """
    version()
    import cv2

    odd = [f"{one.place}: {one.type}" for one in net.layers if one.type not in ALLOWED]
    if odd:
        raise MismatchError(f"OpenCV is no reference for these layers:\n{listing(odd)}")
    text, names = rewritten(net, (image.shape[2], image.shape[3]))
    engine = cv2.dnn.readNetFromCaffe(np.frombuffer(text.encode(), np.uint8), caffemodel)
    engine.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    engine.enableFusion(False)
    engine.enableWinograd(False)  # Its rounding is three times as large.
    engine.setInput(image, "data")
    blobs = {blob: layer for blob, layer in names.items() if blob != "data"}
    values = engine.forward(list(blobs.values()))
    return dict(zip(blobs, map(np.asarray, values), strict=True))


def rewritten(net: Net, size: Size) -> tuple[str, dict[str, str]]:
    """Return the prototxt for OpenCV, and for each blob the layer that writes it last."""
    current: dict[str, str] = {}  # blob -> its present name
    sizes: dict[str, Size] = {}
    last: dict[str, str] = {}
    layers: list[Layer] = []
    for layer in net.layers:
        params = LayerParameter()
        params.CopyFrom(layer.params)
        params.bottom[:] = [current[bottom] for bottom in layer.bottoms]
        if layer.type == "Input":
            params.input_param.Clear()
            params.input_param.shape.add().dim.extend([1, 3, *size])
            sizes["data"] = size
        else:
            sizes[layer.tops[0]] = output_size(layer, sizes[layer.bottoms[0]])
        top = layer.tops[0]
        if layer.type == "Interp":
            height, width = sizes[top]
            params.interp_param.CopyFrom(InterpParameter(height=height, width=width))
        current[top] = f"{top}__{layer.name}" if top in current else top
        params.top[:] = [current[top]]
        last[top] = layer.name
        layers.append(Layer(layer.name, layer.type, (), (), params))
    return prototxt.format_net(replace(net, layers=tuple(layers))), last

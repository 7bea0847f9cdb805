"""OpenCV's Caffe engine as an independent reference.

OpenCV 4 reads prototxt and caffemodel with its own parsers and runs them with its own
kernels, so agreement with it says something. OpenCV 5 dropped the importer. The prototxt is
rewritten before it is handed over, because OpenCV differs in ways that are not errors of
ours: its blobs keep each layer's own output, and it loses a convolution whose top is not called
as itself, so tops have their layers' names; it does not resolve an Interp given by factors, so
those get their size; it takes an LRN's missing alpha for 1e-4, Caffe for 1, so that is spelled
out; and it reads nothing of a Pooling that says its rounding, so that is left out.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ...converters.caffe_graph import SOURCES
from ...converters.caffe_sizes import spatial
from ...converters.graph.registry import Shape
from ...converters.kinds import Kind, kind_of
from ...proto import prototxt
from ...proto.caffe_pb2 import (
    InterpParameter,
    LayerParameter,
    LRNParameter,
    PoolingParameter,
)
from ...proto.errors import MismatchError, MissingDependencyError, listing
from ...proto.records import Layer, Net
from .engine import Arrays, Engine
from .original import Original

Reason = str | None


def _concat(layer: Layer) -> Reason:
    old = layer.params.concat_param.HasField("concat_dim")
    return "ignores a Concat's concat_dim, the old name of its axis" if old else None


def _deconvolution(layer: Layer) -> Reason:
    dilated = any(rate != 1 for rate in layer.params.convolution_param.dilation)
    return "ignores a Deconvolution's dilation" if dilated else None


def _interp(layer: Layer) -> Reason:
    settings = layer.params.interp_param
    return "ignores an Interp's pads" if settings.pad_beg or settings.pad_end else None


def _lrn(layer: Layer) -> Reason:
    across = layer.params.lrn_param.norm_region == LRNParameter.ACROSS_CHANNELS
    return "takes LRN's k for 1" if across and layer.params.lrn_param.k != 1 else None


def _pooling(layer: Layer) -> Reason:
    settings = layer.params.pooling_param
    if settings.round_mode != PoolingParameter.CEIL:
        return "rounds a pool's size up"
    kernel = spatial(settings, "kernel_size", 0, "kernel")
    stride = spatial(settings, "stride", 1, "stride")
    if settings.global_pooling or all(s <= k for k, s in zip(kernel, stride, strict=True)):
        return None
    return "clips away windows outside the input, which a stride above the kernel makes"


def _scale(layer: Layer) -> Reason:
    return "drops the bias of a Scale of two bottoms" if len(layer.bottoms) > 1 else None


def _same(_: Layer) -> Reason:
    return None


# Layers whose result in OpenCV was found to be Caffe's, and the settings where it is not.
ALLOWED: dict[str, Callable[[Layer], Reason]] = {
    "AbsVal": _same,
    "BatchNorm": _same,
    "Concat": _concat,
    "Convolution": _same,
    "Deconvolution": _deconvolution,
    "Dropout": _same,
    "ELU": _same,
    "Eltwise": _same,
    "Flatten": _same,
    "InnerProduct": _same,
    "Interp": _interp,
    "LRN": _lrn,
    "PReLU": _same,
    "Pooling": _pooling,
    "Power": _same,
    "ReLU": _same,
    "Scale": _scale,
    "Sigmoid": _same,
    "Softmax": _same,
    "TanH": _same,
}


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


def engine(original: Original) -> Engine:
    """Hand a caffemodel and its prototxt to OpenCV.

    Raises
    ------
    MissingDependencyError
        OpenCV 4 is not installed.
    MismatchError
        The source is no binary caffemodel, or has layers that OpenCV does not compute as
        Caffe does; all are listed.

    """
    release = version()
    if original.kind is not Kind.CAFFEMODEL or kind_of(original.files[-1]) is not Kind.CAFFEMODEL:
        raise MismatchError("OpenCV reads a prototxt and a binary caffemodel only.")
    _check_layers(original.net)
    caffemodel = np.fromfile(original.files[-1], np.uint8)

    def run(inputs: Arrays) -> Arrays:
        import cv2

        shapes = original.graph.sizes({name: value.shape for name, value in inputs.items()})
        try:
            return forward(original.net, caffemodel, inputs, shapes)
        except cv2.error as error:
            problem = " ".join(error.err.split())
            raise MismatchError(
                f"{original.files[-1]}: OpenCV cannot run the network ({problem}). "
                "--engine float64 compares with exact arithmetic of our own."
            ) from None

    return Engine("OpenCV", release, run)


def _check_layers(net: Net) -> None:
    odd = []
    names = Counter(name for layer in net.layers for name in {layer.name, *_given(layer)})
    for layer in net.layers:
        if layer.type in SOURCES:
            continue
        reason: Reason = "has no such layer, or was not found to compute it as Caffe"
        if layer.type in ALLOWED:
            reason = ALLOWED[layer.type](layer)
        if names[layer.name] > 1:
            reason = "tells layers by their names, and another or an input has this one"
        if reason:
            odd.append(f"{layer.place}: {layer.type}: OpenCV {reason}")
    if odd:
        raise MismatchError(f"OpenCV is no reference for these layers:\n{listing(odd)}")


def forward(
    net: Net, caffemodel: NDArray[np.uint8], inputs: Arrays, shapes: Mapping[str, Shape]
) -> Arrays:
    """Return every computed blob; ``shapes`` are the blobs' by Caffe's rules."""
    import cv2

    text, names = rewritten(net, shapes)
    found = cv2.dnn.readNetFromCaffe(np.frombuffer(text.encode(), np.uint8), caffemodel)
    found.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    found.enableFusion(False)
    found.enableWinograd(False)  # Its rounding is three times as large.
    for name, value in inputs.items():
        found.setInput(value, name)
    values = found.forward(list(names.values()))
    return dict(zip(names, map(np.asarray, values), strict=True))


def rewritten(net: Net, shapes: Mapping[str, Shape]) -> tuple[str, dict[str, str]]:
    """Return the prototxt for OpenCV, and for each blob the layer that writes it last."""
    inputs = {one: one for layer in net.layers for one in _given(layer)}
    last = dict(inputs)
    layers: list[Layer] = []
    for layer in net.layers:
        params = LayerParameter()
        params.CopyFrom(layer.params)
        params.ClearField("include")
        params.ClearField("exclude")
        top = layer.tops[0]
        if layer.type in SOURCES:
            params = LayerParameter(name=layer.name, type="Input", top=layer.tops)
            for one in layer.tops:
                params.input_param.shape.add().dim.extend(shapes[one])
            layers.append(Layer(layer.name, "Input", (), layer.tops, params))
            continue
        params.bottom[:] = [last[bottom] for bottom in layer.bottoms]
        if layer.type == "Interp":
            height, width = shapes[top][-2:]
            params.interp_param.CopyFrom(InterpParameter(height=height, width=width))
        if layer.type == "LRN":
            params.lrn_param.alpha = layer.params.lrn_param.alpha
        if layer.type == "Pooling":
            params.pooling_param.ClearField("round_mode")
        last[top] = layer.name
        params.top[:] = [layer.name]
        layers.append(Layer(layer.name, layer.type, (), (), params))
    computed = {blob: name for blob, name in last.items() if name not in inputs}
    return prototxt.format_net(replace(net, layers=tuple(layers))), computed


def _given(layer: Layer) -> tuple[str, ...]:
    """Return the input blobs that a layer brings."""
    return layer.tops if layer.type in SOURCES else ()

"""Bring Caffe's older descriptions to today's: V0 and V1 layers, ``input:`` fields.

Enters: a NetParameter message of any age. Leaves: a `Net`. Blobs that a text file spells
out come along; those of a binary file are attached by `caffemodel`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from .caffe_pb2 import (
    BlobProto,
    LayerParameter,
    NetParameter,
    ParamSpec,
    V0LayerParameter,
    V1LayerParameter,
)
from .errors import FormatError
from .records import Blob, Layer, Net, shaped

# V1's enum names that are not today's type in capitals.
_V1_TYPE = {
    "ABSVAL": "AbsVal", "ACCURACY": "Accuracy", "ARGMAX": "ArgMax", "BNLL": "BNLL",
    "CONCAT": "Concat", "CONTRASTIVE_LOSS": "ContrastiveLoss", "CONVOLUTION": "Convolution",
    "DATA": "Data", "DECONVOLUTION": "Deconvolution", "DROPOUT": "Dropout",
    "DUMMY_DATA": "DummyData", "ELTWISE": "Eltwise", "EUCLIDEAN_LOSS": "EuclideanLoss",
    "EXP": "Exp", "FLATTEN": "Flatten", "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output", "HINGE_LOSS": "HingeLoss", "IM2COL": "Im2col",
    "IMAGE_DATA": "ImageData", "INFOGAIN_LOSS": "InfogainLoss",
    "INNER_PRODUCT": "InnerProduct", "LRN": "LRN", "MEMORY_DATA": "MemoryData",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss", "MVN": "MVN", "NONE": "",
    "POOLING": "Pooling", "POWER": "Power", "RELU": "ReLU", "SIGMOID": "Sigmoid",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss", "SILENCE": "Silence",
    "SLICE": "Slice", "SOFTMAX": "Softmax", "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "SPLIT": "Split", "TANH": "TanH", "THRESHOLD": "Threshold", "WINDOW_DATA": "WindowData",
    # DeepLab v1.
    "DENSE_CRF": "DenseCRF", "IMAGE_SEG_DATA": "ImageSegData", "INTERP": "Interp",
    "MAT_WRITE": "MatWrite", "SEG_ACCURACY": "SegAccuracy",
}  # fmt: skip

# V0's type names, and the parameter message that V0's flat fields of such a layer go to.
_V0_TYPE = {
    "accuracy": ("Accuracy", ""), "bnll": ("BNLL", ""), "concat": ("Concat", "concat_param"),
    "conv": ("Convolution", "convolution_param"), "data": ("Data", "data_param"),
    "dropout": ("Dropout", "dropout_param"), "euclidean_loss": ("EuclideanLoss", ""),
    "flatten": ("Flatten", ""), "hdf5_data": ("HDF5Data", "hdf5_data_param"),
    "hdf5_output": ("HDF5Output", "hdf5_output_param"), "im2col": ("Im2col", "convolution_param"),
    "images": ("ImageData", "image_data_param"),
    "infogain_loss": ("InfogainLoss", "infogain_loss_param"),
    "innerproduct": ("InnerProduct", "inner_product_param"), "lrn": ("LRN", "lrn_param"),
    "multinomial_logistic_loss": ("MultinomialLogisticLoss", ""),
    "pool": ("Pooling", "pooling_param"), "relu": ("ReLU", ""), "sigmoid": ("Sigmoid", ""),
    "softmax": ("Softmax", ""), "softmax_loss": ("SoftmaxWithLoss", ""), "split": ("Split", ""),
    "tanh": ("TanH", ""), "window_data": ("WindowData", "window_data_param"),
}  # fmt: skip

# V0's flat field -> today's field inside the layer's parameter message.
_V0_FIELD = {
    "num_output": "num_output", "biasterm": "bias_term", "weight_filler": "weight_filler",
    "bias_filler": "bias_filler", "pad": "pad", "kernelsize": "kernel_size",
    "group": "group", "stride": "stride", "pool": "pool", "dropout_ratio": "dropout_ratio",
    "local_size": "local_size", "alpha": "alpha", "beta": "beta", "k": "k",
    "source": "source", "batchsize": "batch_size", "rand_skip": "rand_skip",
    "det_fg_threshold": "fg_threshold", "det_bg_threshold": "bg_threshold",
    "det_fg_fraction": "fg_fraction", "det_context_pad": "context_pad",
    "det_crop_mode": "crop_mode", "new_height": "new_height", "new_width": "new_width",
    "shuffle_images": "shuffle", "concat_dim": "concat_dim",
}  # fmt: skip
_V0_TRANSFORM = {
    "scale": "scale", "meanfile": "mean_file", "cropsize": "crop_size", "mirror": "mirror",
}  # fmt: skip
_V0_ELSEWHERE = {"name", "type", "blobs", "blobs_lr", "weight_decay", "hdf5_output_param"}

# ``strict_dim`` told DeepLab v1 how strictly to check the shapes of weights that it loads.
_V1_ELSEWHERE = {
    "layer", "type", "blobs", "blobs_lr", "weight_decay", "param", "blob_share_mode", "strict_dim",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Raw:
    """A layer as a file has it: its message without blobs, its blobs, its line."""

    message: LayerParameter | V1LayerParameter
    blobs: tuple[Blob, ...]
    line: int | None = None


def net(
    message: NetParameter,
    lines: Mapping[str, Sequence[int]],
    unknown: tuple[str, ...],
    place: str,
) -> Net:
    """Upgrade a whole message, blobs included."""
    raws = []
    for field in ("layer", "layers"):
        items: Sequence[LayerParameter | V1LayerParameter] = getattr(message, field)
        for index, item in enumerate(items):
            line = lines[field][index] if field in lines else None
            held = item.blobs
            if isinstance(item, V1LayerParameter) and _is_v0(item):
                held = item.layer.blobs
            blobs = tuple(_blob(blob, f"{place}: layer {index + 1}") for blob in held)
            raws.append(Raw(item, blobs, line))
    return assemble(message, raws, unknown, place)


def assemble(
    header: NetParameter, raws: Sequence[Raw], unknown: tuple[str, ...], place: str
) -> Net:
    """Make a `Net` of a header without layers and the layers of any age."""
    if len({type(raw.message) for raw in raws}) > 1:
        raise FormatError(f"{place}: both `layer` and `layers`, expected one of them.")
    layers = _inputs(header, place)
    pads: dict[str, V0LayerParameter] = {}
    for raw in raws:
        item = raw.message
        if isinstance(item, V1LayerParameter):
            if _is_v0(item) and item.layer.type == "padding":
                # V0 padded in a layer of its own; today the next layer does it.
                layers.append(_padding(item, pads, raw.line, place))
                pads[item.top[0]] = item.layer
                continue
            item = _from_v1(item, pads, place)
        layers.append(_layer(item, raw))
    removed = {layer.tops[0]: layer.bottoms[0] for layer in layers if layer.type == "padding"}
    kept = [_rewired(layer, removed) for layer in layers if layer.type != "padding"]
    return Net(header.name, tuple(kept), unknown, stages=tuple(header.state.stage))


def _inputs(header: NetParameter, place: str) -> list[Layer]:
    """Turn ``input:`` with ``input_dim:`` or ``input_shape {}`` into Input layers."""
    dims, shapes, count = list(header.input_dim), list(header.input_shape), len(header.input)
    if dims and shapes:
        raise FormatError(f"{place}: both input_dim and input_shape, expected one of them.")
    if dims and len(dims) != 4 * count:
        raise FormatError(
            f"{place}: {len(dims)} input_dim for {count} inputs, expected 4 for each."
        )
    if shapes and len(shapes) != count:
        raise FormatError(f"{place}: {len(shapes)} input_shape for {count} inputs.")
    layers = []
    for index, name in enumerate(header.input):
        params = LayerParameter(name=name, type="Input", top=[name])
        sizes = shapes[index].dim if shapes else dims[4 * index : 4 * index + 4]
        if sizes:
            params.input_param.shape.add().dim.extend(sizes)
        layers.append(_layer(params, Raw(params, ())))
    return layers


def _layer(params: LayerParameter, raw: Raw) -> Layer:
    bare = LayerParameter()
    bare.CopyFrom(params)
    bare.ClearField("blobs")
    if bare.HasField("convolution_param"):
        _fill_dilation(bare)
    return Layer(
        params.name,
        params.type,
        tuple(params.bottom),
        tuple(params.top),
        bare,
        raw.blobs,
        raw.line,
    )


def _fill_dilation(layer: LayerParameter) -> None:
    """Say ``dilation`` for DeepLab v1's ``hole``."""
    settings = layer.convolution_param
    given = [name for name in ("hole", "hole_h", "hole_w") if settings.HasField(name)]
    if not given:
        return
    if settings.dilation or given not in (["hole"], ["hole_h", "hole_w"]):
        raise FormatError(
            f"layer {layer.name!r}: {', '.join(given)}"
            f"{' and dilation' if settings.dilation else ''}, expected hole, or hole_h and hole_w."
        )
    settings.dilation[:] = [getattr(settings, name) for name in given]
    for name in given:
        settings.ClearField(name)


def _from_v1(
    item: V1LayerParameter, pads: Mapping[str, V0LayerParameter], place: str
) -> LayerParameter:
    layer = LayerParameter()
    if _is_v0(item):
        _fill_from_v0(layer, item, pads, place)
        specs: V0LayerParameter | V1LayerParameter = item.layer
    else:
        layer.name = item.name
        layer.type = _V1_TYPE[V1LayerParameter.LayerType.Name(item.type)]
        specs = item
    known = LayerParameter.DESCRIPTOR.fields_by_name
    for field, value in item.ListFields():
        if field.name in _V1_ELSEWHERE or field.name == "name":
            continue
        if field.name not in known:
            raise FormatError(f"{place}: layer {layer.name!r}: {field.name} has no place today.")
        if isinstance(value, (str, int, float)):
            setattr(layer, field.name, value)
        elif hasattr(value, "CopyFrom"):
            getattr(layer, field.name).CopyFrom(value)
        else:
            getattr(layer, field.name).MergeFrom(value)
    _fill_specs(layer, specs, item)
    return layer


def _fill_specs(
    layer: LayerParameter, rates: V0LayerParameter | V1LayerParameter, item: V1LayerParameter
) -> None:
    """Gather the parallel lists of V1 into one ``param {}`` per blob."""
    count = max(
        len(rates.blobs_lr), len(rates.weight_decay), len(item.param), len(item.blob_share_mode)
    )
    for index in range(count):
        spec = layer.param.add()
        if index < len(item.param) and item.param[index]:
            spec.name = item.param[index]
        if index < len(item.blob_share_mode):
            # Both enums number STRICT and PERMISSIVE alike.
            mode = cast("ParamSpec.DimCheckMode", item.blob_share_mode[index])
            spec.share_mode = mode
        if index < len(rates.blobs_lr):
            spec.lr_mult = rates.blobs_lr[index]
        if index < len(rates.weight_decay):
            spec.decay_mult = rates.weight_decay[index]


def _fill_from_v0(
    layer: LayerParameter,
    item: V1LayerParameter,
    pads: Mapping[str, V0LayerParameter],
    place: str,
) -> None:
    v0 = item.layer
    if v0.type not in _V0_TYPE:
        raise FormatError(
            f"{place}: layer {v0.name!r}: type {v0.type!r}, expected one of the V0 format's: "
            f"{', '.join(_V0_TYPE)}."
        )
    layer.name = v0.name
    layer.type, parameter = _V0_TYPE[v0.type]
    for field, value in v0.ListFields():
        if field.name in _V0_ELSEWHERE:
            continue
        target = getattr(layer, parameter) if parameter else None
        name = _V0_FIELD.get(field.name, "")
        if field.name in _V0_TRANSFORM:
            setattr(layer.transform_param, _V0_TRANSFORM[field.name], value)
        elif target is None or name not in target.DESCRIPTOR.fields_by_name:
            raise FormatError(
                f"{place}: layer {v0.name!r}: {field.name} does not belong to a {v0.type} layer."
            )
        elif field.name == "pool":
            target.pool = value
        elif hasattr(value, "CopyFrom"):
            getattr(target, name).CopyFrom(value)
        elif hasattr(getattr(target, name), "append"):
            getattr(target, name).append(value)
        else:
            setattr(target, name, value)
    if v0.HasField("hdf5_output_param"):
        layer.hdf5_output_param.CopyFrom(v0.hdf5_output_param)
    for bottom in item.bottom:
        if bottom in pads:
            _pad(layer, pads[bottom].pad, place)


def _pad(layer: LayerParameter, pad: int, place: str) -> None:
    if layer.type == "Convolution":
        layer.convolution_param.pad[:] = [pad]
    elif layer.type == "Pooling":
        layer.pooling_param.pad = pad
    else:
        raise FormatError(
            f"{place}: layer {layer.name!r}: a padding layer before a {layer.type}, "
            "expected before a convolution or pooling."
        )


def _padding(
    item: V1LayerParameter, pads: Mapping[str, V0LayerParameter], line: int | None, place: str
) -> Layer:
    if (len(item.bottom), len(item.top)) != (1, 1) or item.bottom[0] in pads:
        raise FormatError(
            f"{place}: layer {item.layer.name!r}: a padding layer of {list(item.bottom)} to "
            f"{list(item.top)}, expected one blob each, not padded yet."
        )
    params = LayerParameter(name=item.layer.name, type="padding")
    return Layer(params.name, "padding", tuple(item.bottom), tuple(item.top), params, (), line)


def _rewired(layer: Layer, removed: Mapping[str, str]) -> Layer:
    """Let a layer read what a removed padding layer read."""
    bottoms = tuple(removed.get(bottom, bottom) for bottom in layer.bottoms)
    if bottoms == layer.bottoms:
        return layer
    layer.params.bottom[:] = bottoms
    return Layer(layer.name, layer.type, bottoms, layer.tops, layer.params, layer.blobs, layer.line)


def _is_v0(item: LayerParameter | V1LayerParameter) -> bool:
    return isinstance(item, V1LayerParameter) and item.HasField("layer")


def _blob(blob: BlobProto, place: str) -> Blob:
    """Read a blob that a text file spells out."""
    data = np.array(blob.double_data or blob.data, "<f8" if blob.double_data else "<f4")
    legacy = tuple(
        getattr(blob, name)
        for name in ("num", "channels", "height", "width")
        if any(map(blob.HasField, ("num", "channels", "height", "width")))
    )
    return shaped(data, tuple(blob.shape.dim) if blob.HasField("shape") else legacy, place)

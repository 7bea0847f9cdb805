"""Caffe to archive: a network and its weights become named arrays in the normal form.

Enters: a `Net` with weights. Leaves: the weights as `Tensor`, each with its role. Batch
statistics are divided as Caffe divides them, a Scale layer joins the batch norm whose output
it reads, and parameters shared by name are kept once.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..proto.errors import MismatchError, listing
from ..proto.records import Array, Blob, Layer, Net
from .archive import Float32, Role, Tensor

# Layer types that have no weights. A layer of a type that is neither here nor in CONVERTERS
# is listed when it has no weights, and an error when it has.
WEIGHTLESS = frozenset({
    "AbsVal", "Accuracy", "ArgMax", "BNLL", "Clip", "Concat", "Crop", "Data", "DenseCRF",
    "Dropout", "DummyData", "ELU", "Eltwise", "EuclideanLoss", "Exp", "Flatten", "HDF5Data",
    "HingeLoss", "ImageData", "Input", "Interp", "LRN", "Log", "MVN", "MemoryData",
    "MultinomialLogisticLoss", "Permute", "Pooling", "Power", "ReLU", "Reduction", "Reshape",
    "SPP", "SegAccuracy", "Sigmoid", "SigmoidCrossEntropyLoss", "Silence", "Slice", "Softmax",
    "SoftmaxWithLoss", "Split", "Swish", "TanH", "Threshold", "Tile", "Upsample", "WindowData",
})  # fmt: skip


class Part(NamedTuple):
    """One array of a layer: its role, which blob it is, and how it was changed."""

    role: Role
    blob: int
    data: Array
    transform: str = "none"


Converter = Callable[[Layer], Iterator[Part]]
CONVERTERS: dict[str, Converter] = {}


def converts(*types: str) -> Callable[[Converter], Converter]:
    """Register a function that turns the blobs of a layer type into parts."""

    def register(function: Converter) -> Converter:
        for name in types:
            if name in CONVERTERS:
                raise ValueError(f"two converters for {name}")
            CONVERTERS[name] = function
        return function

    return register


@converts("Convolution", "Deconvolution")
def convolution(layer: Layer) -> Iterator[Part]:
    """Blobs: weight (out, in / group, height, width), PyTorch's order too; bias (out,)."""
    yield Part(Role.WEIGHT, 0, layer.blobs[0].data)
    if layer.params.convolution_param.bias_term and len(layer.blobs) > 1:
        yield Part(Role.BIAS, 1, _flat(layer.blobs[1]))


@converts("InnerProduct")
def inner_product(layer: Layer) -> Iterator[Part]:
    """Blobs: weight (out, in), or (in, out) with ``transpose``; bias (out,)."""
    weight = layer.blobs[0].data
    if weight.ndim == 4 and weight.shape[:2] == (1, 1):  # Of old files.
        weight = weight[0, 0]
    transposed = layer.params.inner_product_param.transpose
    yield Part(
        Role.WEIGHT,
        0,
        weight.T if transposed else weight,
        "transposed" if transposed else "none",
    )
    if len(layer.blobs) > 1:
        yield Part(Role.BIAS, 1, _flat(layer.blobs[1]))


@converts("BatchNorm")
def batch_norm(layer: Layer) -> Iterator[Part]:
    """Divide the running sums by their weight, in float32 and by reciprocal as Caffe does.

    Blobs: ``mean * w`` (C,), ``variance * w`` (C,), ``w`` (1,). Caffe reads a ``w`` of zero,
    a layer that never saw data, as all zeros.
    """
    if len(layer.blobs) != 3:
        raise MismatchError(
            f"{layer.place}: BatchNorm with {len(layer.blobs)} blobs, expected 3 "
            "(mean, variance, factor)."
        )
    sums = [_flat(blob).astype(np.float32) for blob in layer.blobs]
    factor = sums[2]
    if factor.shape != (1,):
        raise MismatchError(
            f"{layer.place}: BatchNorm factor of {factor.size} numbers, expected 1."
        )
    scale = np.float32(0) if factor[0] == 0 else np.float32(1) / factor[0]
    divided = f"multiplied by 1/{factor[0]}" if factor[0] else "zeroed: factor 0"
    yield Part(Role.MEAN, 0, sums[0] * scale, divided)
    yield Part(Role.VARIANCE, 1, sums[1] * scale, divided)
    yield Part(Role.MEAN_SUM, 0, sums[0])
    yield Part(Role.VARIANCE_SUM, 1, sums[1])
    yield Part(Role.FACTOR, 2, factor)


@converts("Scale")
def scale(layer: Layer) -> Iterator[Part]:
    """Blobs: gamma (C,), and beta (C,) with ``bias_term``. With two bottoms, only beta."""
    gamma = len(layer.bottoms) < 2
    if gamma:
        yield Part(Role.GAMMA, 0, layer.blobs[0].data)
    if len(layer.blobs) > gamma:
        yield Part(Role.BETA, int(gamma), layer.blobs[int(gamma)].data)


@converts("BN")
def segnet_batch_norm(layer: Layer) -> Iterator[Part]:
    """Blobs of SegNet's inference form: gamma and beta, (1, C, 1, 1), statistics folded in."""
    for index, (role, blob) in enumerate(zip((Role.GAMMA, Role.BETA), layer.blobs, strict=False)):
        yield Part(role, index, _flat(blob))


@converts("PReLU", "Bias", "Embed", "Parameter", "Normalize")
def plain(layer: Layer) -> Iterator[Part]:
    """Blobs as they are: a weight (Bias has only a bias), then a bias."""
    roles = [Role.BIAS] if layer.type == "Bias" else [Role.WEIGHT, Role.BIAS]
    for index, (role, blob) in enumerate(zip(roles, layer.blobs, strict=False)):
        yield Part(role, index, blob.data)


def _flat(blob: Blob) -> Array:
    """Bring a vector of old files, (1, 1, 1, N), to (N,)."""
    return blob.data.reshape(-1)


def tensors(net: Net) -> tuple[tuple[Tensor, ...], tuple[str, ...]]:
    """Return the weights of a net in the normal form, and what was noted on the way.

    Parameters that layers share by name (``param { name }``) are kept once, under the first
    layer that has them; every copy must be equal.

    Raises
    ------
    MismatchError
        Layers with weights of a type that is not known, blobs that their layer does not use,
        layers of one name, or shared copies that differ; all are listed.

    """
    problems: list[str] = []
    notes: list[str] = []
    owners: dict[tuple[str, Role], str] = {}
    found: dict[str, Tensor] = {}
    normaliser = scale_targets(net)
    for layer in net.layers:
        if layer.type not in CONVERTERS:
            if layer.blobs:
                problems.append(f"{layer.place}: type {layer.type!r} with {len(layer.blobs)} blobs")
            elif layer.type not in WEIGHTLESS:
                notes.append(f"{layer.place}: type {layer.type!r} is unknown; it has no weights")
            continue
        if not layer.blobs:
            continue
        with np.errstate(all="ignore"):  # What overflows is noted below.
            parts = list(CONVERTERS[layer.type](layer))
        if unused := set(range(len(layer.blobs))) - {part.blob for part in parts}:
            problems.append(f"{layer.place}: {layer.type} has no place for its blob {min(unused)}")
        for part in parts:
            tensor = _tensor(layer, part, normaliser.get(layer.name, layer.name))
            key = (shared_name(layer, part.blob), part.role)
            owner = found[owners[key]] if key[0] and key in owners else None
            if owner is None and tensor.name in found:
                problems.append(f"{layer.place}: a second layer that gives {tensor.name}")
            elif owner is None:
                owners[key] = tensor.name
                found[tensor.name] = tensor
            elif np.array_equal(owner.data, tensor.data, equal_nan=True):
                found[owner.name] = replace(owner, sources=owner.sources + tensor.sources)
            else:
                problems.append(
                    f"{layer.place}: blob {part.blob} differs from {owner.sources[0]}, "
                    f"with which it shares {key[0]!r}"
                )
    if problems:
        raise MismatchError(
            f"{len(problems)} layers with weights cannot be converted:\n{listing(problems)}"
        )
    kept = tuple(found.values())
    return kept, (*notes, *non_finite(kept))


def _tensor(layer: Layer, part: Part, name: str) -> Tensor:
    dtype = layer.blobs[part.blob].data.dtype
    transform = part.transform
    if dtype != np.float32:
        transform = f"{dtype} rounded to float32" + (
            "" if transform == "none" else f", {transform}"
        )
    with np.errstate(all="ignore"):
        data: Float32 = np.asarray(part.data, np.float32)
    source = f"{layer.name}[{part.blob}]"
    return Tensor(name, part.role, data, (source,), str(dtype), transform)


def shared_name(layer: Layer, blob: int) -> str:
    """Return the name under which a layer shares one of its parameters, or ``""``."""
    specs = layer.params.param
    return specs[blob].name if blob < len(specs) else ""


def non_finite(found: Iterable[Tensor]) -> Iterator[str]:
    """Note each tensor that holds NaN or infinity, with the count."""
    for tensor in found:
        with np.errstate(all="ignore"):
            total = tensor.data.sum()
        if np.isfinite(total):  # Then every value is, and a sum is three times faster to tell.
            continue
        count = tensor.data.size - int(np.count_nonzero(np.isfinite(tensor.data)))
        if count:
            yield f"{tensor.name}: {count} of {tensor.data.size} values are NaN or infinite"


def scale_targets(net: Net) -> dict[str, str]:
    """Return, for each Scale layer that follows a batch norm, the batch norm's name.

    Followed along the blobs: whoever last wrote the Scale's bottom is its source. File order
    says nothing, since branches may be interleaved.
    """
    writer: dict[str, Layer] = {}
    targets: dict[str, str] = {}
    for layer in net.layers:
        if layer.type == "Scale" and len(layer.bottoms) == 1:
            source = writer.get(layer.bottoms[0])
            if source is not None and source.type == "BatchNorm":
                targets[layer.name] = source.name
        for top in layer.tops:
            writer[top] = layer
    return targets

"""Caffe's binary weights: a ``.caffemodel`` becomes a `Net` without copying a number.

The file is mapped and its wire format walked. A packed float payload is the little-endian
array itself, so a `Blob` is a view into the mapping; only layer headers, a few hundred bytes
each, go through protobuf. V0, V1 and V2 files, packed and unpacked floats, ``double_data``,
``raw_data``, ``shape`` and the legacy four dimensions are read; diffs are passed over, as Caffe
does.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from . import dialects, upgrade, wire
from .caffe_pb2 import (
    BlobProto,
    BlobShape,
    LayerParameter,
    NetParameter,
    V0LayerParameter,
    V1LayerParameter,
)
from .errors import FormatError, listing
from .records import Blob, Layer, Net, shaped
from .source import mapped
from .textformat import is_repeated
from .wire import I32, I64, LEN, VARINT, Field

LARGEST_FILE = 2**31 - 1  # protobuf's limit for one message.

# Where each format keeps a layer's blobs, and V1 the V0 layer inside it.
_BLOBS = {
    LayerParameter.DESCRIPTOR.name: 7,
    V1LayerParameter.DESCRIPTOR.name: 6,
    V0LayerParameter.DESCRIPTOR.name: 50,
}
_V0_INSIDE = 1
_LAYER, _LAYERS = 100, 2

_DATA, _SHAPE, _DOUBLE = 5, 7, 8
_LEGACY = (1, 2, 3, 4)  # num, channels, height, width
_DIFFS = (6, 9, 11, 13)

# NVIDIA's fork and OpenCV's `shrinkCaffeModel` keep numbers as bytes of a type.
_RAW_TYPE, _RAW = 10, 12
_RAW_CODE = {0: "<f8", 1: "<f4", 2: "<f2"}

# How a field is written by its type; the others are a VARINT.
_WRITTEN = {
    FieldDescriptor.TYPE_FLOAT: I32,
    FieldDescriptor.TYPE_DOUBLE: I64,
    FieldDescriptor.TYPE_STRING: LEN,
    FieldDescriptor.TYPE_BYTES: LEN,
    FieldDescriptor.TYPE_MESSAGE: LEN,
}

M = TypeVar("M", bound=Message)


def read(path: Path, *, strict: bool = False) -> Net:
    """Map a weights file; every blob stays a view of it.

    With ``strict``, fields that ``caffe.proto`` does not have are an error. They are listed
    in `Net.unknown` otherwise, and matter only where the file's own graph is used.

    Raises
    ------
    FormatError
        The file is not a caffemodel, or is damaged; the byte and the layer are named.

    """
    buffer = mapped(path, "a Caffe caffemodel (binary)")
    if len(buffer) > LARGEST_FILE:
        raise FormatError(f"{path}: {len(buffer)} bytes, a caffemodel has at most {LARGEST_FILE}.")
    return parse_net(buffer, str(path), strict=strict)


def is_caffemodel(start: bytes) -> bool:
    """Tell a caffemodel by its first bytes: a field of a net."""
    try:
        key, _ = wire.varint(memoryview(start), 0, len(start))
    except FormatError:
        return False
    return key >> 3 in NetParameter.DESCRIPTOR.fields_by_number and key & 7 in (VARINT, LEN)


def parse_net(buffer: memoryview, place: str, *, strict: bool = False) -> Net:
    """Read a network from the bytes of a caffemodel; see `read`."""
    header = bytearray()
    raws: list[upgrade.Raw] = []
    unknown: list[str] = []
    try:
        for field in wire.fields(buffer, 0, len(buffer)):
            if field.kind == LEN and field.number in (_LAYER, _LAYERS):
                where = f"layer {len(raws) + 1}"
                raws.append(_layer(buffer, field, where, unknown))
            else:
                header += buffer[field.begin : field.stop]
                unknown += _unknown(NetParameter.DESCRIPTOR, buffer, field, "the net")
        message = _parse(NetParameter(), header, "the net")
    except FormatError as error:
        raise FormatError(
            f"{place}: {str(error).rstrip('.')}. Expected a Caffe caffemodel: the file is "
            "damaged, cut short or something else."
        ) from None
    if not any(raw.message.name or raw.blobs for raw in raws) and not _is_v0_net(raws):
        raise FormatError(f"{place}: holds no layer, expected a Caffe caffemodel.")
    if strict and unknown:
        raise FormatError(f"{place}: unknown fields:\n{listing(unknown)}")
    return upgrade.assemble(message, raws, tuple(unknown), place)


def _is_v0_net(raws: list[upgrade.Raw]) -> bool:
    return any(isinstance(r.message, V1LayerParameter) and r.message.layer.name for r in raws)


def _layer(buffer: memoryview, field: Field, where: str, unknown: list[str]) -> upgrade.Raw:
    """Split a layer into its message, parsed, and its blobs, viewed."""
    blobs: list[Blob] = []
    message: LayerParameter | V1LayerParameter
    if field.number == _LAYERS:
        message = V1LayerParameter()
        bare = _without_blobs(buffer, field, message.DESCRIPTOR, blobs, where, unknown)
        return upgrade.Raw(_parse(message, bare, where), tuple(blobs))
    message = LayerParameter()
    bare = bytearray()
    inside = list(wire.fields(buffer, field.start, field.stop))
    layer_type = next((_text(buffer, f, where) for f in inside if f.number == 2), "")
    layer_name = next((_text(buffer, f, where) for f in inside if f.number == 1), "")
    where = f"{where} ({layer_name!r})"
    for item in inside:
        if item.number == _BLOBS[message.DESCRIPTOR.name] and item.kind == LEN:
            blobs.append(_blob(buffer, item, f"{where}, blob {len(blobs)}", unknown))
            continue
        number = dialects.ours(layer_type, item.number)
        if number is None:
            unknown.append(f"{where}: {layer_type} has no field number {item.number}")
            continue
        renumbered = item._replace(number=number)
        unknown += _unknown(message.DESCRIPTOR, buffer, renumbered, where)
        bare += wire.tag(number, item.kind)
        if item.kind == LEN:
            bare += wire.encode_varint(item.stop - item.start)
        bare += buffer[item.start : item.stop]
    return upgrade.Raw(_parse(message, bare, where), tuple(blobs))


def _without_blobs(
    buffer: memoryview,
    field: Field,
    descriptor: Any,
    blobs: list[Blob],
    where: str,
    unknown: list[str],
) -> bytearray:
    """Return the bytes of a V1 or V0 layer without its blobs, which are viewed."""
    bare = bytearray()
    for item in wire.fields(buffer, field.start, field.stop):
        if item.kind == LEN and item.number == _BLOBS[descriptor.name]:
            blobs.append(_blob(buffer, item, f"{where}, blob {len(blobs)}", unknown))
        elif item.kind == LEN and (descriptor.name, item.number) == (
            V1LayerParameter.DESCRIPTOR.name,
            _V0_INSIDE,
        ):
            inner = _without_blobs(buffer, item, V0LayerParameter.DESCRIPTOR, blobs, where, unknown)
            bare += wire.tag(item.number, LEN) + wire.encode_varint(len(inner)) + inner
        else:
            unknown += _unknown(descriptor, buffer, item, where)
            bare += buffer[item.begin : item.stop]
    return bare


def _text(buffer: memoryview, field: Field, where: str) -> str:
    try:
        return bytes(buffer[field.start : field.stop]).decode()
    except UnicodeDecodeError:
        raise FormatError(f"{where}: byte {field.start}: text that is not UTF-8") from None


def _parse(message: M, data: bytearray, where: str) -> M:
    try:
        message.ParseFromString(bytes(data))
    except DecodeError as error:
        raise FormatError(f"{where}: {error}") from None
    return message


def _unknown(descriptor: Any, buffer: memoryview, field: Field, where: str) -> Iterator[str]:
    """List what ``caffe.proto`` does not know of a field, however deep; refuse bad strings.

    protobuf itself passes over it all: a value of an enumeration that it does not know is the
    default, and old schemas let any bytes be a string.
    """
    known = descriptor.fields_by_number.get(field.number)
    if known is None:
        yield f"{where}: {descriptor.name} has no field number {field.number}"
    elif field.kind != (written := _WRITTEN.get(known.type, VARINT)) and not (
        field.kind == LEN and is_repeated(known)  # Packed.
    ):
        yield f"{where}: {known.name} has wire type {field.kind}, expected {written}"
    elif known.type == FieldDescriptor.TYPE_ENUM and field.kind == VARINT:
        if field.value not in known.enum_type.values_by_number:
            yield f"{where}: {known.name} has no value {field.value}"
    elif known.type == FieldDescriptor.TYPE_STRING:
        _text(buffer, field, where)
    elif known.type == FieldDescriptor.TYPE_MESSAGE:
        for item in wire.fields(buffer, field.start, field.stop):
            yield from _unknown(known.message_type, buffer, item, f"{where}: {known.name}")


def _blob(buffer: memoryview, field: Field, where: str, unknown: list[str]) -> Blob:
    """View a BlobProto's numbers and check them against its shape."""
    chunks: dict[int, list[NDArray[Any]]] = {_DATA: [], _DOUBLE: []}
    legacy: dict[int, int] = {}
    shape: tuple[int, ...] | None = None
    raw: Field | None = None
    raw_type = 0
    at = field.start
    while at < field.stop:  # Not a plain loop over fields: runs of unpacked floats are one step.
        item = next(wire.fields(buffer, at, field.stop))
        at = item.stop
        if item.number in chunks:
            code = "<f4" if item.number == _DATA else "<f8"
            values, at = _numbers(buffer, item, field.stop, code, where)
            chunks[item.number].append(values)
        elif item.number == _SHAPE and item.kind == LEN:
            sizes = _parse(BlobShape(), bytearray(buffer[item.start : item.stop]), where)
            shape = tuple(sizes.dim)
        elif item.number in _LEGACY and item.kind == VARINT:
            legacy[item.number] = (item.value + 2**31) % 2**32 - 2**31
        elif item.number == _RAW and item.kind == LEN:
            raw = item
        elif item.number == _RAW_TYPE and item.kind == VARINT:
            raw_type = item.value
        elif item.number not in _DIFFS:
            unknown += _unknown(BlobProto.DESCRIPTOR, buffer, item, where)
    found = chunks[_DOUBLE] or chunks[_DATA]
    if raw is not None:
        if raw_type not in _RAW_CODE:
            raise FormatError(f"{where}: raw data of type {raw_type}, expected {list(_RAW_CODE)}")
        found = [_packed(buffer, raw, np.dtype(_RAW_CODE[raw_type]), where)]
    data = found[0] if len(found) == 1 else np.concatenate(found or [np.empty(0, "<f4")])
    if data.itemsize == 2:  # Half precision is to store, not to compute in.
        data = data.astype("<f4")
    if shape is None:  # Caffe reads a blob without any shape as a scalar.
        shape = tuple(legacy.get(number, 0) for number in _LEGACY) if legacy else ()
    return shaped(data, shape, where)


def _packed(buffer: memoryview, item: Field, dtype: np.dtype[Any], where: str) -> NDArray[Any]:
    size = item.stop - item.start
    if size % dtype.itemsize:
        raise FormatError(
            f"{where}: byte {item.start}: {size} bytes of numbers of {dtype.itemsize} bytes"
        )
    return np.frombuffer(buffer, dtype, size // dtype.itemsize, item.start)


def _numbers(
    buffer: memoryview, item: Field, end: int, code: str, where: str
) -> tuple[NDArray[Any], int]:
    """View packed numbers, or a run of unpacked ones; return them and where they end."""
    dtype = np.dtype(code)
    if item.kind == LEN:
        return _packed(buffer, item, dtype, where), item.stop
    if item.kind != (I32 if code == "<f4" else I64):
        raise FormatError(f"{where}: byte {item.begin}: numbers of wire type {item.kind}")
    tag = buffer[item.begin]
    pair = np.dtype([("tag", "u1"), ("value", dtype)])
    rest = np.frombuffer(buffer, pair, (end - item.begin) // pair.itemsize, item.begin)
    other = np.flatnonzero(rest["tag"] != tag)
    run = rest[: other[0]] if other.size else rest
    return run["value"], item.begin + run.nbytes


def write(net: Net, file: BinaryIO) -> None:
    """Write a network with its weights as a V2 caffemodel, one blob at a time.

    As Caffe's own ``net.save`` does: packed floats and a ``shape``, and fork fields under
    the fork's numbers.
    """
    file.write(NetParameter(name=net.name).SerializeToString())
    for layer in net.layers:
        head = _on_the_wire(layer)
        blobs = [_encoded_head(blob) for blob in layer.blobs]
        size = len(head) + sum(
            _length(len(start) + blob.data.nbytes)
            for start, blob in zip(blobs, layer.blobs, strict=True)
        )
        file.write(wire.tag(_LAYER, LEN) + wire.encode_varint(size) + head)
        for start, blob in zip(blobs, layer.blobs, strict=True):
            total = len(start) + blob.data.nbytes
            file.write(wire.tag(7, LEN) + wire.encode_varint(total) + start)
            file.write(np.ascontiguousarray(blob.data).data)


def _length(payload: int) -> int:
    return 1 + len(wire.encode_varint(payload)) + payload


def _encoded_head(blob: Blob) -> bytes:
    """Encode a blob's shape and the tag and length of its data."""
    shape = BlobShape(dim=blob.shape).SerializeToString()
    number = _DOUBLE if blob.data.dtype == np.float64 else _DATA
    return (
        wire.tag(_SHAPE, LEN)
        + wire.encode_varint(len(shape))
        + shape
        + wire.tag(number, LEN)
        + wire.encode_varint(blob.data.nbytes)
    )


def _on_the_wire(layer: Layer) -> bytes:
    """Serialise a layer's message with fork fields under the fork's own numbers."""
    raw = layer.params.SerializeToString()
    out = bytearray()
    for item in wire.fields(memoryview(raw), 0, len(raw)):
        out += wire.tag(dialects.on_the_wire(item.number), item.kind)
        if item.kind == LEN:
            out += wire.encode_varint(item.stop - item.start)
        out += raw[item.start : item.stop]
    return bytes(out)

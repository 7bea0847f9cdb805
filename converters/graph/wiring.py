"""Which layer reads what another wrote: a net enters, checked and with its blobs' fates."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ...proto.errors import FormatError, listing
from ...proto.records import Layer, Net
from .inputs import SOURCES, input_shapes
from .registry import LAYERS, LayerType, Shape, wrong


@dataclass(frozen=True, slots=True)
class Wiring:
    """A net that can be run from top to bottom.

    ``inputs`` are the blobs that come from outside, with the shapes that the file states;
    ``outputs`` those that no layer reads, sorted as Caffe sorts them.
    """

    inputs: Mapping[str, Shape | None]
    layers: tuple[Layer, ...]
    outputs: tuple[str, ...]


def wired(net: Net, place: str) -> Wiring:
    """Check that every blob is written before it is read, and by one layer only.

    Raises
    ------
    FormatError
        Types that are not supported (all are listed); a bottom that no layer above writes,
        a top written twice, too many or too few of them.

    """
    _check_types(net, place)
    inputs: dict[str, Shape | None] = {}
    layers: list[Layer] = []
    readers: dict[str, int] = {}  # Of each blob's present value.
    writer: dict[str, Layer] = {}
    for layer in net.layers:
        if layer.type in SOURCES:
            for top, shape in zip(layer.tops, input_shapes(layer), strict=True):
                _check_new(layer, top, writer)
                inputs[top], writer[top], readers[top] = shape, layer, 0
            continue
        layer = _with_tops(layer, writer)
        _check_counts(layer)
        for bottom in layer.bottoms:
            if bottom not in writer:
                raise _unwritten(layer, bottom, net)
            readers[bottom] += 1
        for index, top in enumerate(layer.tops):
            if index < len(layer.bottoms) and layer.bottoms[index] == top:
                _check_in_place(layer, top, readers[top])
            else:
                _check_new(layer, top, writer)
            writer[top], readers[top] = layer, 0
        layers.append(layer)
    outputs = sorted(blob for blob, count in readers.items() if count == 0)
    return Wiring(inputs, tuple(layers), tuple(outputs))


def _check_types(net: Net, place: str) -> None:
    unknown = [
        f"{layer.place}: type {layer.type!r}"
        for layer in net.layers
        if layer.type not in LAYERS and layer.type not in SOURCES
    ]
    if unknown:
        known = (layer for layer in net.layers if layer.type in LAYERS)
        unknown += [reason for layer in known if (reason := _refusal(layer)) is not None]
        raise FormatError(
            f"{place}: {len(unknown)} layers that are not supported:\n"
            f"{listing(unknown, limit=1000)}\n"
            f"Types that are: {', '.join(sorted({*LAYERS, *SOURCES}))}."
        )


def _refusal(layer: Layer) -> str | None:
    """Say why a layer of a known type cannot be built, None where it can."""
    try:
        layer = _with_tops(layer, {})
        _check_counts(layer)
        LAYERS[layer.type].build(layer)
    except FormatError as error:
        return str(error)
    return None


def _with_tops(layer: Layer, writer: Mapping[str, Layer]) -> Layer:
    """Give a loss without a top one, of its own name where that is free, as Caffe does."""
    if layer.tops or not LAYERS[layer.type].loss:
        return layer
    free = layer.name and layer.name not in writer
    return replace(layer, tops=(layer.name if free else "(automatic)",))


def _check_counts(layer: Layer) -> None:
    known: LayerType = LAYERS[layer.type]
    for what, found, (least, most) in (
        ("bottoms", len(layer.bottoms), known.bottoms),
        ("tops", len(layer.tops), known.tops),
    ):
        if not least <= found <= most:
            wanted = str(least) if least == most else f"{least} to {most}"
            wanted = f"at least {least}" if most > 1000 else wanted
            raise wrong(layer, f"{found} {what}, expected {wanted}")


def _unwritten(layer: Layer, bottom: str, net: Net) -> FormatError:
    later = next((one for one in net.layers if bottom in one.tops), None)
    found = "no layer above writes"
    if later is not None:
        found += f"; {later.place} does, but layers run in the file's order"
    return FormatError(f"{layer.place}: reads {bottom!r}, which {found}.")


def _check_new(layer: Layer, top: str, writer: Mapping[str, Layer]) -> None:
    if top in writer:
        raise FormatError(
            f"{layer.place}: writes {top!r}, which {writer[top].place} writes too, expected one "
            "of them (or this one in place, reading what it writes)."
        )


def _check_in_place(layer: Layer, top: str, readers: int) -> None:
    if not LAYERS[layer.type].in_place:
        raise wrong(layer, f"writes {top!r} in place, which it cannot: it is still reading it")
    if readers > 1:
        raise FormatError(
            f"{layer.place}: overwrites {top!r}, which another bottom reads before; expected a "
            "top of its own."
        )

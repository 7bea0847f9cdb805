"""Where values come from: inputs, data layers, DummyData, Parameter."""

from collections.abc import Sequence

from torch import Tensor

from ...proto.records import Layer
from .registry import MANY, Operation, Shape, Wanted, Weights, constant, layer, wrong

# Their tops are inputs of the graph: a PyTorch program reads its data itself.
SOURCES = frozenset({
    "Input", "Data", "DenseImageData", "HDF5Data", "ImageData", "ImageSegData", "MemoryData",
    "WindowData",
})  # fmt: skip


def input_shapes(layer: Layer) -> list[Shape | None]:
    """Return the shapes that an input or data layer states for its tops; None is any."""
    if layer.type == "MemoryData":
        settings = layer.params.memory_data_param
        sizes: Shape = (settings.batch_size, settings.channels, settings.height, settings.width)
        return [sizes, None][: len(layer.tops)]
    shapes = [tuple(shape.dim) for shape in layer.params.input_param.shape]
    if layer.type != "Input" or not shapes:
        return [None] * len(layer.tops)
    if len(shapes) not in (1, len(layer.tops)):
        raise wrong(layer, f"{len(shapes)} shapes for {len(layer.tops)} tops")
    return list(shapes * len(layer.tops) if len(shapes) == 1 else shapes)


@layer("DummyData", bottoms=0, tops=(1, MANY))
def dummy_data(layer: Layer) -> Operation:
    """Make blobs of given shapes, filled once; Caffe fills random ones anew each time."""
    settings = layer.params.dummy_data_param
    count = len(layer.tops)
    old = (settings.num, settings.channels, settings.height, settings.width)
    shapes: list[Shape] = [tuple(shape.dim) for shape in settings.shape]
    if shapes and any(old):
        raise wrong(layer, "both shape and num, expected one of them")
    if not shapes:
        if any(len(sizes) not in (1, count) for sizes in old):
            raise wrong(layer, f"num, channels, height and width for {count} tops: 1 or {count}")
        wide = [list(sizes) * (count if len(sizes) == 1 else 1) for sizes in old]
        shapes = list(zip(*wide, strict=True))
    fillers = list(settings.data_filler) or [constant()]
    if len(shapes) not in (1, count) or len(fillers) not in (1, count):
        raise wrong(layer, f"{len(shapes)} shapes, {len(fillers)} fillers for {count} tops")
    shapes = shapes * count if len(shapes) == 1 else shapes
    fillers = fillers * count if len(fillers) == 1 else fillers

    def run(weights: Weights, _: Sequence[Tensor]) -> Sequence[Tensor]:
        return [weights[f"value{index}"] for index in range(count)]

    return Operation(
        lambda _: shapes,
        run,
        constants=tuple(map(Wanted, shapes, fillers)),
    )


@layer("Parameter", bottoms=0)
def parameter(layer: Layer) -> Operation:
    """Give weights as a blob."""
    shape = tuple(layer.params.parameter_param.shape.dim)
    filler = constant()

    def blobs(_: Sequence[Shape]) -> Sequence[Wanted]:
        return [Wanted(shape, filler)]

    def run(weights: Weights, _: Sequence[Tensor]) -> Sequence[Tensor]:
        return [weights["weight"].clone()]  # Not the parameter itself.

    return Operation(lambda _: [shape], run, blobs)

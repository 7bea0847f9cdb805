"""One layer of a graph as a module: bottoms enter, tops leave."""

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn

from ...proto.records import LARGEST_COUNT, Layer
from .registry import Operation, Shape, misfit


class Step(nn.Module):
    """One layer: its weights by role, and its operation.

    ``blob_shapes`` are the shapes in which Caffe has the weights. ``views`` are the shapes
    of weights that are shared with a layer that has them in another.
    """

    def __init__(self, layer: Layer, operation: Operation) -> None:
        super().__init__()
        self.layer = layer
        self.operation = operation
        self.blob_shapes: tuple[Shape, ...] = ()
        self.views: dict[str, Shape] = {}

    def weights(self) -> dict[str, Tensor]:
        """Return the weights by role."""
        found: dict[str, Tensor] = {**self._parameters, **self._buffers}  # type: ignore[dict-item]
        for role, shape in self.views.items():
            found[role] = found[role].reshape(shape)
        return found

    def forward(self, *bottoms: Tensor) -> Sequence[Tensor]:
        """Return the tops for the bottoms."""
        return self.operation.run(self.weights(), bottoms)

    def sizes(self, shapes: Sequence[Shape]) -> Sequence[Shape]:
        """Return the tops' shapes; nothing is allocated.

        Raises
        ------
        MismatchError
            The bottoms do not fit the layer or its weights, or a top would be empty or
            larger than Caffe's limit.

        """
        wanted = tuple(blob.shape for blob in self.operation.blobs(shapes))
        if wanted != self.blob_shapes:
            found = ", ".join(str(list(shape)) for shape in self.blob_shapes)
            expected = ", ".join(str(list(shape)) for shape in wanted)
            raise misfit(
                self.layer, shapes, f"bottoms that fit weights {found}; these need {expected}"
            )
        return checked_sizes(self.layer, self.operation, shapes)

    def extra_repr(self) -> str:
        """Show the layer's type and blobs."""
        return f"{self.layer.type}, {list(self.layer.bottoms)} -> {list(self.layer.tops)}"


def checked_sizes(layer: Layer, operation: Operation, shapes: Sequence[Shape]) -> Sequence[Shape]:
    """Return the tops' shapes, none of them empty or absurd."""
    tops = operation.sizes(shapes)
    for top, shape in zip(layer.tops, tops, strict=True):
        if any(size < 1 for size in shape):
            raise misfit(layer, shapes, f"more: {top!r} would be {list(shape)}, empty")
        if prod(shape) > LARGEST_COUNT:
            raise misfit(
                layer,
                shapes,
                f"less: {top!r} would be {list(shape)}, more than {LARGEST_COUNT} numbers",
            )
    return tops

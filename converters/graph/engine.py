"""A Caffe net as a module: a dict of input blobs enters, a dict of blobs leaves."""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ...proto.errors import MismatchError, UsageError
from .plan import Schedule, planned, scheduled
from .registry import Shape
from .step import Step


class Graph(nn.Module):
    """A Caffe net in one phase.

    ``inputs`` maps the input blobs to the shapes that the file states (None: any), which
    others may replace. ``outputs`` are the blobs that no layer reads. ``notes`` says which
    layers found no weights in the file, and which of the file were not used.
    """

    def __init__(
        self,
        inputs: Mapping[str, Shape | None],
        steps: Sequence[Step],
        outputs: Sequence[str],
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.inputs = dict(inputs)
        self.outputs = tuple(outputs)
        self.notes = tuple(notes)
        self.steps = tuple(steps)
        self.blobs = tuple(dict.fromkeys([*inputs, *(t for s in steps for t in s.layer.tops)]))
        self._plan = planned(steps)
        self._schedules: dict[tuple[str, ...], Schedule] = {}
        self._seen: dict[str, Shape] | None = None
        for step in steps:  # Last, so that no layer takes the name of what is above.
            self.add_module(self._free_name(step.layer.name), step)

    def _free_name(self, layer: str) -> str:
        """Return a name for a layer's weights: its own, without dots and what torch parses."""
        name = base = re.sub(r"[^\w /:+-]", "_", layer) or "layer"
        count = 1
        while name in self._modules or hasattr(self, name):
            count += 1
            name = f"{base}_{count}"
        return name

    def forward(
        self, inputs: dict[str, Tensor], blobs: Sequence[str] | str | None = None
    ) -> dict[str, Tensor]:
        """Run the net.

        Parameters
        ----------
        inputs
            A tensor for each input blob; any batch and size that the layers take.
        blobs
            Which blobs to return: names, ``"all"``, or None for the outputs; no more is
            computed than these need. A blob that layers change in place has its last value.

        Raises
        ------
        UsageError
            An input is missing or not known, or a blob is.
        MismatchError
            The inputs' shapes do not fit; the layer, blobs and shapes are named, and
            nothing was computed.

        """
        wanted = self._wanted(blobs)
        self._check_inputs(inputs)
        values = dict(inputs)
        for run, bottoms, tops, dead in self._schedule(tuple(wanted)):
            found = run(*[values[bottom] for bottom in bottoms])
            values.update(zip(tops, found, strict=True))
            del found  # Memory that is free at once is used again while it is warm.
            for blob in dead:
                del values[blob]
        return {blob: values[blob] for blob in wanted}

    def _schedule(self, wanted: tuple[str, ...]) -> Schedule:
        if wanted not in self._schedules:
            self._schedules[wanted] = scheduled(self._plan, wanted)
        return self._schedules[wanted]

    def _wanted(self, blobs: Sequence[str] | str | None) -> dict[str, None]:
        if blobs is None:
            return dict.fromkeys(self.outputs)
        if blobs == "all":
            return dict.fromkeys(self.blobs)
        names = [blobs] if isinstance(blobs, str) else blobs
        unknown = [name for name in names if name not in self.blobs]
        if unknown:
            raise UsageError(f"blobs {unknown}: not in the net, which has {list(self.blobs)}.")
        return dict.fromkeys(names)

    def _check_inputs(self, inputs: dict[str, Tensor]) -> None:
        if set(inputs) != set(self.inputs):
            raise UsageError(
                f"inputs {sorted(inputs)}: expected a tensor for each of {sorted(self.inputs)}."
            )
        if torch.compiler.is_compiling():
            return
        shapes = {name: tuple(value.shape) for name, value in inputs.items()}
        if shapes != self._seen:
            self.sizes(shapes)
            self._seen = shapes

    def input_shapes(
        self, size: tuple[int, int] | None, otherwise: tuple[int, int] | None = None
    ) -> dict[str, Shape]:
        """Return a shape for each input: the file's, with another size where one is given.

        Sizes are (height, width), of inputs with four axes. An input without a shape is taken
        for an image, of ``otherwise`` where ``size`` is None.

        Raises
        ------
        UsageError
            Nothing tells the size of an input.

        """
        shapes: dict[str, Shape] = {}
        for name, stated in self.inputs.items():
            sides = size or otherwise
            if stated is None and sides is None:
                raise UsageError(f"input {name!r}: its file states no shape. Give the size.")
            shape = (1, 3, *(sides or ())) if stated is None else tuple(stated)
            shapes[name] = (*shape[:2], *size) if size and len(shape) == 4 else shape
        return shapes

    def sizes(self, inputs: Mapping[str, Sequence[int]]) -> dict[str, Shape]:
        """Return the shape of every blob for shapes of the inputs; nothing is computed.

        Raises
        ------
        MismatchError
            A layer cannot take its bottoms' shapes.

        """
        shapes = {name: tuple(shape) for name, shape in inputs.items()}
        for name, shape in shapes.items():
            if any(size < 1 for size in shape):
                raise MismatchError(f"input {name!r}: shape {list(shape)}, expected sizes above 0.")
        for step in self.steps:
            layer = step.layer
            tops = step.sizes([shapes[bottom] for bottom in layer.bottoms])
            shapes.update(zip(layer.tops, tops, strict=True))
        return shapes

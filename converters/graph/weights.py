"""Where a layer's weights come from: the file, the prototxt, another layer, or a filler."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np
import torch
from torch import Tensor, nn

from ...proto.caffe_pb2 import ParamSpec
from ...proto.errors import MismatchError
from ...proto.records import Blob, Layer, Net
from ..archive import Float32
from ..caffe import CONVERTERS, Part, shared_name
from .fillers import filled
from .registry import Shape, Wanted, wrong
from .step import Step

FILLED = "not in the weights, filled"
LARGEST_NET = 2**29  # Numbers in all fillers together: 2 GiB, four times VGG16.


@dataclass(slots=True)
class Store:
    """A weights file, and the weights that layers share by name."""

    net: Net | None
    seed: int
    owners: dict[tuple[str, str], tuple[Layer, Shape, Tensor]] = field(default_factory=dict)
    stored: dict[str, Layer] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    made: int = 0
    without: list[str] = field(default_factory=list)

    def give(self, step: Step, shapes: Sequence[Shape] | None) -> None:
        """Register a step's weights; ``shapes`` are its bottoms', None if not all are known.

        Raises
        ------
        MismatchError
            The file's blobs do not fit the layer, or shapes are missing without which
            there is no telling what to fill.

        """
        layer = step.layer
        for index, constant in enumerate(step.operation.constants):
            value = torch.from_numpy(self._filled(layer, constant, index))
            step.register_buffer(f"value{index}", value, persistent=False)
        given = self._given(layer)
        wanted = None if shapes is None else step.operation.blobs(shapes)
        if wanted is not None and len(layer.params.param) > len(wanted):
            raise wrong(layer, f"{len(layer.params.param)} param for {len(wanted)} weights")
        if wanted is None and not given and _needs(layer):
            raise MismatchError(
                f"{layer.place}: no weights for it, and its bottoms' shapes are not known, so "
                "none can be filled. Give the inputs' shapes, or a file that has the layer."
            )
        blobs = given if wanted is None else self._fitted(layer, given, wanted)
        if not blobs:
            return
        if self.net is not None and not given and not shared_name(layer, 0):
            self.without.append(f"{layer.place}: {FILLED}")
        step.blob_shapes = tuple(blob.shape for blob in blobs)
        whole = replace(layer, blobs=tuple(blobs))
        for part in CONVERTERS[layer.type](whole):
            if step.operation.roles is None or part.role.value in step.operation.roles:
                self._register(step, part, blobs[part.blob].shape, bool(given))

    def notes(self) -> list[str]:
        """Say which layers were filled, and which of the file were not used."""
        layers = self.net.layers if self.net else ()
        unused = [
            f"{layer.place}: in the weights, not in the net"
            for layer in layers
            if layer.blobs and layer.name not in self.used
        ]
        return [*self.without, *unused]

    def _given(self, layer: Layer) -> Sequence[Blob]:
        """Return a layer's blobs: the file's by its name, or those the prototxt spells out."""
        if self.net and not self.stored:
            # Of two layers of one name in the file the later one stays, as in Caffe.
            self.stored = {one.name: one for one in self.net.layers}
        found = None if layer.name in self.used else self.stored.get(layer.name)
        if found is None:
            return layer.blobs
        self.used.add(layer.name)
        return found.blobs or layer.blobs

    def _fitted(
        self, layer: Layer, given: Sequence[Blob], wanted: Sequence[Wanted]
    ) -> Sequence[Blob]:
        """Bring blobs to the shapes that a layer wants; fill those that are missing."""
        if given and len(given) != len(wanted) and not self._shared_from(layer, given, wanted):
            raise MismatchError(
                f"{layer.place}: {len(given)} blobs in the weights, expected {len(wanted)}."
            )
        blobs = []
        for index, want in enumerate(wanted):
            if index >= len(given):
                blobs.append(Blob(want.shape, self._filled(layer, want, index)))
                continue
            blob = given[index]
            if not fits(blob.shape, want.shape):
                raise MismatchError(
                    f"{layer.place}: blob {index} of the weights has shape {list(blob.shape)}, "
                    f"expected {list(want.shape)}."
                )
            blobs.append(Blob(want.shape, blob.data.reshape(want.shape)))
        return blobs

    def _shared_from(self, layer: Layer, given: Sequence[Blob], wanted: Sequence[Wanted]) -> bool:
        """Tell whether blobs are missing only because their owner has them (in HDF5)."""
        return (
            self.net is not None
            and not self.net.has_graph
            and len(given) < len(wanted)
            and all(shared_name(layer, index) for index in range(len(given), len(wanted)))
        )

    def _filled(self, layer: Layer, want: Wanted, index: int) -> Float32:
        self.made += prod(want.shape)
        if self.made > LARGEST_NET or any(size < 1 for size in want.shape):
            raise MismatchError(
                f"{layer.place}: weights of shape {list(want.shape)} to be filled, expected "
                f"sizes above 0 and at most {LARGEST_NET} numbers in the net."
            )
        random = np.random.default_rng((self.seed, zlib.crc32(layer.name.encode()), index))
        return filled(want.filler, want.shape, random, layer.place)

    def _register(self, step: Step, part: Part, shape: Shape, given: bool) -> None:
        """Register a weight, or another layer's under the same name (``param { name }``)."""
        layer, role = step.layer, part.role.value
        statistics = layer.type == "BatchNorm"
        name = shared_name(layer, part.blob)
        data = torch.from_numpy(np.array(part.data, np.float32, order="C"))
        value: Tensor = data if statistics else nn.Parameter(data)
        if name:
            key = (name, role if statistics else "")
            owner, owned, value = self.owners.setdefault(key, (layer, shape, value))
            if owner is not layer:
                _check_shared(layer, part.blob, shape, owner, owned)
                if given:  # Each layer of the file fills the one tensor; the last one stays.
                    with torch.no_grad():
                        value.copy_(data.reshape(value.shape))
                if value.shape != data.shape:
                    step.views[role] = tuple(data.shape)
        if statistics:
            step.register_buffer(role, value)
        else:
            step.register_parameter(role, value if isinstance(value, nn.Parameter) else None)


def fits(shape: Shape, wanted: Shape) -> bool:
    """Tell whether a blob has a shape, or is (1, 1, ..., N) of an old file with four sizes."""
    padded = (1,) * (4 - len(wanted)) + wanted
    return shape == wanted or (len(shape) == 4 and shape == padded)


def _needs(layer: Layer) -> bool:
    """Tell whether a layer has weights of its own."""
    if layer.type == "Scale" and len(layer.bottoms) == 2:
        return layer.params.scale_param.bias_term
    return layer.type in CONVERTERS and len(layer.bottoms) < 2


def _check_shared(layer: Layer, blob: int, shape: Shape, owner: Layer, owned: Shape) -> None:
    permissive = layer.params.param[blob].share_mode == ParamSpec.PERMISSIVE
    if prod(shape) != prod(owned) or not (permissive or shape == owned):
        raise MismatchError(
            f"{layer.place}: shares {layer.params.param[blob].name!r}, of shape {list(owned)} in "
            f"{owner.place}, expected {list(shape)} here."
        )

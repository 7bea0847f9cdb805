"""A layer as its source states it, run under a numerics profile or under another convention.

Enters: the steps of a graph and a profile. Leaves: their values in any precision, and for
each layer the variations of it that some framework or file is known to mean. What may vary is
read off the fields of `Numerics` and of the layer's own parameters.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...converters.caffe_sizes import interp_size, sized_by_numbers, spatial
from ...converters.graph.engine import Graph
from ...converters.graph.registry import LAYERS, Weights
from ...converters.graph.step import Step
from ...converters.numerics import PROFILES, Numerics
from ...proto.caffe_pb2 import LayerParameter, PoolingParameter
from ...proto.records import Layer
from ..models.resampling import pad_same, resize, scaled

# Which fields of a profile say something of a layer type.
FIELDS = {
    "BatchNorm": ("bn_eps",),
    "Convolution": ("padding", "channel_order"),
    "Interp": ("resize", "scaled_size"),
    "Pooling": ("padding",),
}


@dataclass(frozen=True, slots=True, eq=False)
class Stated:
    """A layer with everything its value depends on beside its bottoms.

    ``target`` is the blob whose size an Interp takes, ``image`` tells a layer that reads the
    network's image.
    """

    layer: Layer
    weights: Weights
    numerics: Numerics
    image: bool = False
    target: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Variation:
    """One convention of one layer, and the layer as it is under another."""

    convention: str
    stated: str
    value: str
    varied: Stated

    @property
    def layer(self) -> Layer:
        """The layer that varies."""
        return self.varied.layer


def stated(graph: Graph, numerics: Numerics, dtype: torch.dtype = torch.float32) -> list[Stated]:
    """Return a graph's layers in order, weights in ``dtype`` at the time they are asked for."""
    siblings = _siblings(graph)
    return [
        Stated(
            step.layer,
            _Cast(step, dtype),
            numerics,
            any(bottom in graph.inputs for bottom in step.layer.bottoms),
            siblings.get(step.layer.tops[0]) if step.layer.tops else None,
        )
        for step in graph.steps
    ]


class _Cast(Mapping[str, Tensor]):
    """A step's weights by role in another precision, made when they are read."""

    def __init__(self, step: Step, dtype: torch.dtype) -> None:
        self.step, self.dtype = step, dtype

    def __getitem__(self, role: str) -> Tensor:
        return self.step.weights()[role].detach().to(self.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self.step.weights())

    def __len__(self) -> int:
        return len(self.step.weights())


def _siblings(graph: Graph) -> dict[str, str]:
    """Return, for each resized blob that is joined with another, that other.

    Caffe's branches meet only where their sizes happen to fit; elsewhere the native model
    resizes the smaller ones to the scores of scale 1, and the exact answer must too.
    """
    resized = {step.layer.tops[0] for step in graph.steps if step.layer.type == "Interp"}
    found = {}
    for step in graph.steps:
        bottoms = step.layer.bottoms
        whole = [bottom for bottom in bottoms if bottom not in resized]
        if step.layer.type == "Eltwise" and whole:
            found.update({bottom: whole[0] for bottom in bottoms if bottom in resized})
    return found


def compute(one: Stated, bottoms: Sequence[Tensor], like: Tensor | None = None) -> Sequence[Tensor]:
    """Return a layer's tops; ``like`` is the value of its ``target``."""
    layer = one.layer
    if one.numerics.padding == "same" and _strided(layer):
        layer, padded = _padded_same(layer, bottoms[0])
        bottoms = [padded, *bottoms[1:]]
    if layer.type == "Interp":
        return [_resized(one, bottoms[0], like)]
    return LAYERS[layer.type].build(layer).run(one.weights, bottoms)


def _strided(layer: Layer) -> bool:
    """Tell whether TensorFlow's SAME may pad a layer otherwise than its fixed pads."""
    if layer.type not in ("Convolution", "Pooling"):
        return False
    kernel, stride = _window(layer)
    pool = layer.params.pooling_param
    averages = pool.pool != PoolingParameter.MAX or pool.global_pooling
    square = kernel[0] == kernel[1] and stride[0] == stride[1]
    return max(stride) > 1 and square and not (layer.type == "Pooling" and averages)


def _window(layer: Layer) -> tuple[tuple[int, int], tuple[int, int]]:
    settings: Any = _settings(layer.params, layer.type)
    return spatial(settings, "kernel_size", 0, "kernel"), spatial(settings, "stride", 1, "stride")


def _settings(params: LayerParameter, kind: str) -> Any:
    return params.pooling_param if kind == "Pooling" else params.convolution_param


def _padded_same(layer: Layer, x: Tensor) -> tuple[Layer, Tensor]:
    """Return the layer without pads of its own, and its bottom padded as SAME says."""
    (kernel, _), (stride, _) = _window(layer)
    pooling = layer.type == "Pooling"
    if not pooling:
        kernel = spatial(layer.params.convolution_param, "dilation", 1)[0] * (kernel - 1) + 1

    def bare(params: LayerParameter) -> None:
        settings = _settings(params, layer.type)
        for name in ("pad", "pad_h", "pad_w"):
            settings.ClearField(name)
        if pooling:
            settings.round_mode = PoolingParameter.FLOOR

    return edited(layer, bare), pad_same(x, kernel, stride, -torch.inf if pooling else 0.0)


def _resized(one: Stated, x: Tensor, like: Tensor | None) -> Tensor:
    settings = one.layer.params.interp_param
    pads = settings.pad_beg, settings.pad_end
    if one.image and not any(pads) and not sized_by_numbers(settings):
        return scaled(x, settings.zoom_factor / settings.shrink_factor, one.numerics)
    size = interp_size(settings, (x.shape[-2], x.shape[-1]))
    if like is not None:
        size = like.shape[-2], like.shape[-1]
    if any(pads):
        end = [n + settings.pad_end for n in x.shape[-2:]]
        x = x[..., -settings.pad_beg : end[0], -settings.pad_beg : end[1]]
    return resize(x, size, one.numerics)


def edited(layer: Layer, edit: Callable[[LayerParameter], None]) -> Layer:
    """Return a layer with changed parameters."""
    params = LayerParameter()
    params.CopyFrom(layer.params)
    edit(params)
    return replace(layer, params=params)


def variations(one: Stated, factor: float | None, rates: Sequence[int]) -> Iterator[Variation]:
    """Yield the layer under every other convention that is known for its type.

    ``factor`` is what a BatchNorm's sums are divided by; ``rates`` the dilations that occur
    in the network.
    """
    for field in FIELDS.get(one.layer.type, ()):
        yield from _of_profile(one, field)
    match one.layer.type:
        case "BatchNorm" if factor not in (None, 0.0, 1.0):
            sums = {
                role: value * factor if role in ("mean", "variance") else value
                for role, value in one.weights.items()
            }
            varied = replace(one, weights=sums)
            yield Variation("BatchNorm factor", f"divided by {factor:g}", "ignored", varied)
        case "Pooling":
            yield _other_rounding(one)
        case "Convolution" | "Deconvolution":
            yield from _other_dilations(one, rates)


def _of_profile(one: Stated, field: str) -> Iterator[Variation]:
    """Vary what a profile's field governs, over the values that the profiles have."""
    known = getattr(one.numerics, field)
    if field == "bn_eps":
        known = float(f"{one.layer.params.batch_norm_param.eps:.6g}")
    for value in dict.fromkeys(getattr(profile, field) for profile in PROFILES.values()):
        if value == known:
            continue
        varied = replace(one, numerics=replace(one.numerics, **{field: value}))
        if field == "bn_eps":

            def with_eps(params: LayerParameter, eps: float = value) -> None:
                params.batch_norm_param.eps = eps

            varied = replace(one, layer=edited(one.layer, with_eps))
        elif field == "channel_order":
            if not one.image or one.weights["weight"].shape[1] != 3:
                return
            weights = {**one.weights, "weight": one.weights["weight"].flip(1)}
            varied = replace(one, weights=weights)
        yield Variation(field, str(known), str(value), varied)


def _other_rounding(one: Stated) -> Variation:
    mode = one.layer.params.pooling_param.round_mode
    other = PoolingParameter.FLOOR if mode == PoolingParameter.CEIL else PoolingParameter.CEIL

    def rounded(params: LayerParameter) -> None:
        params.pooling_param.round_mode = other

    known, found = (PoolingParameter.RoundMode.Name(value).lower() for value in (mode, other))
    return Variation("pooling size", known, found, replace(one, layer=edited(one.layer, rounded)))


def _other_dilations(one: Stated, rates: Sequence[int]) -> Iterator[Variation]:
    """Vary the dilation, keeping the top's size, and keeping the pad."""
    settings = one.layer.params.convolution_param
    kernel = spatial(settings, "kernel_size", 0, "kernel")
    known = spatial(settings, "dilation", 1)
    pad = spatial(settings, "pad", 0, "pad")
    if max(kernel) == 1:
        return
    for rate in dict.fromkeys((1, *rates)):
        if (rate, rate) == known:
            continue
        kept = [p + (rate - d) * (k - 1) // 2 for p, k, d in zip(pad, kernel, known, strict=True)]
        for pads in dict.fromkeys((tuple(kept), pad)):
            if min(pads) < 0:
                continue

            def dilated(
                params: LayerParameter, rate: int = rate, pads: Sequence[int] = pads
            ) -> None:
                held = params.convolution_param
                for name in ("pad_h", "pad_w"):
                    held.ClearField(name)
                held.dilation[:], held.pad[:] = [rate], list(pads)

            varied = replace(one, layer=edited(one.layer, dilated))
            yield Variation("dilation", str(known[0]), str(rate), varied)


def exact(
    graph: Graph,
    numerics: Numerics,
    inputs: Mapping[str, Tensor],
    visit: Callable[[str, Tensor], None],
) -> None:
    """Run a graph in float64, showing ``visit`` each blob when it has its last value.

    A blob is let go after the last layer that reads it, so that no more of the network is
    held than its own order needs.
    """
    steps = stated(graph, numerics, torch.float64)
    ends: dict[str, int] = {}
    writes: dict[str, int] = {}
    for index, one in enumerate(steps):
        reads = (*one.layer.bottoms, *([one.target] if one.target else ()))
        ends.update(dict.fromkeys((*reads, *one.layer.tops), index))
        writes.update(dict.fromkeys(one.layer.tops, index))
    values = {name: value.double() for name, value in inputs.items()}
    with torch.inference_mode():
        for name, value in values.items():
            if name not in writes:
                visit(name, value)
        for index, one in enumerate(steps):
            bottoms = [values[bottom] for bottom in one.layer.bottoms]
            tops = compute(one, bottoms, values[one.target] if one.target else None)
            values.update(zip(one.layer.tops, tops, strict=True))
            for top in one.layer.tops:
                if writes[top] == index:
                    visit(top, values[top])
            for blob in (*one.layer.bottoms, *one.layer.tops):
                if ends[blob] == index:
                    values.pop(blob, None)

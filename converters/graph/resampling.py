"""Interp: the DeepLab fork's bilinear resampling, corners aligned."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from ...proto.records import Layer
from ..caffe_sizes import interp_size, sized_by_numbers
from .registry import Operation, Shape, Weights, layer, misfit, wrong


@layer("Interp")
def interp(layer: Layer) -> Operation:
    """Resize to a size or by factors; negative pads crop first."""
    settings = layer.params.interp_param
    begin, end = settings.pad_beg, settings.pad_end
    factors = settings.HasField("zoom_factor") or settings.HasField("shrink_factor")
    if begin > 0 or end > 0:
        raise wrong(layer, f"pads {begin} and {end}, expected 0 or negative ones, which crop")
    if not factors and not (settings.height > 0 and settings.width > 0):
        raise wrong(layer, "no target size, expected height and width, or a factor")
    if factors and (settings.zoom_factor < 1 or settings.shrink_factor < 1):
        raise wrong(layer, "a factor below 1, expected at least 1")
    if sized_by_numbers(settings) and min(settings.height, settings.width) < 1:
        raise wrong(layer, "a size below 1, expected at least 1")

    def sizes(shapes: Sequence[Shape]) -> Sequence[Shape]:
        if len(shapes[0]) != 4:
            raise misfit(layer, shapes, "four axes: batch, channels, height and width")
        batch, channels, height, width = shapes[0]
        if min(height, width) + begin + end < 1:
            raise misfit(layer, shapes, f"something left after cropping {begin} and {end}")
        return [(batch, channels, *interp_size(settings, (height, width)))]

    def run(_: Weights, bottoms: Sequence[Tensor]) -> Sequence[Tensor]:
        x = bottoms[0]
        height, width = x.shape[2], x.shape[3]
        target = interp_size(settings, (height, width))
        if begin or end:
            x = x[:, :, -begin : height + end, -begin : width + end]
        if (x.shape[2], x.shape[3]) == target:
            return [x]
        return [functional.interpolate(x, target, mode="bilinear", align_corners=True)]

    return Operation(sizes, run)

"""The way back to Caffe for the VGG nets: a config becomes the prototxt of its network.

Layer and blob names are the published ones (``conv5_3``, ``fc8_voc12_4``, ``pool3_ms``).
"""

from collections.abc import Iterator
from fractions import Fraction

from ..proto.caffe_pb2 import EltwiseParameter, LayerParameter, PoolingParameter
from ..proto.records import Net
from .largefov import (
    CONVOLUTIONS,
    DILATIONS,
    OUTPUT_STRIDE,
    STRIDES,
    TAPS,
    ZOOMS,
    LargeFOVConfig,
)
from .naming.largefov import HEAD, NAMING, context_of
from .numerics import CAFFE_V2
from .write_caffe import image_of, interp, net_of, plain, set_convolution

SCORES = "fc8_voc12"


def deploy_net(
    config: LargeFOVConfig,
    height: int,
    width: int,
    *,
    name: str = "deeplab_largefov",
    bn_eps: float = CAFFE_V2.bn_eps,  # noqa: ARG001  VGG has no batch norm.
) -> Net:
    """Return the network, without weights, for images of the given size.

    Ends in ``fc8_interp``, the scores zoomed by 8, or with side branches in ``fc_fusion``,
    which needs sizes 8 k + 1.
    """
    layers = [image_of(height, width)]
    context = context_of(len(config.rates))

    def convolution(
        module: str, bottom: str, out: int, kernel: int, rate: int = 1
    ) -> Iterator[LayerParameter]:
        top = NAMING.from_canonical("caffe", module, context)
        layer = plain(top, "Convolution", [bottom], top)
        pad = rate * (kernel - 1) // 2
        set_convolution(layer, out, kernel, 1, pad, rate, bias=True)
        yield layer

    def rectified(
        module: str, bottom: str, out: int, kernel: int, rate: int = 1, *, drop: bool = False
    ) -> Iterator[LayerParameter]:
        yield from convolution(module, bottom, out, kernel, rate)
        top = NAMING.from_canonical("caffe", module, context)
        yield plain(f"relu_{top}", "ReLU", [top], top)
        if drop:
            yield plain(f"drop_{top}", "Dropout", [top], top)

    x = "data"
    for stage, (count, out) in enumerate(zip(CONVOLUTIONS, config.widths, strict=True), 1):
        for index in range(1, count + 1):
            module = f"backbone.conv{stage}_{index}"
            layers += rectified(module, x, out, 3, DILATIONS[stage - 1])
            x = layers[-1].top[0]
        layers.append(_pooling(f"pool{stage}", x, STRIDES[stage - 1]))
        x = f"pool{stage}"
    if config.average:
        layers.append(_pooling("pool5a", x, 1, PoolingParameter.AVE))
        x = "pool5a"
    heads = []
    for index, rate in enumerate(config.rates):
        module = f"backbone.fc6.{index}"
        layers += rectified(module, x, config.hidden, config.kernel, rate, drop=True)
        fc6 = layers[-1].top[0]
        layers += rectified(f"backbone.fc7.{index}", fc6, config.hidden, 1, drop=True)
        layers += convolution(f"{HEAD}fc8.{index}", layers[-1].top[0], config.classes, 1)
        heads.append(layers[-1].top[0])
    if len(heads) > 1:
        layers.append(plain(SCORES, "Eltwise", heads, SCORES))
    parts = []
    for tap, zoom in zip(TAPS if config.sides else (), ZOOMS, strict=False):
        module = f"{HEAD}sides.{tap}"
        layers += rectified(f"{module}.conv", tap, config.sides, 3, drop=True)
        layers += rectified(f"{module}.fc", f"{tap}_conv", config.sides, 1, drop=True)
        layers += convolution(f"{module}.score", f"{tap}_fc", config.classes, 1)
        parts.append(f"{tap}_ms")
        if zoom > 1:
            layers.append(interp(f"{tap}_interp", f"{tap}_ms", Fraction(zoom)))
            parts[-1] = f"{tap}_interp"
    layers.append(interp("fc8_interp", SCORES, Fraction(OUTPUT_STRIDE)))
    if config.sides:
        layers.append(plain("fc_fusion", "Eltwise", [*parts, "fc8_interp"], "fc_fusion"))
        layers[-1].eltwise_param.operation = EltwiseParameter.SUM
    return net_of(name, layers)


def _pooling(
    name: str,
    bottom: str,
    stride: int,
    method: PoolingParameter.PoolMethod = PoolingParameter.MAX,
) -> LayerParameter:
    layer = plain(name, "Pooling", [bottom], name)
    settings = layer.pooling_param
    settings.pool, settings.kernel_size, settings.stride, settings.pad = method, 3, stride, 1
    return layer

"""The way back to Caffe: a config becomes the prototxt of its network.

Layer and blob names are the published ones (``res4b22_branch2c``, ``bn4b22_branch2c``,
``fc1_voc12_res075_c3``); the branches of a multi-scale net share parameters by name.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from fractions import Fraction

from ..proto.caffe_pb2 import EltwiseParameter, LayerParameter
from ..proto.records import Blob, Layer, Net
from .caffe import CONVERTERS
from .deeplab_v2 import DILATIONS, EXPANSION, STRIDES, DeepLabV2Config, norm_of
from .naming.deeplab_v2 import HEAD, blob_of, context_of, from_canonical
from .numerics import CAFFE_V2


def deploy_net(
    config: DeepLabV2Config,
    height: int,
    width: int,
    *,
    name: str = "deeplab_v2",
    bn_eps: float = CAFFE_V2.bn_eps,
) -> Net:
    """Return the network, without weights, for images of the given size.

    Ends in ``fc1_voc12`` (single-scale) or ``fc_fusion`` (multi-scale), and ``fc1_interp``,
    the scores zoomed by 8.
    """
    layers = [image_of(height, width)]
    scores = []
    for scale in config.scales:
        suffix = str(context_of(config.blocks, scale)["scale"])
        factor = Fraction(scale).limit_denominator(64)
        if scale != 1:
            layers.append(interp(f"data{suffix}", "data", factor))
        layers += _branch(config, scale, suffix, bn_eps)
        scores.append(f"fc1_voc12{suffix}")
        if scale != 1:
            layers.append(interp(f"{scores[-1]}_interp", scores[-1], 1 / factor))
            scores[-1] = layers[-1].top[0]
    if len(scores) > 1:
        layers.append(plain("fc_fusion", "Eltwise", scores, "fc_fusion"))
        layers[-1].eltwise_param.operation = EltwiseParameter.MAX
    layers.append(interp("fc1_interp", layers[-1].top[0], Fraction(8)))
    return net_of(name, layers)


def net_of(name: str, layers: Iterable[LayerParameter]) -> Net:
    """Make a net of layers' messages."""
    return Net(
        name,
        tuple(Layer(one.name, one.type, tuple(one.bottom), tuple(one.top), one) for one in layers),
    )


def filled(net: Net, blobs: Mapping[str, tuple[Blob, ...]]) -> Net:
    """Return the net with blobs; keys are the layers of scale 1, which the others share."""
    return replace(
        net,
        layers=tuple(
            replace(layer, blobs=blobs[owner_of(layer)]) if layer.type in CONVERTERS else layer
            for layer in net.layers
        ),
    )


def owner_of(layer: Layer) -> str:
    """Return the layer of scale 1 whose parameters this layer shares (perhaps itself)."""
    return layer.params.param[0].name.rpartition("_")[0] if layer.params.param else layer.name


class _Names:
    """Caffe's names of the modules of one branch."""

    def __init__(self, config: DeepLabV2Config, scale: float) -> None:
        self._here = context_of(config.blocks, scale)
        self._owner = context_of(config.blocks)

    def layer(self, module: str) -> str:
        return from_canonical("caffe", module, self._here)

    def owner(self, module: str) -> str:
        return from_canonical("caffe", module, self._owner)

    def blob(self, module: str) -> str:
        return str(blob_of(module, self._here))


def _branch(
    config: DeepLabV2Config, scale: float, suffix: str, bn_eps: float
) -> Iterator[LayerParameter]:
    names = _Names(config, scale)

    def normalised(
        module: str, bottom: str, out: int, kernel: int, stride: int, rate: int
    ) -> Iterator[LayerParameter]:
        norm = norm_of(module)
        top = names.layer(module)
        pad = rate * (kernel // 2)
        layer = _shared(top, names.owner(module), "Convolution", bottom, top, 1)
        set_convolution(layer, out, kernel, stride, pad, rate, bias=False)
        yield layer
        name, owner = names.layer(norm), names.owner(norm)
        layer = _shared(name, owner, "BatchNorm", top, top, 3)
        layer.batch_norm_param.use_global_stats = True
        if bn_eps != CAFFE_V2.bn_eps:
            layer.batch_norm_param.eps = bn_eps
        yield layer
        name, owner = (f"scale{one.removeprefix('bn')}" for one in (name, owner))
        layer = _shared(name, owner, "Scale", top, top, 2)
        layer.scale_param.bias_term = True
        yield layer

    yield from normalised("backbone.conv1", f"data{suffix}", config.stem, 7, 2, 1)
    blob = names.blob("backbone.relu")
    yield plain(f"conv1_relu{suffix}", "ReLU", [blob], blob)
    pool = plain(names.blob("backbone.maxpool"), "Pooling", [blob], names.blob("backbone.maxpool"))
    pool.pooling_param.kernel_size, pool.pooling_param.stride, pool.pooling_param.pad = 3, 2, 1
    yield pool
    x = pool.top[0]
    for stage in range(4):
        width, rate = config.widths[stage], DILATIONS[stage]
        for block in range(config.blocks[stage]):
            at = f"backbone.layer{stage + 1}.{block}"
            stride = STRIDES[stage] if block == 0 else 1
            shortcut = x
            if block == 0:
                shortcut = names.blob(f"{at}.downsample")
                yield from normalised(f"{at}.downsample.0", x, width * EXPANSION, 1, stride, 1)
            yield from normalised(f"{at}.conv1", x, width, 1, stride, 1)
            y = names.blob(f"{at}.relu1")
            yield plain(f"{y}_relu", "ReLU", [y], y)
            yield from normalised(f"{at}.conv2", y, width, 3, 1, rate)
            y = names.blob(f"{at}.relu2")
            yield plain(f"{y}_relu", "ReLU", [y], y)
            yield from normalised(f"{at}.conv3", y, width * EXPANSION, 1, 1, 1)
            x = names.blob(at)
            yield plain(x, "Eltwise", [shortcut, names.blob(f"{at}.bn3")], x)
            yield plain(f"{x}_relu", "ReLU", [x], x)
    tops = []
    for index, rate in enumerate(config.rates):
        module = f"{HEAD}convs.{index}"
        tops.append(names.layer(module))
        layer = _shared(tops[-1], names.owner(module), "Convolution", x, tops[-1], 2)
        set_convolution(layer, config.classes, 3, 1, rate, rate, bias=True)
        yield layer
    total = names.blob("classifier")
    yield plain(total, "Eltwise", tops, total)


def image_of(height: int, width: int) -> LayerParameter:
    """Return the input layer, one image of three channels."""
    layer = plain("data", "Input", [], "data")
    layer.input_param.shape.add().dim.extend([1, 3, height, width])
    return layer


def plain(name: str, kind: str, bottoms: list[str], top: str) -> LayerParameter:
    """Return a layer without settings."""
    return LayerParameter(name=name, type=kind, bottom=bottoms, top=[top])


def _shared(name: str, owner: str, kind: str, bottom: str, top: str, blobs: int) -> LayerParameter:
    layer = plain(name, kind, [bottom], top)
    for index in range(blobs):
        layer.param.add(name=f"{owner}_{index}")
    return layer


def set_convolution(
    layer: LayerParameter, out: int, kernel: int, stride: int, pad: int, rate: int, *, bias: bool
) -> None:
    """Give a convolution its settings."""
    settings = layer.convolution_param
    settings.num_output, settings.bias_term = out, bias
    settings.kernel_size[:], settings.stride[:] = [kernel], [stride]
    settings.pad[:], settings.dilation[:] = [pad], [rate]


def interp(name: str, bottom: str, factor: Fraction) -> LayerParameter:
    """Return an Interp by factors."""
    layer = plain(name, "Interp", [bottom], name)
    if factor.numerator != 1:
        layer.interp_param.zoom_factor = factor.numerator
    if factor.denominator != 1:
        layer.interp_param.shrink_factor = factor.denominator
    return layer

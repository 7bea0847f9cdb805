"""DeepLab v2 ResNet stated once: its config, its parameters' shapes, its computation.

Everything that must know the architecture without torch reads it here: a conversion checks
names and shapes against `parameters`, a prototxt's graph is compared with `network` node by
node, and the writer turns `network` into layers. The torch model is in ``zoo/models``.

Source: Chen et al., "DeepLab: Semantic Image Segmentation with Deep Convolutional Nets,
Atrous Convolution, and Fully Connected CRFs", section 3 (ASPP-L, multi-scale inputs).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ..proto.errors import MismatchError
from ..proto.records import Net
from .caffe_sizes import spatial
from .family import Settings, Shape, as_json, check_positive, of_json, read_settings
from .naming.deeplab_v2 import HEAD, SCALES, to_canonical
from .naming.scheme import read
from .topology import Table

EXPANSION = 4  # A bottleneck's output has four times its inner width.
MOST_BLOCKS = 999  # A file must not make us list billions of names.


@dataclass(frozen=True, slots=True)
class DeepLabV2Config:
    """Sizes of one DeepLab v2.

    Attributes
    ----------
    classes
        Score channels, background included, void not.
    blocks
        Bottlenecks in each of the four stages; ``(3, 4, 23, 3)`` is ResNet-101.
    stem, widths
        Channels of the first convolution and inner channels of each stage.
    rates
        Dilations of the head's parallel 3x3 convolutions, whose scores are summed.
    scales
        Input scales whose scores are fused by their maximum; ``(1.0,)`` is single-scale.

    """

    classes: int = 21
    blocks: tuple[int, int, int, int] = (3, 4, 23, 3)
    stem: int = 64
    widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    rates: tuple[int, ...] = (6, 12, 18, 24)
    scales: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        """Refuse what nothing can be computed of."""
        check_positive(rates=self.rates, scales=self.scales)
        if not self.scales or max(self.blocks) > MOST_BLOCKS:
            raise MismatchError(
                f"model config: scales {self.scales}, blocks {self.blocks}, expected a scale, and "
                f"at most {MOST_BLOCKS} blocks in a stage."
            )

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "DeepLabV2Config":
        """Read what `to_json` wrote; raise for keys that are not the config's."""
        return of_json(cls, found)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return as_json(self)


STRIDES = (1, 2, 1, 1)
DILATIONS = (1, 1, 2, 4)
RATES = {1: (12,), 2: (6, 12), 4: (6, 12, 18, 24)}  # By branches, where no graph tells.


def parameters(config: DeepLabV2Config) -> dict[str, Shape]:
    """Return every parameter's canonical name and shape, in the model's order."""
    shapes: dict[str, Shape] = {}
    for module, out, inputs, kernel in _convolutions(config):
        shapes[f"{module}.weight"] = (out, inputs, kernel, kernel)
        if module.startswith(HEAD):
            shapes[f"{module}.bias"] = (out,)
            continue
        norm = norm_of(module)
        for name in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{norm}.{name}"] = (out,)
    return shapes


def norm_of(convolution: str) -> str:
    """Return the batch norm that follows a convolution of the backbone."""
    if convolution.endswith("downsample.0"):
        return convolution[:-1] + "1"
    return convolution.replace(".conv", ".bn")


def _convolutions(config: DeepLabV2Config) -> Iterator[tuple[str, int, int, int]]:
    yield "backbone.conv1", config.stem, 3, 7
    inputs = config.stem
    for stage, (blocks, width) in enumerate(zip(config.blocks, config.widths, strict=True), 1):
        for block in range(blocks):
            at = f"backbone.layer{stage}.{block}"
            yield f"{at}.conv1", width, inputs, 1
            yield f"{at}.conv2", width, width, 3
            yield f"{at}.conv3", width * EXPANSION, width, 1
            if block == 0:
                yield f"{at}.downsample.0", width * EXPANSION, inputs, 1
            inputs = width * EXPANSION
    for index in range(len(config.rates)):
        yield f"{HEAD}convs.{index}", config.classes, inputs, 3


def infer_config(
    shapes: Mapping[str, Shape],
    *,
    rates: tuple[int, ...] | None = None,
    scales: tuple[float, ...] = (1.0,),
) -> DeepLabV2Config:
    """Read the config off canonical names and shapes; `check` then tells whether they fit.

    ``rates`` and ``scales`` are not visible in shapes: give them where the source tells.
    A file without a head gets the standard one for 21 classes.

    Raises
    ------
    MismatchError
        Whole stages of the backbone are missing.

    """
    blocks = [0, 0, 0, 0]
    widths = [0, 0, 0, 0]
    heads: dict[int, int] = {}
    for name, shape in shapes.items():
        if values := read("backbone.layer{s}.{b}.conv1.weight", name):
            stage, block = int(values["stage"]) - 1, int(values["block"])
            if 0 <= stage < 4:
                blocks[stage] = max(blocks[stage], block + 1)
                widths[stage] = shape[0] if shape else 0
        elif values := read(HEAD + "convs.{r}.weight", name):
            heads[int(values["rate"])] = shape[0] if shape else 0
    if 0 in blocks:
        missing = [f"layer{stage}" for stage, count in enumerate(blocks, 1) if not count]
        raise MismatchError(
            f"no weights for whole stages of the backbone ({', '.join(missing)}): the file is a "
            "part of a model. Is it one shard of several, or were too few variables selected?"
        )
    stem = shapes.get("backbone.conv1.weight", (0,))
    return DeepLabV2Config(
        classes=heads.get(0, 21),
        blocks=(blocks[0], blocks[1], blocks[2], blocks[3]),
        stem=stem[0] if stem else 0,
        widths=(widths[0], widths[1], widths[2], widths[3]),
        rates=rates or RATES.get(len(heads), RATES[4]),
        scales=scales,
    )


def told_by_graph(graph: Net) -> Mapping[str, Any]:
    """Read off a graph what shapes do not show: the head's rates, the input scales."""
    rates: dict[int, int] = {}
    scales: set[float] = set()
    for layer in graph.layers:
        if layer.type != "Convolution":
            continue
        found = to_canonical("caffe", layer.name)
        if found is None:
            continue
        module, values = found
        scales.add(SCALES.get(str(values["scale"]), 0.0))
        if module.startswith(HEAD):
            rates[int(values["rate"])] = spatial(layer.params.convolution_param, "dilation", 1)[0]
    known: dict[str, Any] = {}
    if rates and sorted(rates) == list(range(len(rates))):
        known["rates"] = tuple(rates[index] for index in sorted(rates))
    if scales - {0.0}:
        known["scales"] = tuple(sorted(scales - {0.0}, reverse=True))
    return known


def told_by_settings(settings: Settings) -> Mapping[str, Any]:
    """Read what `settings_of` gave."""
    rates = {"rates": lambda values: tuple(int(rate) for rate in values)}
    scales = {"scales": lambda values: tuple(map(float, values))}
    return read_settings(settings, {**rates, **scales})


def settings_of(config: DeepLabV2Config) -> Settings:
    """Return what of a config shapes do not show."""
    return {"scales": config.scales, "rates": tuple(map(float, config.rates))}


def summary(config: DeepLabV2Config) -> str:
    """Say a config in a line."""
    form = "multi-scale" if len(config.scales) > 1 else "single-scale"
    return f"DeepLab v2, blocks {config.blocks}, {config.classes} classes, {form}"


def network(table: Table, config: DeepLabV2Config, bn_eps: float) -> int:
    """Enter the network's computation, from image to fused scores, into ``table``.

    Returns the node of the scores. Shared weights appear once per scale, with the same name.
    """
    data = table.add("input")
    scores = []
    for scale in config.scales:
        if scale == 1:
            scores.append(_branch(table, data, config, bn_eps))
            continue
        factor = Fraction(scale).limit_denominator(64)
        shrunk = table.add("resize", inputs=(data,), factor=factor)
        branch = _branch(table, shrunk, config, bn_eps)
        scores.append(table.add("resize", inputs=(branch,), factor=1 / factor))
    return scores[0] if len(scores) == 1 else table.add("max", inputs=scores)


def _branch(table: Table, x: int, config: DeepLabV2Config, bn_eps: float) -> int:
    def convolution(name: str, x: int, kernel: int, stride: int, pad: int, rate: int) -> int:
        return table.add(
            "convolution",
            name,
            (x,),
            kernel=(kernel, kernel),
            stride=(stride, stride),
            pad=(pad, pad),
            dilation=(rate, rate),
            group=1,
        )

    def normalised(name: str, x: int, kernel: int, stride: int, pad: int, rate: int) -> int:
        x = convolution(name, x, kernel, stride, pad, rate)
        x = table.add("normalise", norm_of(name), (x,), eps=bn_eps)
        return table.add("affine", norm_of(name), (x,))

    x = table.add("relu", inputs=(normalised("backbone.conv1", x, 7, 2, 3, 1),))
    x = table.add("max-pool", inputs=(x,), kernel=(3, 3), stride=(2, 2), pad=(1, 1), round="ceil")
    for stage in range(4):
        for block in range(config.blocks[stage]):
            at = f"backbone.layer{stage + 1}.{block}"
            stride = STRIDES[stage] if block == 0 else 1
            rate = DILATIONS[stage]
            y = table.add("relu", inputs=(normalised(f"{at}.conv1", x, 1, stride, 0, 1),))
            y = table.add("relu", inputs=(normalised(f"{at}.conv2", y, 3, 1, rate, rate),))
            y = normalised(f"{at}.conv3", y, 1, 1, 0, 1)
            if block == 0:
                x = normalised(f"{at}.downsample.0", x, 1, stride, 0, 1)
            x = table.add("relu", inputs=(table.add("sum", inputs=(x, y)),))
    branches = [
        convolution(f"{HEAD}convs.{index}", x, 3, 1, rate, rate)
        for index, rate in enumerate(config.rates)
    ]
    return branches[0] if len(branches) == 1 else table.add("sum", inputs=branches)

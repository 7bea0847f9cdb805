"""DeepLab LargeFOV (VGG16) stated once: its config, its parameters' shapes, its computation.

The VGG nets of DeepLab v1 and v2: LargeFOV, MSC-LargeFOV with its side branches, and the four
parallel heads of DeepLab v2's VGG16. See `deeplab_v2` for who reads this.

Sources: Chen et al., "Semantic Image Segmentation with Deep Convolutional Nets and Fully
Connected CRFs" (LargeFOV, MSC), and "DeepLab" (ASPP-L on VGG16); the prototxts of rloss.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ..proto.errors import MismatchError
from ..proto.records import Net
from .caffe_sizes import spatial
from .family import Settings, Shape, as_json, check_positive, of_json, read_settings
from .naming.largefov import HEAD, NAMING
from .naming.scheme import read
from .topology import Table

CONVOLUTIONS = (2, 2, 3, 3, 3)  # In each stage.
STRIDES = (2, 2, 2, 1, 1)  # Of the pooling after it.
DILATIONS = (1, 1, 1, 1, 2)
TAPS = ("data", "pool1", "pool2", "pool3", "pool4")  # What the side branches read.
ZOOMS = (1, 2, 4, 8, 8)  # From there to the image.
OUTPUT_STRIDE = 8


@dataclass(frozen=True, slots=True)
class LargeFOVConfig:
    """Sizes of one DeepLab LargeFOV.

    Attributes
    ----------
    classes
        Score channels, background included, void not.
    widths
        Channels of the five stages.
    hidden
        Channels of fc6 and fc7.
    kernel
        Of fc6; 3 since LargeFOV, 4 or 7 in the first DeepLabs.
    rates
        Dilations of the parallel fc6, whose branches' scores are summed; ``(12,)`` is
        LargeFOV, ``(6, 12, 18, 24)`` DeepLab v2's.
    average
        Whether a 3x3 average follows the last pooling (LargeFOV has it, DeepLab v2 not).
    sides
        Channels of the side branches of MSC-LargeFOV; 0 is without.

    """

    classes: int = 21
    widths: tuple[int, int, int, int, int] = (64, 128, 256, 512, 512)
    hidden: int = 1024
    kernel: int = 3
    rates: tuple[int, ...] = (12,)
    average: bool = True
    sides: int = 0

    def __post_init__(self) -> None:
        """Refuse what nothing can be computed of."""
        check_positive(rates=self.rates)

    @property
    def scales(self) -> tuple[float, ...]:
        """The image's own, for who reads any family's config."""
        return (1.0,)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "LargeFOVConfig":
        """Read what `to_json` wrote; raise for keys that are not the config's."""
        return of_json(cls, found)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return as_json(self)


def parameters(config: LargeFOVConfig) -> dict[str, Shape]:
    """Return every parameter's canonical name and shape, in the model's order."""
    shapes: dict[str, Shape] = {}
    for module, out, inputs, kernel in _convolutions(config):
        shapes[f"{module}.weight"] = (out, inputs, kernel, kernel)
        shapes[f"{module}.bias"] = (out,)
    return shapes


def _convolutions(config: LargeFOVConfig) -> Iterator[tuple[str, int, int, int]]:
    inputs = 3
    for stage, (count, width) in enumerate(zip(CONVOLUTIONS, config.widths, strict=True), 1):
        for index in range(1, count + 1):
            yield f"backbone.conv{stage}_{index}", width, inputs, 3
            inputs = width
    heads = range(len(config.rates))
    for index in heads:
        yield f"backbone.fc6.{index}", config.hidden, inputs, config.kernel
    for index in heads:
        yield f"backbone.fc7.{index}", config.hidden, config.hidden, 1
    for index in heads:
        yield f"{HEAD}fc8.{index}", config.classes, config.hidden, 1
    if not config.sides:
        return
    for tap, width in zip(TAPS, (3, *config.widths), strict=False):
        yield f"{HEAD}sides.{tap}.conv", config.sides, width, 3
        yield f"{HEAD}sides.{tap}.fc", config.sides, config.sides, 1
        yield f"{HEAD}sides.{tap}.score", config.classes, config.sides, 1


def infer_config(
    shapes: Mapping[str, Shape],
    *,
    rates: tuple[int, ...] | None = None,
    average: bool | None = None,
    sides: int | None = None,
) -> LargeFOVConfig:
    """Read the config off canonical names and shapes; `check` then tells whether they fit.

    Shapes do not show ``rates`` and ``average``: give them where the source tells. A file
    without a head gets the standard one for 21 classes, with side branches as told.

    Raises
    ------
    MismatchError
        Whole stages of the backbone are missing.

    """

    def width(name: str) -> int:
        return next(iter(shapes.get(f"{name}.weight", ())), 0)

    widths = tuple(width(f"backbone.conv{stage}_1") for stage in range(1, 6))
    found = [f"conv{stage}_1" for stage, one in enumerate(widths, 1) if not one]
    found += [] if width("backbone.fc6.0") else ["fc6"]
    if found:
        raise MismatchError(
            f"no weights for {', '.join(found)}: the file is a part of a model, or of another VGG."
        )
    heads = sum(read("backbone.fc6.{r}.weight", name) is not None for name in shapes)
    kernel = shapes["backbone.fc6.0.weight"][-1]
    standard = {1: (12,) if kernel == 3 else (4,), 4: (6, 12, 18, 24)}
    return LargeFOVConfig(
        classes=width(f"{HEAD}fc8.0") or 21,
        widths=(widths[0], widths[1], widths[2], widths[3], widths[4]),
        hidden=width("backbone.fc6.0"),
        kernel=kernel,
        rates=rates or standard.get(heads, (12,) * heads),
        average=heads == 1 if average is None else average,
        sides=width(f"{HEAD}sides.data.conv") or sides or 0,
    )


def told_by_graph(graph: Net) -> Mapping[str, Any]:
    """Read off a graph what shapes do not show."""
    rates: dict[int, int] = {}
    told: dict[str, Any] = {"average": False}
    for layer in graph.layers:
        if layer.type == "Pooling" and layer.name == "pool5a":
            told["average"] = True
        found = NAMING.to_canonical("caffe", layer.name)
        if layer.type != "Convolution" or found is None:
            continue
        settings = layer.params.convolution_param
        if found[0].startswith("backbone.fc6."):
            rates[int(found[1]["rate"])] = spatial(settings, "dilation", 1)[0]
        elif found[0] == f"{HEAD}sides.data.conv":
            told["sides"] = settings.num_output
    if rates and sorted(rates) == list(range(len(rates))):
        told["rates"] = tuple(rates[index] for index in sorted(rates))
    return told


def told_by_settings(settings: Settings) -> Mapping[str, Any]:
    """Read what `settings_of` gave."""
    # The scales are another program's habit; this family has one.
    kept = {name: values for name, values in settings.items() if name != "scales"}
    return read_settings(
        kept,
        {
            "rates": lambda values: tuple(int(rate) for rate in values),
            "average": lambda values: bool(values[0]),
        },
    )


def settings_of(config: LargeFOVConfig) -> Settings:
    """Return what of a config shapes do not show."""
    return {"rates": tuple(map(float, config.rates)), "average": (float(config.average),)}


def summary(config: LargeFOVConfig) -> str:
    """Say a config in a line."""
    name = "MSC-LargeFOV" if config.sides else "LargeFOV"
    return f"DeepLab {name} (VGG16), rates {config.rates}, {config.classes} classes"


def network(table: Table, config: LargeFOVConfig, _: float) -> int:
    """Enter the network's computation, from image to scores, into ``table``.

    Returns the node of the scores: at an eighth of the image's size, or with side branches at
    its own.
    """

    def convolution(name: str, x: int, kernel: int, rate: int) -> int:
        pad = rate * (kernel - 1) // 2
        return table.add(
            "convolution",
            name,
            (x,),
            kernel=(kernel, kernel),
            stride=(1, 1),
            pad=(pad, pad),
            dilation=(rate, rate),
            group=1,
        )

    def rectified(name: str, x: int, kernel: int, rate: int = 1) -> int:
        return table.add("relu", inputs=(convolution(name, x, kernel, rate),))

    def pooled(method: str, x: int, stride: int) -> int:
        return table.add(
            f"{method}-pool",
            inputs=(x,),
            kernel=(3, 3),
            stride=(stride, stride),
            pad=(1, 1),
            round="ceil",
        )

    x = table.add("input")
    taps = [x]
    for stage, count in enumerate(CONVOLUTIONS, 1):
        for index in range(1, count + 1):
            x = rectified(f"backbone.conv{stage}_{index}", x, 3, DILATIONS[stage - 1])
        x = pooled("max", x, STRIDES[stage - 1])
        taps.append(x)
    if config.average:
        x = pooled("ave", x, 1)
    heads = []
    for index, rate in enumerate(config.rates):
        y = rectified(f"backbone.fc6.{index}", x, config.kernel, rate)
        y = rectified(f"backbone.fc7.{index}", y, 1)
        heads.append(convolution(f"{HEAD}fc8.{index}", y, 1, 1))
    scores = heads[0] if len(heads) == 1 else table.add("sum", inputs=heads)
    if not config.sides:
        return scores
    parts = [table.add("resize", inputs=(scores,), factor=Fraction(OUTPUT_STRIDE))]
    for tap, node, zoom in zip(TAPS, taps, ZOOMS, strict=False):
        y = rectified(f"{HEAD}sides.{tap}.conv", node, 3)
        y = rectified(f"{HEAD}sides.{tap}.fc", y, 1)
        y = convolution(f"{HEAD}sides.{tap}.score", y, 1, 1)
        parts.append(y if zoom == 1 else table.add("resize", inputs=(y,), factor=Fraction(zoom)))
    return table.add("sum", inputs=parts)

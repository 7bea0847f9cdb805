"""DeepLab v3 and v3+ stated once: config, styles, and the network as units.

Every program that published weights built the paper's net a little differently. What differs
is a `Style` (see `styles`); the rest is stated here for all of them.

Sources: Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation" (v3), and
"Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation" (v3+).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from ..proto.errors import MismatchError, UsageError
from .family import Settings, Shape, as_json, check_positive, of_json, read_settings
from .naming.deeplab_v3 import AUXILIARY, HEAD, PROGRAMS
from .styles import STYLES, rule
from .units import Backbone, Chain, Conv, Drop, Pyramid, Unit, convolutions, separable
from .units import parameters as parameters_of


@dataclass(frozen=True, slots=True)
class DeepLabV3Config:
    """Sizes of one DeepLab v3 or v3+.

    Attributes
    ----------
    classes
        Score channels, background included, void not.
    style
        Whose net it is, see `STYLES`: ``jfzhang95`` (rloss too), ``torchvision``,
        ``openmmlab``, ``pytorchcv``, ``tensorflow``.
    backbone
        See the style's ``backbones``.
    decoder
        Whether v3+'s decoder follows.
    output_stride
        8 or 16: how many pixels of the image a feature stands for.
    rates
        Dilations of the pyramid's 3x3 branches; empty where there are none.
    auxiliary
        Whether there is a second head, on an earlier stage.
    width
        Every number of channels is multiplied by this, but not the classes.

    """

    classes: int = 21
    style: str = "jfzhang95"
    backbone: str = "resnet101"
    decoder: bool = True
    output_stride: int = 16
    rates: tuple[int, ...] = (6, 12, 18)
    auxiliary: bool = False
    width: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what no program built."""
        if self.style not in STYLES:
            raise UsageError(f"style {self.style!r}, expected one of {', '.join(STYLES)}.")
        known = STYLES[self.style].backbones
        if self.backbone not in known:
            raise UsageError(f"backbone {self.backbone!r}: {self.style} has {', '.join(known)}.")
        if self.output_stride not in (8, 16):
            raise UsageError(f"output stride {self.output_stride}, expected 8 or 16.")
        check_positive(rates=self.rates, width=(self.width,))

    @property
    def scales(self) -> tuple[float, ...]:
        """The image's own, for who reads any family's config."""
        return (1.0,)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "DeepLabV3Config":
        """Read what `to_json` wrote; raise for keys that are not the config's."""
        return of_json(cls, found)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return as_json(self)


@dataclass(frozen=True, slots=True)
class Network:
    """The net: features, the pyramid on them, a decoder where there is one, scores.

    Attributes
    ----------
    backbone, pyramid
        See `Backbone`, `Pyramid`.
    low
        What the decoder makes of the backbone's early features; None without a decoder.
    refine
        Between pyramid (with ``low`` beside it) and scores.
    score, auxiliary
        Class scores, of the net and of its auxiliary head.

    """

    backbone: Backbone
    pyramid: Pyramid
    low: Conv | None
    refine: Chain
    score: Conv
    auxiliary: Chain | None

    def parts(self) -> dict[str, Unit]:
        """Return the parts with parameters by their names in the model, in its order."""
        head: dict[str, Unit | None] = {
            "backbone": self.backbone.body,
            f"{HEAD}pyramid": self.pyramid,
            f"{HEAD}low": self.low,
            f"{HEAD}refine": self.refine,
            f"{HEAD}score": self.score,
            AUXILIARY.removesuffix("."): self.auxiliary,
        }
        return {name: part for name, part in head.items() if part is not None}


def network(config: DeepLabV3Config) -> Network:
    """State the network of a config."""
    style = STYLES[config.style]
    width = rule(config.width)
    backbone = style.backbones[config.backbone](config.output_stride, width)
    channels = width(style.channels)
    in_two = style.separable and config.decoder
    conv = partial(Conv, eps=style.eps)
    conv3x3 = partial(_3x3, in_two=in_two, eps=style.eps)
    branches: list[Unit] = [conv(backbone.channels, channels)]
    for rate in config.rates:
        branches.append(conv3x3(backbone.channels, channels, rate=rate))
    pooled = conv(backbone.channels, channels)
    joined = (len(branches) + 1) * channels
    project = conv(joined, channels, style.project)
    pyramid = Pyramid(tuple(branches), pooled, style.pool_first, project)
    after, between, last = map(Drop, style.drop)
    low = None
    refine: list[tuple[str, Unit]] = [("drop", after)]
    if config.decoder:
        low = conv(backbone.low_channels, width(48))
        refine += [
            ("0", conv3x3(channels + low.outputs, channels)),
            ("drop0", between),
            ("1", conv3x3(channels, channels)),
        ]
    else:
        refine += [(str(index), conv(channels, channels, 3)) for index in range(style.hidden)]
    refine.append(("drop1", last))
    auxiliary = None
    if config.auxiliary:
        inner = style.auxiliary(backbone.side_channels)
        auxiliary = Chain((
            ("conv", Conv(backbone.side_channels, inner, 3)),
            ("score", Conv(inner, config.classes, norm=False, activation=None)),
        ))  # fmt: skip
    score = Conv(channels, config.classes, norm=False, activation=None)
    return Network(backbone, pyramid, low, Chain(tuple(refine)), score, auxiliary)


def _3x3(inputs: int, outputs: int, *, in_two: bool, eps: float | None, rate: int = 1) -> Unit:
    if in_two:
        return separable(inputs, outputs, rate=rate, eps=eps)
    return Conv(inputs, outputs, 3, rate=rate, eps=eps)


def parameters(config: DeepLabV3Config) -> dict[str, Shape]:
    """Return every parameter's canonical name and shape, in the model's order."""
    return {
        name: shape
        for at, part in network(config).parts().items()
        for name, shape in parameters_of(part, at)
    }


def infer_config(
    shapes: Mapping[str, Shape],
    *,
    style: str | None = None,
    output_stride: int | None = None,
    rates: tuple[int, ...] | None = None,
) -> DeepLabV3Config:
    """Read the config off canonical names and shapes; `check` then tells whether they fit.

    Shapes show neither ``output_stride`` nor ``rates``: without them they are those of the
    style's published weights. A file without a head gets the standard one for 21 classes.

    Raises
    ------
    MismatchError
        No net of the style, or of any, has these names.

    """
    names = set(shapes)
    head = {name for name in names if name.startswith((f"{HEAD}score.", AUXILIARY))}
    decoder = any(name.startswith(f"{HEAD}low.") for name in names)
    pooled = (shapes.get(f"{HEAD}pyramid.pool.conv.weight") or (0,))[0]
    classes = (shapes.get(f"{HEAD}score.conv.weight") or (21,))[0]
    auxiliary = any(name.startswith(AUXILIARY) for name in names)
    atrous = any(name.startswith(f"{HEAD}pyramid.branches.1.") for name in names)
    nets = [net for net in _nets(decoder) if style in (None, net[0])]
    for known, kind in nets:
        if _names(known, kind, decoder, atrous) != names - head:
            continue
        published = STYLES[known]
        stride = output_stride or published.stride_of(kind)
        return DeepLabV3Config(
            classes=classes,
            style=known,
            backbone=kind,
            decoder=decoder,
            output_stride=stride,
            rates=(rates or published.rates_at(stride)) if atrous else (),
            auxiliary=auxiliary,
            width=(pooled or published.channels) / published.channels,
        )
    whose = f"of {style}'s DeepLab v3 or v3+" if style else "DeepLab v3 or v3+"
    raise MismatchError(
        f"{len(names)} names of parameters are not those of any net {whose} "
        f"({', '.join(map(' '.join, nets))}). Is the file a part of a model?"
    )


@cache
def _nets(decoder: bool) -> tuple[tuple[str, str], ...]:
    return tuple(
        (name, backbone)
        for name, style in STYLES.items()
        for backbone in style.backbones
        if style.decoder in (None, decoder)
    )


@cache
def _names(style: str, backbone: str, decoder: bool, atrous: bool) -> frozenset[str]:
    """Return the names of a net's parameters but of its scores."""
    published = STYLES[style]
    config = DeepLabV3Config(
        style=style,
        backbone=backbone,
        decoder=decoder,
        output_stride=published.stride_of(backbone),
        rates=published.rates if atrous else (),
    )
    return frozenset(name for name in parameters(config) if not name.startswith(f"{HEAD}score."))


def told_by_layout(layout: str) -> Mapping[str, Any]:
    """Tell whose net a state dict is by its names: a style's own layouts are called after it."""
    style = layout.partition("-")[0]
    return {"style": style} if style in STYLES else {}


def layouts_of(config: DeepLabV3Config) -> tuple[str, ...]:
    """Return the layouts that a state dict can be written in."""
    return ("canonical", *(one for one in PROGRAMS if one.partition("-")[0] == config.style))


def dilations(config: DeepLabV3Config) -> dict[str, int]:
    """Return the rates of the convolutions that are dilated, by their modules' names."""
    return {
        f"{name}.conv": conv.rate
        for at, part in network(config).parts().items()
        for name, conv in convolutions(part, at)
        if conv.rate > 1
    }


def told_by_settings(settings: Settings) -> Mapping[str, Any]:
    """Read what `settings_of` gave."""
    if tuple(settings.get("scales", (1.0,))) != (1.0,):
        raise UsageError("DeepLab v3 and v3+ run at one scale. Leave --multi-scale out.")
    kept = {name: values for name, values in settings.items() if name != "scales"}
    return read_settings(
        kept,
        {
            "style": str,
            "output_stride": lambda values: int(values[0]),
            "rates": lambda values: tuple(int(rate) for rate in values),
        },
    )


def settings_of(config: DeepLabV3Config) -> Settings:
    """Return what of a config shapes do not show."""
    return {
        "style": config.style,
        "output_stride": (float(config.output_stride),),
        "rates": tuple(map(float, config.rates)),
    }


def summary(config: DeepLabV3Config) -> str:
    """Say a config in a line."""
    name = "DeepLab v3+" if config.decoder else "DeepLab v3"
    return (
        f"{name} ({config.backbone}, {config.style}'s), output stride {config.output_stride}, "
        f"{config.classes} classes"
    )

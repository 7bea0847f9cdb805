"""The parts that modern segmentation networks are made of, as records.

A network is stated once, as a tree of these: its parameters are read off the tree, and the
torch module of ``zoo/models/units`` is built from it. A part's name in its chain is its
module's name.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from .family import Shape

Activation = Literal["relu", "relu6", "hardswish", "hardsigmoid"]


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution, then its batch norm, then its activation.

    Attributes
    ----------
    inputs, outputs, kernel, stride, rate, groups
        Of the convolution; ``rate`` is its dilation.
    norm
        Whether a batch norm follows; a convolution without one has a bias.
    activation
        What follows last, None for nothing.
    eps
        The batch norm's epsilon where it is not the profile's.
    padding
        ``profile``: as the profile says; ``explicit``: half the kernel on every side;
        ``same``: TensorFlow's; ``none``: a `Pad` stands before.

    """

    inputs: int
    outputs: int
    kernel: int = 1
    stride: int = 1
    rate: int = 1
    groups: int = 1
    norm: bool = True
    activation: Activation | None = "relu"
    eps: float | None = None
    padding: Literal["profile", "explicit", "same", "none"] = "profile"


@dataclass(frozen=True, slots=True)
class Pool:
    """A maximum over 3x3 pixels, every second one."""


@dataclass(frozen=True, slots=True)
class Pad:
    """Zeros on every side."""

    pixels: int


@dataclass(frozen=True, slots=True)
class Activate:
    """An activation that stands alone."""

    activation: Activation = "relu"


@dataclass(frozen=True, slots=True)
class Drop:
    """Dropout, which only a training sees."""

    share: float


@dataclass(frozen=True, slots=True)
class Excite:
    """Squeeze and excitation: channels weighed by two layers on their means (MobileNetV3)."""

    channels: int
    squeezed: int

    @property
    def squeeze(self) -> Conv:
        """The first layer, to few channels."""
        return Conv(self.channels, self.squeezed, norm=False)

    @property
    def expand(self) -> Conv:
        """The second, to a weight for each channel."""
        return Conv(self.squeezed, self.channels, norm=False, activation="hardsigmoid")


@dataclass(frozen=True, slots=True)
class Chain:
    """Parts one after the other, by name."""

    parts: tuple[tuple[str, "Unit"], ...]


@dataclass(frozen=True, slots=True)
class Residual:
    """A chain whose result is added to its input, or to what ``shortcut`` makes of it.

    ``first`` is applied to the input of both ways, ``last`` to the sum.
    """

    parts: tuple[tuple[str, "Unit"], ...]
    shortcut: Conv | None = None
    first: Activation | None = None
    last: Activation | None = None


@dataclass(frozen=True, slots=True)
class Pyramid:
    """Atrous spatial pyramid pooling: parallel branches, put side by side and projected.

    Attributes
    ----------
    branches
        Each sees the whole input.
    pool
        What is made of the input's mean, then spread over its size.
    pool_first
        Whether the mean's channels come before the branches' or after.
    project
        To one width.

    """

    branches: tuple["Unit", ...]
    pool: Conv
    pool_first: bool
    project: Conv


Unit = Conv | Pool | Pad | Activate | Drop | Excite | Chain | Residual | Pyramid


@dataclass(frozen=True, slots=True)
class Backbone:
    """An image's way to features.

    Attributes
    ----------
    body
        Its parts, in order.
    low, low_channels
        The part whose output a decoder takes beside the last, and its channels; ``part.inner``
        is one inside of a part.
    side, side_channels
        The part whose output an auxiliary head reads.
    channels
        Of the last part's output.

    """

    body: Chain
    low: str
    low_channels: int
    side: str
    side_channels: int
    channels: int


def separable(
    inputs: int,
    outputs: int,
    *,
    rate: int = 1,
    stride: int = 1,
    inner: Activation | None = "relu",
    outer: Activation | None = "relu",
    eps: float | None = None,
    padding: Literal["profile", "explicit", "same", "none"] = "profile",
) -> Chain:
    """Return a 3x3 convolution in two steps: each channel alone, then all of one pixel."""
    return Chain((
        ("depthwise", Conv(
            inputs, inputs, 3, stride, rate, inputs, activation=inner, eps=eps, padding=padding
        )),
        ("pointwise", Conv(inputs, outputs, activation=outer, eps=eps)),
    ))  # fmt: skip


def parameters(unit: Unit, at: str) -> Iterator[tuple[str, Shape]]:
    """Yield the name and shape of a unit's every parameter; ``at`` is its own name."""
    for name, conv in convolutions(unit, at):
        kernel = conv.kernel
        yield f"{name}.conv.weight", (conv.outputs, conv.inputs // conv.groups, kernel, kernel)
        if conv.norm:
            for parameter in ("weight", "bias", "running_mean", "running_var"):
                yield f"{name}.norm.{parameter}", (conv.outputs,)
        else:
            yield f"{name}.conv.bias", (conv.outputs,)


def convolutions(unit: Unit, at: str) -> Iterator[tuple[str, Conv]]:
    """Yield a unit's every convolution and its name; ``at`` is the unit's own."""
    match unit:
        case Conv():
            yield at, unit
        case Excite():
            yield f"{at}.squeeze", unit.squeeze
            yield f"{at}.expand", unit.expand
        case Chain(parts):
            for name, part in parts:
                yield from convolutions(part, f"{at}.{name}")
        case Residual(parts, shortcut):
            for name, part in parts:
                yield from convolutions(part, f"{at}.{name}")
            if shortcut is not None:
                yield f"{at}.shortcut", shortcut
        case Pyramid():
            for index, branch in enumerate(unit.branches):
                yield from convolutions(branch, f"{at}.branches.{index}")
            yield f"{at}.pool", unit.pool
            yield f"{at}.project", unit.project
        case Pool() | Pad() | Activate() | Drop():
            return

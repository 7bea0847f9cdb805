"""The units of ``converters/units`` as torch modules, one each."""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...converters import units
from ...converters.numerics import Numerics
from .resampling import pad_same

ACTIVATIONS = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hardswish": nn.Hardswish,
    "hardsigmoid": nn.Hardsigmoid,
}


def build(unit: units.Unit, numerics: Numerics) -> nn.Module:
    """Make the module that a unit states."""
    match unit:
        case units.Conv():
            return Conv(unit, numerics)
        case units.Pool():
            return Pool(same=numerics.padding == "same")
        case units.Pad(pixels):
            return nn.ZeroPad2d(pixels)
        case units.Activate(activation):
            return ACTIVATIONS[activation]()
        case units.Drop(share):
            return nn.Dropout(share)
        case units.Excite():
            return Excite(unit, numerics)
        case units.Chain(parts):
            return chain(parts, numerics)
        case units.Residual():
            return Residual(unit, numerics)
        case units.Pyramid():
            return Pyramid(unit, numerics)


def chain(parts: tuple[tuple[str, units.Unit], ...], numerics: Numerics) -> nn.Sequential:
    """Make modules that run one after the other, under their names."""
    return nn.Sequential(OrderedDict((name, build(part, numerics)) for name, part in parts))


class Conv(nn.Module):
    """A convolution, then its batch norm, then its activation."""

    def __init__(self, unit: units.Conv, numerics: Numerics) -> None:
        super().__init__()
        padding = numerics.padding if unit.padding == "profile" else unit.padding
        strided = padding == "same" and unit.stride > 1  # Else SAME pads both sides alike.
        self.same = (unit.rate * (unit.kernel - 1) + 1, unit.stride) if strided else None
        pad = 0 if strided or padding == "none" else unit.rate * (unit.kernel // 2)
        self.conv = nn.Conv2d(
            unit.inputs,
            unit.outputs,
            unit.kernel,
            unit.stride,
            pad,
            unit.rate,
            unit.groups,
            bias=not unit.norm,
        )
        eps = numerics.bn_eps if unit.eps is None else unit.eps
        self.norm = nn.BatchNorm2d(unit.outputs, eps) if unit.norm else None
        self.activation = ACTIVATIONS[unit.activation]() if unit.activation else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, h, w) to (batch, outputs, h / stride, w / stride)."""
        if self.same is not None:
            x = pad_same(x, *self.same)
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        return x if self.activation is None else self.activation(x)


class Pool(nn.Module):
    """A maximum over 3x3 pixels, every second one."""

    def __init__(self, *, same: bool) -> None:
        super().__init__()
        self.same = same

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, h, w) to half of the size, rounded up."""
        if self.same:
            return functional.max_pool2d(pad_same(x, 3, 2, -torch.inf), 3, 2)
        return functional.max_pool2d(x, 3, 2, 1)


class Excite(nn.Module):
    """Squeeze and excitation: channels weighed by two layers on their means."""

    def __init__(self, unit: units.Excite, numerics: Numerics) -> None:
        super().__init__()
        self.squeeze = Conv(unit.squeeze, numerics)
        self.expand = Conv(unit.expand, numerics)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (batch, channels, h, w)."""
        weights: Tensor = self.expand(self.squeeze(x.mean((2, 3), keepdim=True)))
        return x * weights


class Residual(nn.Module):
    """A chain whose result is added to its input, or to what the shortcut makes of it."""

    def __init__(self, unit: units.Residual, numerics: Numerics) -> None:
        super().__init__()
        parts = [(name, build(part, numerics)) for name, part in unit.parts]
        self.main = [name for name, _ in parts]
        for name, part in parts:
            self.add_module(name, part)
        self.shortcut = Conv(unit.shortcut, numerics) if unit.shortcut else None
        self.first = ACTIVATIONS[unit.first]() if unit.first else None
        self.last = ACTIVATIONS[unit.last]() if unit.last else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, h, w) to (batch, outputs, h / stride, w / stride)."""
        return self.tapped(x, "")[0]

    def tapped(self, x: Tensor, tap: str) -> tuple[Tensor, Tensor]:
        """Return the result, and what the part called ``tap`` gave on the way."""
        if self.first is not None:
            x = self.first(x)
        y = seen = x
        for name in self.main:
            y = self.get_submodule(name)(y)
            if name == tap:
                seen = y
        y = y + (x if self.shortcut is None else self.shortcut(x))
        return y if self.last is None else self.last(y), seen


class Pyramid(nn.Module):
    """Atrous spatial pyramid pooling: parallel branches, put side by side and projected."""

    def __init__(self, unit: units.Pyramid, numerics: Numerics) -> None:
        super().__init__()
        self.pool_first = unit.pool_first
        self.branches = nn.ModuleList(build(branch, numerics) for branch in unit.branches)
        self.pool = Conv(unit.pool, numerics)
        self.project = Conv(unit.project, numerics)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, h, w) to (batch, outputs, h, w)."""
        seen = [branch(x) for branch in self.branches]
        pooled = self.pool(x.mean((2, 3), keepdim=True))
        pooled = pooled.expand(-1, -1, *x.shape[2:])  # What any bilinear grid makes of one pixel.
        joined = torch.cat([pooled, *seen] if self.pool_first else [*seen, pooled], 1)
        projected: Tensor = self.project(joined)
        return projected

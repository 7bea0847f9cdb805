"""A native model becomes one that only infers, and does so quicker.

Its batch norms are folded into its convolutions, images lie in memory channels last, and
convolutions compute in bfloat16 where the device has matrix units for it; if wanted it is
compiled. What reads what is found by watching the model work on a small image, so nothing
here knows an architecture.

Parity: in float32 scores stay within 1e-5 (relative L2) of the plain model's. In bfloat16 they
stay within 2 %, and the class of a pixel is the same on 99.5 % of the pixels for trained
weights, on 99 % for the random ones of the reference runs, whose margins are tiny.
"""

import copy
from collections import defaultdict
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ...proto.errors import UsageError
from . import inference

if TYPE_CHECKING:
    from .load import Native

Optimize = Literal["inference", "compiled"]
Precision = Literal["fp32", "bf16"]
WATCHED = 33  # Height and width of the image that is watched: k 32 + 1, as small as all take.
# They pass values on and compute none.
CARRIERS = nn.ReLU | nn.ReLU6 | nn.MaxPool2d | nn.Dropout | nn.Identity


class Optimized(nn.Module):
    """A native model's function, for inference alone: `load(..., optimize="inference")`.

    Images and scores are float32, as the plain model's; ``config`` and ``numerics`` are its
    own. The weights are not: it cannot be saved, exported or trained, which raise
    `UsageError`. Do that with the plain model.
    """

    def __init__(self, net: "Native", precision: Precision) -> None:
        super().__init__()
        self.net = net
        self.config, self.numerics, self.precision = net.config, net.numerics, precision

    def forward(self, image: Tensor) -> Tensor:
        """Score every class, see the model's own ``forward``."""
        scores: Tensor = self.net(image.to(memory_format=torch.channels_last))
        return scores.to(torch.float32, copy=True)  # A GPU's graph uses its own memory again.

    def predict(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Segment a photo, see `inference.predict`."""
        return inference.predict(self, image, self.numerics)

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode; raise `UsageError` for training."""
        if mode:
            raise UsageError("model: is optimised for inference. Load it again to train it.")
        return super().train(mode)

    def state_dict(self, *_: Any, **__: Any) -> NoReturn:
        """Raise `UsageError`: the folded weights are no longer the model's."""
        raise UsageError("model: is optimised for inference. Load it again to save its weights.")


class Narrow(nn.Module):
    """A convolution that computes in bfloat16, and hands that on only to another one."""

    def __init__(self, convolution: nn.Conv2d, *, hand_on: bool) -> None:
        super().__init__()
        self.convolution = convolution.to(torch.bfloat16)
        self.hand_on = hand_on

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (batch, channels, h, w), rounded to bfloat16; sums over it are float32."""
        y: Tensor = self.convolution(x.to(torch.bfloat16))
        return y if self.hand_on else y.float()


def optimized(
    model: "Native",
    device: torch.device,
    optimize: Optimize = "inference",
    precision: Precision | None = None,
) -> Optimized:
    """Return a quicker copy of a model on a device; the model is not changed.

    ``compiled`` hands it to ``torch.compile`` as well, for many images of a few sizes: the
    first of each size takes half a minute, with three scales more, and the ninth size and
    later ones run uncompiled. Without a ``precision`` it is bfloat16 where that is quicker.

    Raises
    ------
    UsageError
        The model is optimised already, or a name is unknown.

    """
    precision = precision or quickest(device)
    for given, known in ((optimize, Optimize), (precision, Precision)):
        if given not in get_args(known):
            raise UsageError(f"{given!r} is unknown, expected {' or '.join(get_args(known))}.")
    net = folded(model)
    if precision == "bf16":
        _narrow(net)
    net.requires_grad_(False).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if optimize == "compiled":
        # Frozen weights are packed once for the CPU's kernels; graphs of a GPU spare launches.
        option = "triton.cudagraphs" if device.type == "cuda" else "freezing"
        net.compile(dynamic=False, options={option: True})
    return Optimized(net, precision).eval()


def quickest(device: torch.device) -> Precision:
    """Return bf16 where a device has matrix units for it, else fp32.

    A CPU's vector instructions for bfloat16 are not enough: with AVX-512 BF16 alone, without
    AMX, a convolution takes twice as long as in float32 (benchmarks/inference_speed.py).
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    return "bf16" if device.type == "cpu" and torch.cpu._is_amx_tile_supported() else "fp32"


def folded(model: "Native") -> "Native":
    """Return a copy in float32 on the CPU, each batch norm folded into its convolution."""
    if isinstance(model, Optimized):
        raise UsageError("model: is optimised for inference already, expected a plain one.")
    net = copy.deepcopy(model).cpu().float().eval()
    for name, norm in _watch(net)[0].items():
        pair: Any = net.get_submodule(name), net.get_submodule(norm)
        net.set_submodule(name, fuse_conv_bn_eval(*pair))
        net.set_submodule(norm, nn.Identity())
    return net


def _narrow(net: "Native") -> None:
    """Have every convolution compute in bfloat16.

    What only another convolution reads stays so. Sums, as those of residual blocks, are
    float32: to round each of 33 costs more precision than all convolutions do.
    """
    handed = _watch(net)[1]
    for name, module in list(net.named_modules()):
        if isinstance(module, nn.Conv2d):
            net.set_submodule(name, Narrow(module, hand_on=name in handed))


@torch.inference_mode()
def _watch(net: nn.Module) -> tuple[dict[str, str], set[str]]:
    """Run a net on a small image and see what its convolutions are followed by.

    Returns the batch norm of each convolution that nothing else reads, and the convolutions
    that others read, with no more than rectifying and pooling in between.
    """
    readers: dict[str, set[str]] = defaultdict(set)
    givers: dict[str, set[str | None]] = defaultdict(set)
    handed: set[str] = set()
    raw: dict[int, str] = {}  # By a tensor's id, the convolution that it came out of just now,
    carried: dict[int, str] = {}  # or before it was carried on.
    alive: list[Tensor] = []  # Or their ids could be given to others.

    def see(name: str, module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        alive.append(output)
        source, origin = raw.get(id(given[0])), carried.get(id(given[0]))
        if source:
            readers[source].add(name)
        if isinstance(module, nn.BatchNorm2d):
            givers[name].add(source)
        elif isinstance(module, nn.Conv2d):
            if origin:
                handed.add(origin)
            carried[id(output)] = name
            if type(module) is nn.Conv2d:  # Another kind may do more than convolve.
                raw[id(output)] = name
        elif origin:
            raw.pop(id(output), None)  # Where it works in place, this is the same tensor.
            carried[id(output)] = origin

    with ExitStack() as hooks:
        for name, module in net.named_modules():
            if isinstance(module, nn.Conv2d | nn.BatchNorm2d | CARRIERS):
                hooks.enter_context(module.register_forward_hook(partial(see, name)))
        net(torch.zeros(1, 3, WATCHED, WATCHED))
    norms = {}
    for norm, sources in givers.items():
        (one,) = sources if len(sources) == 1 else (None,)
        if one and readers[one] == {norm}:
            norms[one] = norm
    return norms, handed

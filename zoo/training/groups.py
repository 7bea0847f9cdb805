"""Which parameters learn how fast: factors by kind of parameter, as each ancestor has them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from ...converters.naming.deeplab_v2 import HEAD
from ...proto.errors import UsageError


@dataclass(frozen=True, slots=True)
class Factors:
    """What the base rate and the weight decay are multiplied by."""

    rate: float
    decay: float


@dataclass(frozen=True, slots=True)
class Groups:
    """One ancestor's factors; biases of a backbone without BatchNorm are Caffe's VGG's."""

    backbone: Factors
    backbone_bias: Factors
    norm: Factors
    head: Factors
    head_bias: Factors


F = Factors

#                        backbone     its biases   BatchNorm    head         its biases
GROUPS = {
    # train.prototxt: lr_mult 1, 10, 20; decay_mult 1, 1, 0.
    "caffe":           Groups(F(1, 1),   F(2, 0),   F(1, 0),     F(10, 1),    F(20, 0)),
    # train.py: three optimizers; the L2 term is of the variables called weights.
    "drsleep":         Groups(F(1, 1),   F(2, 0),   F(1, 0),     F(10, 1),    F(20, 0)),
    # train.py: get_1x_lr_params_NOscale, get_10x_lr_params; biases are not told apart.
    "isht7":           Groups(F(1, 1),   F(1, 1),   F(1, 1),     F(10, 1),    F(10, 1)),
    # train_pytorch.py: backbone at a tenth; no decay is set.
    "jaccard-segment": Groups(F(0.1, 1), F(0.1, 1), F(0.1, 1),   F(1, 1),     F(1, 1)),
    # train_withdensecrfloss.py: get_1x_lr_params, get_10x_lr_params.
    "rloss":           Groups(F(1, 1),   F(1, 1),   F(1, 1),     F(10, 1),    F(10, 1)),
    # main.py: 1x, 10x, 20x; the 20x group has no decay.
    "kazuto1011":      Groups(F(1, 1),   F(1, 1),   F(1, 1),     F(10, 1),    F(20, 0)),
    "flat":            Groups(F(1, 1),   F(1, 1),   F(1, 1),     F(1, 1),     F(1, 1)),
}  # fmt: skip


def kind_of(name: str, parameter: nn.Parameter) -> str:
    """Return which field of `Groups` a parameter belongs to, by its name and axes."""
    bias = name.endswith(".bias")
    if name.startswith(HEAD):
        return "head_bias" if bias else "head"
    if ".bn" in name or ".downsample.1" in name or ".norm." in name:
        return "norm"
    return "backbone_bias" if bias or parameter.dim() < 2 else "backbone"


def parameter_groups(
    parameters: Iterable[tuple[str, nn.Parameter]], groups: str, weight_decay: float
) -> list[dict[str, Any]]:
    """Return an optimizer's groups of the parameters that are trained.

    Each has ``name``, ``factor`` (of the base rate) and ``weight_decay``, besides ``params``.
    """
    if groups not in GROUPS:
        raise UsageError(f"groups {groups!r} are unknown, expected one of {', '.join(GROUPS)}.")
    held: dict[str, list[nn.Parameter]] = {}
    for name, parameter in _trained(parameters):
        held.setdefault(kind_of(name, parameter), []).append(parameter)
    made = []
    for kind in Groups.__slots__:
        factors: Factors = getattr(GROUPS[groups], kind)
        if kind in held:
            made.append({
                "name": kind,
                "params": held[kind],
                "factor": factors.rate,
                "weight_decay": weight_decay * factors.decay,
            })  # fmt: skip
    return made


def _trained(
    parameters: Iterable[tuple[str, nn.Parameter]],
) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, one) for name, one in parameters if one.requires_grad)

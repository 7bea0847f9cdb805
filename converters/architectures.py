"""Architectures by name: what ``finetune --arch`` and a recipe's ``arch`` mean.

A name stands for a family, the sizes of its config that are not the family's defaults, and the
conventions of the program that the net comes from. Imports nothing heavy: the names stand in the
help. Classes and input scales are a run's own, and no part of an architecture.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from ..proto.errors import MismatchError, UsageError

if TYPE_CHECKING:
    from .family import Config
    from .numerics import Numerics
    from .weights import Weights


@dataclass(frozen=True, slots=True)
class Architecture:
    """One row: a family's name, sizes as its config's JSON has them, a numerics profile's name."""

    family: str
    sizes: Mapping[str, Any]
    numerics: str


_VGG16_ASPP = {"rates": [6, 12, 18, 24], "average": False}
_MOBILENET, _XCEPTION = {"backbone": "mobilenet_v2"}, {"backbone": "xception65"}
_DRN = {"backbone": "drn_d_54", "output_stride": 8, "rates": [12, 24, 36]}

ARCHITECTURES: Mapping[str, Architecture] = {
    "deeplabv2-resnet101": Architecture("deeplab_v2", {}, "caffe-v2"),
    "deeplabv2-resnet50":  Architecture("deeplab_v2", {"blocks": [3, 4, 6, 3]}, "caffe-v2"),
    "deeplabv2-vgg16":     Architecture("largefov", _VGG16_ASPP, "caffe-v2"),
    "largefov":            Architecture("largefov", {}, "caffe-v2"),
    "largefov-msc":        Architecture("largefov", {"sides": 128}, "caffe-v2"),
    # jfzhang95's, which are rloss's.
    "deeplabv3plus-mobilenet": Architecture("deeplab_v3", _MOBILENET, "jfzhang95"),
    "deeplabv3plus-resnet101": Architecture("deeplab_v3", {}, "jfzhang95"),
    "deeplabv3plus-xception":  Architecture("deeplab_v3", _XCEPTION, "jfzhang95"),
    "deeplabv3plus-drn":       Architecture("deeplab_v3", _DRN, "jfzhang95"),
}  # fmt: skip
OWN = ("classes", "scales")  # Keys of a config that are a run's.


def find(name: str) -> Architecture:
    """Return an architecture by its name; raise `UsageError` for none."""
    if name not in ARCHITECTURES:
        near = get_close_matches(name, ARCHITECTURES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"arch {name!r}, expected one of {', '.join(ARCHITECTURES)}.{hint}")
    return ARCHITECTURES[name]


def config_of(name: str) -> "Config":
    """Return the config of an architecture."""
    from . import families

    found = find(name)
    return families.named(found.family, name).config.from_json(found.sizes)


def demand(config: "Config", name: str) -> None:
    """Raise `MismatchError` if a config is another architecture's than the one named."""
    expected = config_of(name)
    if type(config) is not type(expected):
        from . import families

        title = families.of_config(config).title
        raise MismatchError(f"the weights: of a {title}, expected {name} (--arch).")
    sizes, wanted = config.to_json(), expected.to_json()
    differing = [
        f"{key} {sizes[key]}, not {wanted[key]}"
        for key in wanted
        if key not in OWN and sizes[key] != wanted[key]
    ]
    if differing:
        raise MismatchError(
            f"the weights: another architecture than {name} (--arch): {'; '.join(differing)}. "
            "Name theirs, or none (--arch '')."
        )


def drawn(config: "Config", seed: int, numerics: "Numerics") -> "Weights":
    """Draw weights; the same seed and config give the same values everywhere.

    Convolutions are normal with He's variance (He et al., ICCV 2015), batch norms pass on what
    they get, and the classifier is what a reset head is.
    """
    import numpy as np

    from . import families
    from .archive import Origin, tool
    from .native import fresh_head
    from .weights import Weights

    family = families.of_config(config)
    state = {}
    for name, shape in family.parameters(config).items():
        if len(shape) == 4:
            random = np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))
            deviation = np.sqrt(2 / np.prod(shape[1:]))
            state[name] = (deviation * random.standard_normal(shape)).astype(np.float32)
        else:
            ones = name.endswith((".weight", ".running_var"))
            state[name] = np.full(shape, float(ones), np.float32)
    state |= fresh_head(family, config, seed)
    return Weights(state, config, numerics, Origin("deeplab-zoo", {}, tool()))

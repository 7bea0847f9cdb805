"""Numerics profiles: the conventions that weights were trained under, by name.

The same weights give other answers under other conventions (batch-norm epsilon, padding,
resizing grid, channel order). A profile names them once; the archive, the weight files and
the registry carry the name, and the model obeys it.
"""

from dataclasses import dataclass
from typing import Literal

from ..proto.errors import UsageError


@dataclass(frozen=True, slots=True)
class Numerics:
    """The conventions of one family of programs.

    Attributes
    ----------
    name
        How files refer to the profile.
    channel_order
        Order of an image's channels at the network's input.
    mean
        Subtracted from each channel, in that order, on the 0..255 scale.
    padding
        ``explicit``: convolutions and pooling pad both sides by the same fixed amount.
    pool_rounding
        ``ceil``: Caffe's rule, a window may overhang the lower right edge.
    resize
        ``align_corners``: the outer pixels of both grids coincide (Caffe's Interp).
    bn_eps
        Added to the variance in batch normalisation.
    test_size
        Images are padded to at least this height and width before the network sees them.

    """

    name: str
    channel_order: Literal["BGR", "RGB"]
    mean: tuple[float, float, float]
    padding: Literal["explicit"]
    pool_rounding: Literal["ceil"]
    resize: Literal["align_corners"]
    bn_eps: float
    test_size: int


# Caffe, DeepLab v2 fork: deploy prototxts, transform_param of the authors' test net.
CAFFE_V2 = Numerics(
    name="caffe-v2",
    channel_order="BGR",
    mean=(104.008, 116.669, 122.675),
    padding="explicit",
    pool_rounding="ceil",
    resize="align_corners",
    bn_eps=1e-5,
    test_size=513,
)

PROFILES = {profile.name: profile for profile in (CAFFE_V2,)}


def profile(name: str) -> Numerics:
    """Return the profile called ``name``; raise `UsageError` for an unknown one."""
    if name not in PROFILES:
        raise UsageError(
            f"numerics profile {name!r} is unknown, expected one of {', '.join(PROFILES)}."
        )
    return PROFILES[name]

"""Numerics profiles: the conventions that weights were trained under, by name.

The same weights give other answers under other conventions (batch-norm epsilon, padding,
resizing grid, channel order). A profile names them once; the archive, the weight files and
the registry carry the name, and the model obeys it.
"""

from dataclasses import dataclass, replace
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
    std
        What is left is divided by this, channel by channel.
    padding
        ``explicit``: strided layers pad both sides by the same fixed amount, and a pooling
        window may overhang the lower right edge (Caffe's ceil rule). ``same``: as much as
        the output size needs, the larger half at the bottom and right (TensorFlow's SAME).
    resize
        ``align_corners``: the outer pixels of both grids coincide (Caffe's Interp).
        ``top_left``: source = target * in / out (TensorFlow 1's ``resize_bilinear``).
        ``half_pixel``: the centres of the pixels count (PyTorch's default).
    scaled_size
        The size of an input scaled by z / s: ``interp`` is z ((n - 1) // s) + 1,
        ``truncate`` is int(n z / s).
    bn_eps
        Added to the variance in batch normalisation.
    test_size
        Images are padded to at least this height and width before the network sees them;
        0 leaves them at their size.

    """

    name: str
    channel_order: Literal["BGR", "RGB"]
    mean: tuple[float, float, float]
    padding: Literal["explicit", "same"]
    resize: Literal["align_corners", "top_left", "half_pixel"]
    scaled_size: Literal["interp", "truncate"]
    bn_eps: float
    test_size: int
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


# Caffe, DeepLab v2 fork: deploy prototxts, transform_param of the authors' test net.
CAFFE_V2 = Numerics(
    name="caffe-v2",
    channel_order="BGR",
    mean=(104.008, 116.669, 122.675),
    padding="explicit",
    resize="align_corners",
    scaled_size="interp",
    bn_eps=1e-5,
    test_size=513,
)

# DrSleep/tensorflow-deeplab-resnet: network.py, evaluate_msc.py; tf.contrib.slim's epsilon.
TF_SLIM = Numerics(
    name="tf-slim",
    channel_order="BGR",
    mean=(104.00698793, 116.66876762, 122.67891434),
    padding="same",
    resize="top_left",
    scaled_size="truncate",
    bn_eps=1e-3,
    test_size=0,
)

# kazuto1011/deeplab-pytorch: libs/models/msc.py, configs.
TORCH_HALFPIXEL = Numerics(
    name="torch-halfpixel",
    channel_order="BGR",
    mean=(104.008, 116.669, 122.675),
    padding="explicit",
    resize="half_pixel",
    scaled_size="truncate",
    bn_eps=1e-5,
    test_size=0,
)

# bermanmaxim/jaccardSegment feeds RGB and subtracts the BGR means from it. Its weights were
# trained that way, so reproducing them needs it; nothing else should.
JACCARD_SEGMENT = Numerics(
    name="jaccard-segment",
    channel_order="RGB",
    mean=(104.00698793, 116.66876762, 122.67891434),
    padding="same",
    resize="align_corners",
    scaled_size="truncate",
    bn_eps=1e-3,
    test_size=0,
)

# ImageNet's, of RGB in 0..1, brought to 0..255.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)

# torchvision/transforms/_presets.py: SemanticSegmentation. It shrinks photos to 520 before.
TORCHVISION = Numerics(
    name="torchvision",
    channel_order="RGB",
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    padding="explicit",
    resize="half_pixel",
    scaled_size="truncate",
    bn_eps=1e-5,
    test_size=0,
)

# jfzhang95/pytorch-deeplab-xception, and rloss: modeling/deeplab.py, dataloaders.
JFZHANG95 = replace(TORCHVISION, name="jfzhang95", resize="align_corners")

# open-mmlab/mmsegmentation: configs/_base_/models/deeplabv3*_r50-d8.py, ResNet's and ConvModule's
# default batch norm.
OPENMMLAB = replace(TORCHVISION, name="openmmlab")

# osmr/pytorchcv: models/deeplabv3.py, common/norm.py; GluonCV's mean and deviation.
PYTORCHCV = replace(TORCHVISION, name="pytorchcv", resize="align_corners")

# tensorflow/models research/deeplab: core/feature_extractor.py brings pixels to -1..1, model.py
# resizes, eval.py pads. The epsilon is the backbones'; the head's own is in its style. Sizes of
# scaled inputs are Caffe's wherever both grids meet.
TF_DEEPLAB = Numerics(
    name="tf-deeplab",
    channel_order="RGB",
    mean=(127.5, 127.5, 127.5),
    std=(127.5, 127.5, 127.5),
    padding="same",
    resize="align_corners",
    scaled_size="interp",
    bn_eps=1e-3,
    test_size=513,
)

PROFILES = {
    profile.name: profile
    for profile in (
        CAFFE_V2,
        TF_SLIM,
        TORCH_HALFPIXEL,
        JACCARD_SEGMENT,
        TORCHVISION,
        JFZHANG95,
        OPENMMLAB,
        PYTORCHCV,
        TF_DEEPLAB,
    )
}


def profile(name: str) -> Numerics:
    """Return the profile called ``name``; raise `UsageError` for an unknown one."""
    if name not in PROFILES:
        raise UsageError(
            f"numerics profile {name!r} is unknown, expected one of {', '.join(PROFILES)}."
        )
    return PROFILES[name]

"""What a file's names look like, for telling a user what it is when it is not ours."""

import re
from collections.abc import Iterable

# A name that only this family has -> what to call it. The first match tells.
FOREIGN = (
    (r"layer1\.conv1\.conv([./].*)?", "DeepLab v1 ResNet in kazuto1011's names"),
    (r"resnet_v1_\d+/block\d/unit_\d+/bottleneck_v1/.*", "ImageNet ResNet v1 of TensorFlow-Slim"),
    (r"resnet_v2_\d+/.*", "ImageNet ResNet v2 of TensorFlow-Slim"),
    (r"xception_\d+/.*", "Xception of TensorFlow's own DeepLab"),
    (r"MobilenetV[23]/.*", "MobileNet of TensorFlow-Slim"),
    (r"(vgg_16|vgg_19)/.*", "VGG of TensorFlow-Slim"),
    (r"InceptionV\d/.*", "Inception of TensorFlow-Slim"),
    (
        r"decode_head\.(?!(conv_seg|image_pool|aspp_modules|(c1_|sep_)?bottleneck)\.).*",
        "a segmentor of OpenMMLab other than DeepLab",
    ),
    (r"conv1_1(/weights|_.*|\[0\])?", "a VGG network"),
    (r"fc1000(/.*)?", "an ImageNet classifier in Caffe's names"),
)

FAMILIES = (
    (r"(.*/)?res4b\d+_branch2a(/weights)?", "DeepLab v2 ResNet in Caffe's names"),
    (r"(Scale\.)?layer5\.conv2d_list\..*", "DeepLab v2 ResNet in isht7's or AdvSemiSeg's names"),
    (r"base\.aspp\..*", "DeepLab v2 ResNet in kazuto1011's names"),
    (r"decoder\.last_conv\..*", "DeepLab v3+ in jfzhang95's (rloss's) names"),
    (r"classifier\.0\.convs\..*", "DeepLab v3 in torchvision's names"),
    (r"decode_head\.aspp_modules\..*", "DeepLab v3 or v3+ in OpenMMLab's names"),
    (r"pool\.branches\.branch5\..*", "DeepLab v3 in pytorchcv's names"),
    (r"(.*/)?concat_projection/weights", "DeepLab v3 or v3+ of TensorFlow's models"),
    *FOREIGN,
)


def looks_like(names: Iterable[str]) -> str | None:
    """Name the family that some of the names belong to, None for none we know."""
    return _first(FAMILIES, names)


def foreign(names: Iterable[str]) -> str | None:
    """Name the family of a network that has no native model, None where it may have one."""
    return _first(FOREIGN, names)


def _first(families: Iterable[tuple[str, str]], names: Iterable[str]) -> str | None:
    found = list(names)
    for pattern, family in families:
        if any(re.fullmatch(pattern, name) for name in found):
            return family
    return None

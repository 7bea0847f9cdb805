"""DeepLab v2 with a ResNet backbone, single- or multi-scale, as the weights expect it.

Names follow torchvision's (``backbone.layer3.22.conv2``). The ResNet is Caffe's: the stride
is on the first 1x1 convolution of a stage, not on the 3x3.

Source: Chen et al., "DeepLab: Semantic Image Segmentation with Deep Convolutional Nets,
Atrous Convolution, and Fully Connected CRFs" (ASPP-L); He et al., "Deep Residual Learning".
"""

from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...converters.deeplab_v2 import DILATIONS, EXPANSION, STRIDES, DeepLabV2Config
from ...converters.numerics import CAFFE_V2, Numerics
from . import inference
from .resampling import pad_same, resize, scaled


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions with a shortcut; each step is a module of its own."""

    def __init__(
        self, inputs: int, width: int, stride: int, dilation: int, eps: float, *, project: bool
    ) -> None:
        super().__init__()
        outputs = width * EXPANSION
        self.conv1 = nn.Conv2d(inputs, width, 1, stride, bias=False)
        self.bn1 = nn.BatchNorm2d(width, eps)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width, eps)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs, eps)
        self.downsample = (
            nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs, eps)
            )
            if project
            else None
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, h, w) to (batch, 4 width, h / stride, w / stride)."""
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.relu2(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        added: Tensor = self.relu(shortcut + y)
        return added


class Backbone(nn.Module):
    """A dilated ResNet of output stride 8."""

    def __init__(self, config: DeepLabV2Config, numerics: Numerics) -> None:
        super().__init__()
        eps = numerics.bn_eps
        same = numerics.padding == "same"
        self.same = same
        self.conv1 = nn.Conv2d(3, config.stem, 7, 2, 0 if same else 3, bias=False)
        self.bn1 = nn.BatchNorm2d(config.stem, eps)
        self.relu = nn.ReLU(inplace=True)
        # torch drops a ceil window that starts beyond the padded input, as Caffe does.
        self.maxpool = nn.MaxPool2d(3, 2, 0 if same else 1, ceil_mode=not same)
        inputs = config.stem
        stages = []
        for stage in range(4):
            width = config.widths[stage]
            blocks = []
            for block in range(config.blocks[stage]):
                stride = STRIDES[stage] if block == 0 else 1
                blocks.append(
                    Bottleneck(inputs, width, stride, DILATIONS[stage], eps, project=block == 0)
                )
                inputs = width * EXPANSION
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages

    def forward(self, x: Tensor) -> Tensor:
        """Map an image (batch, 3, h, w) to features (batch, 4 widths[3], h / 8, w / 8)."""
        if self.same:
            x = pad_same(x, 7, 2)
        x = self.relu(self.bn1(self.conv1(x)))
        if self.same:
            x = pad_same(x, 3, 2, -torch.inf)
        x = self.maxpool(x)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return x


class ASPP(nn.Module):
    """Parallel dilated 3x3 convolutions to class scores, summed (ASPP-L of the paper)."""

    def __init__(self, inputs: int, classes: int, rates: tuple[int, ...]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(inputs, classes, 3, 1, rate, rate) for rate in rates)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (batch, inputs, h, w) to scores (batch, classes, h, w)."""
        scores: Tensor = self.convs[0](x)
        for conv in self.convs[1:]:
            scores = scores + conv(x)
        return scores


class DeepLabV2(nn.Module):
    """The model: image in, class scores at an eighth of its size out.

    Parameters
    ----------
    config
        Sizes; the default is the published ResNet-101 for 21 classes, single-scale.
    numerics
        The conventions the weights were trained under.

    """

    def __init__(
        self, config: DeepLabV2Config | None = None, numerics: Numerics = CAFFE_V2
    ) -> None:
        super().__init__()
        self.config = config or DeepLabV2Config()
        self.numerics = numerics
        self.backbone = Backbone(self.config, numerics)
        features = self.config.widths[-1] * EXPANSION
        self.classifier = ASPP(features, self.config.classes, self.config.rates)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Score every class.

        ``image`` is (batch, 3, h, w), prepared as the profile says (see `prepare`). Returns
        scores (batch, classes, h', w'), where h' is k + 1 for h = 8 k + 1.

        A multi-scale model fuses its branches by their maximum; in training mode it returns
        what the four losses of the paper need: the scores of scale 1, of 0.75 resized to
        those, of 0.5 at its own size, and the fused ones.

        Caffe's own branches meet only where (n - 1) mod 32 is 0 to 5 for both sides; there
        the result is Caffe's. At other sizes the smaller branches are resized to the scores
        of scale 1.
        """
        if self.config.scales == (1.0,):
            return self.score(image)
        raw = [self.score(scaled(image, scale, self.numerics)) for scale in self.config.scales]
        resized = [resize(one, raw[0].shape[-2:], self.numerics) for one in raw]
        fused = torch.stack(resized).amax(0)
        if not self.training:
            return fused
        # Labels shrink to a half exactly but not to three quarters, so those scores grow instead.
        losses = [
            one if Fraction(scale).numerator == 1 else grown
            for scale, one, grown in zip(self.config.scales, raw, resized, strict=True)
        ]
        return [*losses, fused]

    def score(self, image: Tensor) -> Tensor:
        """Score one scale: (batch, 3, h, w) to (batch, classes, h / 8, w / 8)."""
        scores: Tensor = self.classifier(self.backbone(image))
        return scores

    def predict(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Segment a photo: RGB uint8 (height, width, 3) to class indices (height, width).

        Preprocessing, padding and resizing are the profile's, see `inference.predict`.
        """
        return inference.predict(self, image, self.numerics)

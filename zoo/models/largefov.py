"""DeepLab LargeFOV: VGG16 with dilated last stages, as the weights expect it.

LargeFOV and MSC-LargeFOV of DeepLab v1, and the four parallel heads of DeepLab v2's VGG16 are
configs of one model. Names follow Caffe's (``backbone.conv5_3``, ``backbone.fc6.0``).

Sources: Chen et al., "Semantic Image Segmentation with Deep Convolutional Nets and Fully
Connected CRFs"; Simonyan and Zisserman, "Very Deep Convolutional Networks".
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...converters.largefov import CONVOLUTIONS, DILATIONS, STRIDES, TAPS, LargeFOVConfig
from ...converters.numerics import CAFFE_V2, Numerics
from . import inference
from .resampling import pad_same, resize

DROP = 0.5


class Rectified(nn.Conv2d):
    """A convolution that keeps the size, and the ReLU that Caffe runs in place on its top."""

    def __init__(self, inputs: int, outputs: int, kernel: int, rate: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, 1, rate * (kernel - 1) // 2, rate)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, h, w) to (batch, outputs, h, w), nothing below 0."""
        return super().forward(x).relu_()


class Pooling(nn.Module):
    """A 3x3 maximum; under TensorFlow's padding with the larger half at the end."""

    def __init__(self, stride: int, *, same: bool) -> None:
        super().__init__()
        self.stride, self.same = stride, same
        # torch drops a ceil window that starts beyond the padded input, as Caffe does.
        self.pool = nn.MaxPool2d(3, stride, 0 if same else 1, ceil_mode=not same)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, h, w) to (batch, channels, h / stride, w / stride)."""
        if self.same:
            x = pad_same(x, 3, self.stride, -torch.inf)
        pooled: Tensor = self.pool(x)
        return pooled


class Backbone(nn.Module):
    """VGG16 of output stride 8, with fc6 and fc7 once for each head."""

    def __init__(self, config: LargeFOVConfig, numerics: Numerics) -> None:
        super().__init__()
        same = numerics.padding == "same"
        inputs = 3
        for stage, (count, width) in enumerate(zip(CONVOLUTIONS, config.widths, strict=True), 1):
            for index in range(1, count + 1):
                conv = Rectified(inputs, width, 3, DILATIONS[stage - 1])
                self.add_module(f"conv{stage}_{index}", conv)
                inputs = width
            self.add_module(f"pool{stage}", Pooling(STRIDES[stage - 1], same=same))
        # Caffe's average counts the padding, TensorFlow's does not.
        self.pool5a = nn.AvgPool2d(3, 1, 1, count_include_pad=not same) if config.average else None
        self.fc6 = nn.ModuleList(
            Rectified(inputs, config.hidden, config.kernel, rate) for rate in config.rates
        )
        self.fc7 = nn.ModuleList(Rectified(config.hidden, config.hidden, 1) for _ in config.rates)
        self.drop = nn.Dropout(DROP)

    def forward(self, image: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Map an image (batch, 3, h, w) to each head's features, and to what side branches read.

        Features are (batch, hidden, h / 8, w / 8); the others are the image and the outputs
        of the poolings.
        """
        x = image
        taps = [image]
        for stage, count in enumerate(CONVOLUTIONS, 1):
            for index in range(1, count + 1):
                x = self.get_submodule(f"conv{stage}_{index}")(x)
            x = self.get_submodule(f"pool{stage}")(x)
            taps.append(x)
        if self.pool5a is not None:
            x = self.pool5a(x)
        heads = []
        for fc6, fc7 in zip(self.fc6, self.fc7, strict=True):
            heads.append(self.drop(fc7(self.drop(fc6(x)))))
        return heads, taps


class Side(nn.Module):
    """A side branch of MSC-LargeFOV: features to class scores of the same size."""

    def __init__(self, inputs: int, width: int, classes: int) -> None:
        super().__init__()
        self.conv = Rectified(inputs, width, 3)
        self.fc = Rectified(width, width, 1)
        self.score = nn.Conv2d(width, classes, 1)
        self.drop = nn.Dropout(DROP)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, h, w) to (batch, classes, h, w)."""
        scores: Tensor = self.score(self.drop(self.fc(self.drop(self.conv(x)))))
        return scores


class Classifier(nn.Module):
    """The heads' last convolutions, and the side branches where there are any."""

    def __init__(self, config: LargeFOVConfig, numerics: Numerics) -> None:
        super().__init__()
        self.numerics = numerics
        self.fc8 = nn.ModuleList(nn.Conv2d(config.hidden, config.classes, 1) for _ in config.rates)
        self.sides = nn.ModuleDict()
        if config.sides:
            for tap, width in zip(TAPS, (3, *config.widths), strict=False):
                self.sides[tap] = Side(width, config.sides, config.classes)

    def forward(self, heads: list[Tensor], taps: list[Tensor]) -> Tensor:
        """Sum the heads' scores; with side branches, theirs too, at the image's size."""
        scores: Tensor = self.fc8[0](heads[0])
        for fc8, x in zip(self.fc8[1:], heads[1:], strict=True):
            scores = scores + fc8(x)
        if not self.sides:
            return scores
        size = taps[0].shape[-2:]
        parts = [
            resize(side(x), size, self.numerics)
            for side, x in zip(self.sides.values(), taps, strict=False)
        ]
        total = parts[0]
        for part in (*parts[1:], resize(scores, size, self.numerics)):  # In Caffe's order.
            total = total + part
        return total


class LargeFOV(nn.Module):
    """The model: image in, class scores out.

    Parameters
    ----------
    config
        Sizes; the default is the published LargeFOV for 21 classes.
    numerics
        The conventions the weights were trained under.

    """

    def __init__(self, config: LargeFOVConfig | None = None, numerics: Numerics = CAFFE_V2) -> None:
        super().__init__()
        self.config = config or LargeFOVConfig()
        self.numerics = numerics
        self.backbone = Backbone(self.config, numerics)
        self.classifier = Classifier(self.config, numerics)

    def forward(self, image: Tensor) -> Tensor:
        """Score every class.

        ``image`` is (batch, 3, h, w), prepared as the profile says (see `inference.prepare`).
        Returns scores (batch, classes, h', w'), where h' is k + 1 for h = 8 k + 1; with side
        branches they have the image's own size. Caffe's side branches meet only at sizes
        8 k + 1, where the result is Caffe's; at others they are resized to the image.
        """
        scores: Tensor = self.classifier(*self.backbone(image))
        return scores

    def predict(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Segment a photo: RGB uint8 (height, width, 3) to class indices (height, width).

        Preprocessing, padding and resizing are the profile's, see `inference.predict`.
        """
        return inference.predict(self, image, self.numerics)

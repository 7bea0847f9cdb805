"""DeepLab v3 and v3+, with any of their programs' backbones and heads.

What the network is made of is stated in ``converters/deeplab_v3``; here it runs.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, cat, nn

from ...converters.deeplab_v3 import DeepLabV3Config, Network, network
from ...converters.numerics import JFZHANG95, Numerics
from ...converters.units import Backbone as BackboneUnits
from . import inference
from .resampling import resize
from .units import Conv, Pyramid, Residual, build, chain


class Backbone(nn.Module):
    """An image's way to features, early ones for a decoder beside the last."""

    def __init__(self, unit: BackboneUnits, numerics: Numerics) -> None:
        super().__init__()
        self.low, _, self.tap = unit.low.partition(".")
        self.parts = [name for name, _ in unit.body.parts]
        for name, part in unit.body.parts:
            self.add_module(name, build(part, numerics))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Map an image (batch, 3, h, w) to features at 1 / output stride, and early ones."""
        x = low = image
        for name in self.parts:
            part = self.get_submodule(name)
            if name != self.low:
                x = part(x)
            elif isinstance(part, Residual) and self.tap:
                x, low = part.tapped(x, self.tap)
            else:
                x = low = part(x)
        return x, low


class Classifier(nn.Module):
    """The pyramid, v3+'s decoder where there is one, the scores."""

    def __init__(self, net: Network, numerics: Numerics) -> None:
        super().__init__()
        self.numerics = numerics
        self.pyramid = Pyramid(net.pyramid, numerics)
        self.low = Conv(net.low, numerics) if net.low else None
        self.refine = chain(net.refine.parts, numerics)
        self.score = Conv(net.score, numerics)

    def forward(self, features: Tensor, low: Tensor) -> Tensor:
        """Score features; with a decoder at the size of the early ones."""
        x = self.pyramid(features)
        if self.low is not None:
            x = cat([resize(x, low.shape[-2:], self.numerics), self.low(low)], 1)
        scores: Tensor = self.score(self.refine(x))
        return scores


class DeepLabV3(nn.Module):
    """The model: image in, class scores out.

    Parameters
    ----------
    config
        Sizes and style; the default is rloss's v3+ with ResNet-101 for 21 classes.
    numerics
        The conventions the weights were trained under.

    """

    def __init__(
        self, config: DeepLabV3Config | None = None, numerics: Numerics = JFZHANG95
    ) -> None:
        super().__init__()
        self.config = config or DeepLabV3Config()
        self.numerics = numerics
        net = network(self.config)
        self.backbone = Backbone(net.backbone, numerics)
        self.classifier = Classifier(net, numerics)
        # Kept for the way back; scores do not need it, so it is not trained.
        self.auxiliary = chain(net.auxiliary.parts, numerics) if net.auxiliary else None
        if self.auxiliary is not None:
            self.auxiliary.requires_grad_(requires_grad=False)

    def forward(self, image: Tensor) -> Tensor:
        """Score every class.

        ``image`` is (batch, 3, h, w), prepared as the profile says (see `inference.prepare`).
        Returns scores (batch, classes, h', w') at the size of the features that the head reads:
        an eighth or sixteenth of the image's, with a decoder a quarter, rounded up.
        """
        scores: Tensor = self.classifier(*self.backbone(image))
        return scores

    def predict(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Segment a photo: RGB uint8 (height, width, 3) to class indices (height, width).

        Preprocessing, padding and resizing are the profile's, see `inference.predict`.
        """
        return inference.predict(self, image, self.numerics)

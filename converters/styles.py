"""What each program that published DeepLab v3's and v3+'s weights did in its own way."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from .backbones.aligned_xception import aligned_xception
from .backbones.drn import drn_d_54
from .backbones.mobilenet_v2 import mobilenet_v2
from .backbones.mobilenet_v3 import mobilenet_v3_large
from .backbones.resnet import Grid, contracted, resnet
from .backbones.tf_mobilenet_v2 import tf_mobilenet_v2
from .backbones.tf_xception import tf_xception65
from .units import Backbone

Width = Callable[[int], int]
Make = Callable[[int, Width], Backbone]


@dataclass(frozen=True, slots=True)
class Style:
    """What one program's nets have of their own.

    Attributes
    ----------
    backbones
        By name: of an output stride and of the rule for widths, the backbone.
    decoder
        Whether its nets are v3+; None where it has both.
    output_stride, rates
        Of its published weights.
    other_strides
        Output strides of the backbones that it published at another.
    other_rates
        Rates at the output strides that have others.
    channels
        Of the pyramid's branches and of what follows.
    pool_first
        Whether the pyramid's mean comes before its branches.
    project
        The kernel that projects the pyramid's branches.
    hidden
        3x3 convolutions between pyramid and scores, where there is no decoder.
    separable
        Whether the decoder, and then the pyramid too, convolve in two steps.
    auxiliary
        Channels of the auxiliary head's 3x3 convolution: of the channels it reads.
    eps
        The batch norms' epsilon from the pyramid on, where it is not the profile's.
    drop
        Dropout's shares: after the pyramid, after the decoder's first convolution, before the
        scores.

    """

    backbones: Mapping[str, Make]
    decoder: bool | None
    output_stride: int
    rates: tuple[int, ...]
    channels: int = 256
    pool_first: bool = False
    project: int = 1
    hidden: int = 0
    separable: bool = False
    auxiliary: Callable[[int], int] = lambda channels: channels // 4
    eps: float | None = None
    drop: tuple[float, float, float] = (0.5, 0.5, 0.1)
    other_strides: Mapping[str, int] = field(default_factory=dict)
    other_rates: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    def stride_of(self, backbone: str) -> int:
        """Return the output stride that a backbone was published at."""
        return self.other_strides.get(backbone, self.output_stride)

    def rates_at(self, output_stride: int) -> tuple[int, ...]:
        """Return the rates that go with an output stride."""
        return self.other_rates.get(output_stride, self.rates)


BLOCKS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3)}


def multi_grid(blocks: int, before: int, after: int) -> Sequence[int]:
    """Give a dilated last stage's three blocks 1, 2 and 4 times its dilation (jfzhang95)."""
    del before
    last = after > 1 and blocks == 3
    return [after * factor for factor in ((1, 2, 4) if last else (1,) * blocks)]


def _resnets(
    names: Iterable[str], *, stem: Sequence[int] = (), grid: Grid = contracted
) -> dict[str, Make]:
    def made(blocks: Sequence[int]) -> Make:
        return lambda stride, width: resnet(blocks, stride, width, stem=stem, grid=grid)

    return {name: made(BLOCKS[name]) for name in names}


STYLES = {
    # jfzhang95/pytorch-deeplab-xception, and rloss's copy: modeling/{deeplab,aspp,decoder}.py.
    "jfzhang95": Style(
        backbones={
            **_resnets(["resnet101"], grid=multi_grid),
            "mobilenet_v2": mobilenet_v2,
            "xception65": aligned_xception,
            "drn_d_54": drn_d_54,
        },
        decoder=True,
        output_stride=16,
        other_strides={"drn_d_54": 8},
        rates=(6, 12, 18),
        other_rates={8: (12, 24, 36)},
    ),
    # torchvision/models/segmentation/deeplabv3.py.
    "torchvision": Style(
        backbones={
            **_resnets(["resnet50", "resnet101"]),
            "mobilenet_v3_large": mobilenet_v3_large,
        },
        decoder=False,
        output_stride=8,
        other_strides={"mobilenet_v3_large": 16},
        rates=(12, 24, 36),
        hidden=1,
        drop=(0.5, 0.0, 0.0),
    ),
    # open-mmlab/mmsegmentation: configs/_base_/models/deeplabv3{,plus}_r50-d8.py; ResNetV1c.
    "openmmlab": Style(
        backbones=_resnets(["resnet50", "resnet101"], stem=(32, 32, 64)),
        decoder=None,
        output_stride=8,
        rates=(12, 24, 36),
        channels=512,
        pool_first=True,
        project=3,
        separable=True,
        drop=(0.0, 0.0, 0.1),
    ),
    # osmr/pytorchcv: models/deeplabv3.py; "b" is a bottleneck with its stride on the 3x3.
    "pytorchcv": Style(
        backbones={
            f"{name.replace('resnet', 'resnetd')}b": make
            for name, make in _resnets(BLOCKS, stem=(64, 64, 128)).items()
        },
        decoder=False,
        output_stride=8,
        rates=(12, 24, 36),
        hidden=1,
        drop=(0.5, 0.0, 0.1),
    ),
    # tensorflow/models research/deeplab: model.py, core/feature_extractor.py.
    "tensorflow": Style(
        backbones={"xception65": tf_xception65, "mobilenet_v2": tf_mobilenet_v2},
        decoder=None,
        output_stride=16,
        rates=(6, 12, 18),
        pool_first=True,
        separable=True,
        eps=1e-5,
        drop=(0.1, 0.0, 0.0),
    ),
}


def rule(factor: float) -> Width:
    """Return how many channels there are of a full net's number."""
    return lambda channels: max(1, round(channels * factor))

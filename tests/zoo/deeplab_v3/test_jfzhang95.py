"""jfzhang95's (and rloss's) DeepLab v3+ against its forward said again with plain functions."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import deeplab_zoo
from deeplab_zoo.converters.deeplab_v3 import DeepLabV3Config
from deeplab_zoo.converters.numerics import JFZHANG95
from deeplab_zoo.zoo.models.deeplab_v3 import DeepLabV3
from deeplab_zoo.zoo.models.resampling import resize

State = dict[str, Tensor]
Make = Callable[[DeepLabV3Config], State]

RATES = {16: (6, 12, 18), 8: (12, 24, 36)}
NETS = [
    ("resnet101", 16), ("resnet101", 8), ("mobilenet_v2", 16), ("mobilenet_v2", 8),
    ("xception65", 16), ("xception65", 8), ("drn_d_54", 8),
]  # fmt: skip
BACKBONES = ("resnet101", "mobilenet_v2", "xception65", "drn_d_54")

TOLERANCE = 1e-5  # Of the largest score; both sides call the same kernels, 0 is usual.


def narrow(backbone: str, stride: int = 0, width: float = 0.0625) -> DeepLabV3Config:
    stride = stride or (8 if backbone == "drn_d_54" else 16)
    return DeepLabV3Config(
        5, backbone=backbone, output_stride=stride, rates=RATES[stride], width=width
    )


def loaded(state: State, config: DeepLabV3Config, folder: Path) -> DeepLabV3:
    """Bring a program's state dict home, and make the model of it."""
    torch.save(
        {"state_dict": state, "epoch": 7, "best_pred": np.float64(0.6)}, folder / "x.pth.tar"
    )
    deeplab_zoo.convert_legacy(
        folder / "x.pth.tar", folder / "x.safetensors", output_stride=config.output_stride
    )
    model = deeplab_zoo.load(folder / "x.safetensors")
    assert isinstance(model, DeepLabV3)
    assert (model.config, model.numerics) == (config, JFZHANG95)
    return model


# The original's forward, by its own names: modeling/{deeplab,aspp,decoder}.py, backbone/*.py.


class Original:
    """A state dict and what its program does with it."""

    def __init__(self, state: State) -> None:
        self.state = state

    def conv(
        self, x: Tensor, name: str, norm: str = "", *, stride: int = 1, rate: int = 1,
        pad: int | None = None,
    ) -> Tensor:  # fmt: skip
        """Convolve; padding keeps the size unless told; then a batch norm where one is named."""
        weight = self.state[f"{name}.weight"]
        pad = rate * (weight.shape[2] - 1) // 2 if pad is None else pad
        groups = x.shape[1] // weight.shape[1]
        bias = self.state.get(f"{name}.bias")
        x = functional.conv2d(x, weight, bias, stride, pad, rate, groups)
        return self.norm(x, norm) if norm else x

    def norm(self, x: Tensor, name: str) -> Tensor:
        held = (self.state[f"{name}.{one}"] for one in
                ("running_mean", "running_var", "weight", "bias"))  # fmt: skip
        return functional.batch_norm(x, *held, eps=1e-5)

    def bottleneck(self, x: Tensor, at: str, stride: int, rate: int) -> Tensor:
        y = self.conv(x, f"{at}.conv1", f"{at}.bn1").relu()
        y = self.conv(y, f"{at}.conv2", f"{at}.bn2", stride=stride, rate=rate).relu()
        y = self.conv(y, f"{at}.conv3", f"{at}.bn3")
        if f"{at}.downsample.0.weight" in self.state:
            x = self.conv(x, f"{at}.downsample.0", f"{at}.downsample.1", stride=stride)
        return (y + x).relu()

    def resnet101(self, x: Tensor, output_stride: int) -> tuple[Tensor, Tensor]:
        x = self.conv(x, "backbone.conv1", "backbone.bn1", stride=2).relu()
        x = low = functional.max_pool2d(x, 3, 2, 1)
        strides, dilations = {16: ((1, 2, 2, 1), (1, 1, 1, 2)), 8: ((1, 2, 1, 1), (1, 1, 2, 4))}[
            output_stride
        ]
        for stage, blocks in enumerate((3, 4, 23, 3)):
            for block in range(blocks):
                rate = dilations[stage] * ((1, 2, 4)[block] if stage == 3 else 1)
                at = f"backbone.layer{stage + 1}.{block}"
                x = self.bottleneck(x, at, 1 if block else strides[stage], rate)
            low = low if stage else x
        return x, low

    def drn_d_54(self, x: Tensor, output_stride: int) -> tuple[Tensor, Tensor]:
        assert output_stride == 8
        for stage, stride in enumerate((1, 1, 2)):
            at = f"backbone.layer{stage}"
            x = self.conv(x, f"{at}.0", f"{at}.1", stride=stride).relu()
        low = x
        for stage, blocks, stride, rate in ((3, 3, 2, 1), (4, 4, 2, 1), (5, 6, 1, 2), (6, 3, 1, 4)):
            for block in range(blocks):
                at = f"backbone.layer{stage}.{block}"
                x = self.bottleneck(x, at, 1 if block else stride, rate)
            low = x if stage == 3 else low
        x = self.conv(x, "backbone.layer7.0", "backbone.layer7.1", rate=2).relu()
        return self.conv(x, "backbone.layer8.0", "backbone.layer8.1").relu(), low

    def mobilenet_v2(self, x: Tensor, output_stride: int) -> tuple[Tensor, Tensor]:
        strided = (2, 4, 7) if output_stride == 16 else (2, 4)
        rates = {17: 2} if output_stride == 16 else dict.fromkeys(range(11, 17), 2) | {17: 4}
        x = self.conv(x, "backbone.features.0.0", "backbone.features.0.1", stride=2)
        x = low = functional.relu6(x)
        for block in range(1, 18):
            at, rate = f"backbone.features.{block}.conv", rates.get(block, 1)
            y = functional.pad(x, (rate,) * 4)
            depthwise = 0
            if block > 1:
                depthwise = 3
                y = functional.relu6(self.conv(y, f"{at}.0", f"{at}.1"))
            y = self.conv(
                y, f"{at}.{depthwise}", f"{at}.{depthwise + 1}",
                stride=2 if block in strided else 1, rate=rate, pad=0,
            )  # fmt: skip
            y = functional.relu6(y)
            y = self.conv(y, f"{at}.{depthwise + 3}", f"{at}.{depthwise + 4}")
            x = y if block in (1, 2, 4, 7, 11, 14, 17) else x + y
            low = x if block == 3 else low
        return x, low

    def separable(self, x: Tensor, at: str, stride: int = 1, rate: int = 1) -> Tensor:
        x = functional.pad(x, (rate,) * 4)
        x = self.conv(x, f"{at}.conv1", f"{at}.bn", stride=stride, rate=rate, pad=0)
        return self.conv(x, f"{at}.pointwise")

    def xception65(self, x: Tensor, output_stride: int) -> tuple[Tensor, Tensor]:
        third, middle, last = (2, 1, 2) if output_stride == 16 else (1, 2, 4)
        x = self.conv(x, "backbone.conv1", "backbone.bn1", stride=2).relu()
        x = low = self.conv(x, "backbone.conv2", "backbone.bn2").relu()
        for block in range(1, 21):
            at, stride = f"backbone.block{block}", {1: 2, 2: 2, 3: third}.get(block, 1)
            rates = (middle,) * 3 if 3 < block < 20 else (1, 1, 1)
            rates = (middle, middle, 1) if block == 20 else rates
            first = 0
            if block > 2:  # The ReLU works in place, before the shortcut is taken.
                first, x = 1, x.relu()
            y = x
            for index, rate in enumerate(rates):
                y = y.relu() if index else y
                place = 3 * index + first
                y = self.separable(y, f"{at}.rep.{place}", stride if index == 2 else 1, rate)
                y = self.norm(y, f"{at}.rep.{place + 1}")
            if f"{at}.skip.weight" in self.state:
                x = self.conv(x, f"{at}.skip", f"{at}.skipbn", stride=stride)
            x = x + y
            if block == 1:
                x = low = x.relu()
        x = x.relu()
        for index in (3, 4, 5):
            x = self.separable(x, f"backbone.conv{index}", 1, last)
            x = self.norm(x, f"backbone.bn{index}").relu()
        return x, low

    def scores(self, x: Tensor, backbone: str, output_stride: int) -> Tensor:
        """Score at the size of the early features."""
        x, low = getattr(self, backbone)(x, output_stride)
        seen = [self.conv(x, "aspp.aspp1.atrous_conv", "aspp.aspp1.bn").relu()]
        for index, rate in enumerate(RATES[output_stride], 2):
            at = f"aspp.aspp{index}"
            seen.append(self.conv(x, f"{at}.atrous_conv", f"{at}.bn", rate=rate).relu())
        pooled = functional.adaptive_avg_pool2d(x, 1)
        pooled = self.conv(pooled, "aspp.global_avg_pool.1", "aspp.global_avg_pool.2").relu()
        seen.append(self.grown(pooled, x))
        x = self.conv(torch.cat(seen, 1), "aspp.conv1", "aspp.bn1").relu()
        low = self.conv(low, "decoder.conv1", "decoder.bn1").relu()
        x = torch.cat([self.grown(x, low), low], 1)
        x = self.conv(x, "decoder.last_conv.0", "decoder.last_conv.1").relu()
        x = self.conv(x, "decoder.last_conv.4", "decoder.last_conv.5").relu()
        return self.conv(x, "decoder.last_conv.8")

    @staticmethod
    def grown(x: Tensor, to: Tensor) -> Tensor:
        return functional.interpolate(x, to.shape[2:], mode="bilinear", align_corners=True)


@pytest.mark.parametrize(("backbone", "stride"), NETS)
def test_the_scores_are_the_originals(
    program_state: Make, tmp_path: Path, backbone: str, stride: int
) -> None:
    config = narrow(backbone, stride)
    state = program_state(config)
    model, original = loaded(state, config, tmp_path), Original(state)
    for size in ((2, 3, 49, 65), (1, 3, 66, 34)):
        image = torch.randn(size)
        with torch.no_grad():
            found, expected = model(image), original.scores(image, backbone, stride)
        assert found.shape == (size[0], 5, -(-size[2] // 4), -(-size[3] // 4))
        assert expected.std() > 0.05  # The net has not died on its way.
        torch.testing.assert_close(
            found, expected, rtol=0, atol=TOLERANCE * float(expected.abs().max())
        )
        torch.testing.assert_close(
            resize(found, size[2:], model.numerics), original.grown(found, image)
        )


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_part_of_a_stride_counts(program_state: Make, tmp_path: Path, backbone: str) -> None:
    """Another stride's scores differ, so the test above can fail."""
    if backbone == "drn_d_54":
        with pytest.raises(deeplab_zoo.ZooError, match="output stride 16: DRN-D-54 has 8"):
            DeepLabV3(narrow(backbone, 16))
        return
    config = narrow(backbone, 8)
    state = program_state(config)
    image = torch.randn(1, 3, 97, 65)
    with torch.no_grad():
        found = loaded(state, config, tmp_path)(image)
        other = Original(state).scores(image, backbone, 16)
    assert (found - other).abs().max() > 0.01 * other.abs().max()


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("kind", ["safetensors", "pth", "h5"])
def test_a_file_goes_back_to_its_programs_names_to_the_bit(
    program_state: Make, tmp_path: Path, backbone: str, kind: str
) -> None:
    config = narrow(backbone)
    state = program_state(config)
    torch.save({"state_dict": state}, tmp_path / "x.pth.tar")
    deeplab_zoo.convert_legacy(tmp_path / "x.pth.tar", tmp_path / f"x.{kind}")
    deeplab_zoo.export(tmp_path / f"x.{kind}", tmp_path / "back.pth", layout="jfzhang95")
    back = torch.load(tmp_path / "back.pth")
    assert set(back) == set(state)
    assert all(torch.equal(back[name], state[name]) for name in state)
    assert deeplab_zoo.load(tmp_path / "back.pth").config == config


@pytest.mark.parametrize(
    "backbone",
    ["mobilenet_v2", "drn_d_54", *(pytest.param(one, marks=pytest.mark.slow)
                                   for one in ("resnet101", "xception65"))],
)  # fmt: skip
def test_onnxruntime_gives_the_same_scores(
    program_state: Make, tmp_path: Path, backbone: str
) -> None:
    config = narrow(backbone)
    model = loaded(program_state(config), config, tmp_path)
    deeplab_zoo.export_onnx(model, tmp_path / "x.onnx", size=(33, 49))
    image = torch.randn(1, 3, 33, 49)
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx", providers=["CPUExecutionProvider"])
    found = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: image.numpy()})[0])
    with torch.no_grad():
        expected = model(image)
    if found.shape != expected.shape:
        expected = resize(expected, (33, 49), model.numerics)
    assert (found - expected).norm() <= TOLERANCE * expected.norm()


def test_a_net_is_one_graph_to_torch(program_state: Make, tmp_path: Path) -> None:
    config = narrow("mobilenet_v2")
    model = loaded(program_state(config), config, tmp_path)
    image = torch.randn(2, 3, 33, 49)
    with torch.no_grad():
        found = torch.compile(model, fullgraph=True, backend="eager")(image)
        assert torch.equal(found, model(image))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # Of inductor's own code.
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_compiled_net_gives_the_same_scores(
    program_state: Make, tmp_path: Path, backbone: str
) -> None:
    config = narrow(backbone)
    model = loaded(program_state(config), config, tmp_path)
    image = torch.randn(2, 3, 49, 65)
    with torch.no_grad():
        expected = model(image)
        found = torch.compile(model, fullgraph=True)(image)
    assert (found - expected).norm() <= TOLERANCE * expected.norm()

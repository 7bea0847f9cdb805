"""Models made for inference alone: the same function, quicker, and good for nothing else."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor, nn

from deeplab_zoo import (
    TrainConfig,
    convert_caffe,
    convert_graph,
    evaluate,
    export_onnx,
    finetune,
    load,
    open_dataset,
)
from deeplab_zoo.cli.main import cli
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config
from deeplab_zoo.converters.deeplab_v3 import DeepLabV3Config
from deeplab_zoo.converters.largefov import LargeFOVConfig
from deeplab_zoo.converters.numerics import PROFILES
from deeplab_zoo.proto.errors import UsageError
from deeplab_zoo.zoo.data.images import read_photo
from deeplab_zoo.zoo.evaluation.protocol import Protocol
from deeplab_zoo.zoo.models.deeplab_v2 import DeepLabV2
from deeplab_zoo.zoo.models.deeplab_v3 import DeepLabV3
from deeplab_zoo.zoo.models.inference import prepare
from deeplab_zoo.zoo.models.largefov import LargeFOV
from deeplab_zoo.zoo.models.optimize import Narrow, folded, optimized, quickest
from deeplab_zoo.zoo.models.resampling import resize
from deeplab_zoo.zoo.parity.cases import photo
from deeplab_zoo.zoo.training.shapes import write_shapes

Make = Callable[..., tuple[Path, Path]]
CPU = torch.device("cpu")

FP32 = 1e-5  # Relative L2 of the scores; 1e-6 is usual.
BF16 = 0.02  # Each value keeps 8 bits, so is off by up to 4e-3; over 101 layers 0.7 % is usual.


def apart(found: Tensor, expected: Tensor) -> float:
    """Return the relative L2 distance."""
    return float((found - expected).norm() / expected.norm())


def agreement(found: Tensor, expected: Tensor) -> float:
    """Return the share of pixels of the same class."""
    return float((found.argmax(1) == expected.argmax(1)).double().mean())


def drawn(model: nn.Module) -> Any:
    """Give a model's batch norms statistics, gains and offsets that matter."""
    torch.manual_seed(0)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            for value, low, high in (
                (part.running_mean, -0.2, 0.2), (part.running_var, 0.5, 1.5),
                (part.weight, 0.8, 1.2), (part.bias, -0.2, 0.2),
            ):  # fmt: skip
                assert value is not None
                nn.init.uniform_(value, low, high)
    return model.eval()


@pytest.fixture(scope="module")
def image() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(2, 3, 65, 97) * 60


@pytest.fixture
def weights(make_net: Make, tiny_config: DeepLabV2Config, tmp_path: Path) -> Path:
    convert_caffe(*make_net(tiny_config), tmp_path / "x.safetensors")
    return tmp_path / "x.safetensors"


@pytest.mark.parametrize("profile", ["caffe-v2", "tf-slim", "torch-halfpixel"])
@pytest.mark.parametrize("kind", ["single", "multi", "largefov", "sides"])
def test_every_native_model_scores_the_same(
    kind: str, profile: str, tiny_config: DeepLabV2Config, tiny_multi: DeepLabV2Config,
    image: Tensor,
) -> None:  # fmt: skip
    numerics = PROFILES[profile]
    vgg = LargeFOVConfig(classes=5, widths=(3, 4, 5, 6, 7), hidden=8, sides=4 * (kind == "sides"))
    of_resnet = kind in ("single", "multi")
    config = tiny_multi if kind == "multi" else tiny_config
    model = drawn(DeepLabV2(config, numerics) if of_resnet else LargeFOV(vgg, numerics))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.inference_mode():
        expected = model(image)
        whole = optimized(model, CPU, precision="fp32")
        narrow = optimized(model, CPU, precision="bf16")
        for quick, limit in ((whole, FP32), (narrow, BF16)):
            found = quick(image)
            assert (found.shape, found.dtype) == (expected.shape, torch.float32)
            assert apart(found, expected) < limit
    assert not any(isinstance(part, nn.BatchNorm2d) for part in whole.modules())
    assert apart(narrow(image), whole(image)) > 1e-4, "nothing was rounded"
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "config",
    [
        DeepLabV3Config(5, backbone="resnet101", width=1 / 16),
        DeepLabV3Config(5, "tensorflow", "xception65", width=1 / 16),
        DeepLabV3Config(
            5, "torchvision", "mobilenet_v3_large", False, 16, (12, 24, 36), True, width=1 / 8
        ),
    ],
    ids=lambda one: one.backbone,
)
def test_deeplab_v3_scores_the_same(config: DeepLabV3Config, image: Tensor) -> None:
    model = drawn(DeepLabV3(config))
    left = [
        name
        for name, part in folded(model).named_modules()
        if isinstance(part, nn.BatchNorm2d) and not name.startswith("auxiliary.")
    ]
    assert not left
    with torch.inference_mode():
        expected = model(image)
        assert apart(optimized(model, CPU, precision="fp32")(image), expected) < FP32
        assert apart(optimized(model, CPU, precision="bf16")(image), expected) < BF16


def test_only_what_another_convolution_reads_is_handed_on_narrow(
    tiny_config: DeepLabV2Config,
) -> None:
    net = optimized(drawn(DeepLabV2(tiny_config)), CPU, precision="bf16").net
    handed = {name: part.hand_on for name, part in net.named_modules() if isinstance(part, Narrow)}
    assert handed["backbone.conv1"], "through its ReLU and the pooling"
    assert handed["backbone.layer3.1.conv1"]
    assert handed["backbone.layer3.1.conv2"]
    assert not handed["backbone.layer3.1.conv3"], "it is added to the shortcut"
    assert not handed["backbone.layer3.0.downsample.0"]
    assert not handed["classifier.convs.1"], "scores are summed"


class Odd(nn.Module):
    """Convolutions and batch norms that are no pairs, and one pair."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = nn.Conv2d(3, 4, 3, 2, bias=True)
        self.pair_norm = nn.BatchNorm2d(4)
        self.rectified = nn.Conv2d(4, 4, 1)
        self.relu = nn.ReLU(inplace=True)
        self.late_norm = nn.BatchNorm2d(4)
        self.forked = nn.Conv2d(4, 4, 1)
        self.forked_norms = nn.ModuleList([nn.BatchNorm2d(4), nn.BatchNorm2d(4)])
        self.shared = nn.ModuleList([nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)])
        self.shared_norm = nn.BatchNorm2d(4)
        self.unused = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pair_norm(self.pair(x))
        x = self.late_norm(self.relu(self.rectified(x)))
        y = self.forked(x)
        x = self.forked_norms[0](y) + self.forked_norms[1](y)
        return sum((self.shared_norm(one(x)) for one in self.shared), torch.zeros(()))


def test_what_is_no_pair_is_left_alone(image: Tensor) -> None:
    model = drawn(Odd())
    made = folded(model)
    left = [name for name, part in made.named_modules() if isinstance(part, nn.BatchNorm2d)]
    assert left == ["late_norm", "forked_norms.0", "forked_norms.1", "shared_norm"]
    with torch.inference_mode():
        assert apart(made(image), model(image)) < FP32


def test_a_loaded_one_does_all_that_inference_needs(weights: Path) -> None:
    plain, quick = load(weights), load(weights, optimize="inference", precision="fp32")
    assert (quick.config, quick.numerics) == (plain.config, plain.numerics)
    assert not quick.training
    assert not any(value.requires_grad for value in quick.parameters())
    picture = np.random.default_rng(0).integers(0, 256, (40, 61, 3), np.uint8)
    # Scores that are equal but for rounding: no pixel of these has two classes that near.
    assert np.array_equal(quick.predict(picture), plain.predict(picture))


def test_it_can_be_nothing_else(
    weights: Path, make_net: Make, tiny_config: DeepLabV2Config, tmp_path: Path
) -> None:
    quick: Any = load(weights, optimize="inference")
    with pytest.raises(UsageError, match="Load it again to save"):
        quick.state_dict()
    with pytest.raises(UsageError, match="Load it again to train"):
        quick.train()
    with pytest.raises(UsageError, match="optimised for inference already"):
        optimized(quick, CPU)
    with pytest.raises(UsageError, match="optimised for inference already"):
        export_onnx(quick, tmp_path / "x.onnx", size=(33, 33))
    assert not (tmp_path / "x.onnx").exists()
    with pytest.raises(UsageError, match="'int8' is unknown, expected fp32 or bf16"):
        load(weights, optimize="inference", precision="int8")  # type: ignore[call-overload]
    with pytest.raises(UsageError, match="'train' is unknown, expected inference or compiled"):
        load(weights, optimize="train")  # type: ignore[call-overload]
    with pytest.raises(UsageError, match="of a model that is optimised"):
        load(weights, precision="bf16")  # type: ignore[call-overload]
    text, binary = make_net(tiny_config)
    other = text.read_text().replace("dilation: 4", "dilation: 3").replace("pad: 4", "pad: 3")
    text.write_text(other)
    convert_graph(text, binary, tmp_path / "g.safetensors")
    with pytest.raises(UsageError, match="is a graph, expected a native model"):
        load(tmp_path / "g.safetensors", optimize="inference")


@pytest.mark.parametrize(("units", "expected"), [(True, "bf16"), (False, "fp32")])
def test_a_processor_without_matrix_units_computes_in_float32(
    units: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: units)
    assert quickest(CPU) == expected


@pytest.mark.golden
@pytest.mark.parametrize("name", ["single", "msc"])
def test_classes_hold_on_random_weights_of_the_real_caffe(
    name: str, small: Path, tmp_path: Path
) -> None:
    out = tmp_path / "x.safetensors"
    convert_caffe(small / f"{name}.prototxt", small / f"{name}.caffemodel", out)
    recorded = np.load(small / f"{name}_blobs.npz")
    blob = "fc_fusion" if name == "msc" else "fc1_voc12"
    image = torch.from_numpy(np.load(small / "single_blobs.npz")["data"])
    expected = torch.from_numpy(recorded[blob])
    with torch.inference_mode():
        whole = load(out, optimize="inference", precision="fp32")(image)
        narrow = load(out, optimize="inference", precision="bf16")(image)
    assert apart(whole, expected) < FP32
    assert agreement(whole, expected) == 1
    assert apart(narrow, expected) < BF16
    assert agreement(narrow, expected) >= 0.99


def test_an_evaluation_states_the_precision_that_the_network_has(
    make_net: Make, tiny_config: DeepLabV2Config, tmp_path: Path
) -> None:
    config = replace(tiny_config, classes=4)
    convert_caffe(*make_net(config), tmp_path / "x.safetensors")
    shapes = open_dataset(write_shapes(tmp_path / "shapes", 1, 2, size=(41, 57)), "val")
    for precision in ("fp32", "bf16"):
        quick: Any = load(tmp_path / "x.safetensors", optimize="inference", precision=precision)  # type: ignore[call-overload]
        assert evaluate(quick, shapes, Protocol(size=0)).precision == precision


@pytest.mark.slow
@pytest.mark.golden
def test_classes_hold_on_trained_weights(
    shared: Path, make_net: Make, tiny_config: DeepLabV2Config, tmp_path: Path
) -> None:
    config = replace(tiny_config, classes=11, stem=8, widths=(8, 12, 16, 16))
    convert_caffe(*make_net(config), tmp_path / "x.safetensors")
    camvid = shared / "data" / "camvid"
    how = TrainConfig(
        data=str(camvid), crop=161, batch_size=6, accumulate=1, lr=1e-2, steps=100,
        solver="adamw", groups="flat", batch_norm="trained", val_split="", workers=0,
        tensorboard=False,
    )  # fmt: skip
    trained = finetune(tmp_path / "x.safetensors", how, tmp_path / "run").path
    plain = load(trained)
    samples = open_dataset(camvid, "val").samples[:20:4]
    images = torch.cat([prepare(read_photo(one.image), plain.numerics) for one in samples])
    with torch.inference_mode():
        expected = resize(plain(images), images.shape[-2:], plain.numerics)
        for precision, least in (("fp32", 0.9999), ("bf16", 0.995)):
            quick: Any = load(trained, optimize="inference", precision=precision)  # type: ignore[call-overload]
            found = resize(quick(images), images.shape[-2:], plain.numerics)
            assert agreement(found, expected) >= least


@pytest.mark.usefixtures("weights")
def test_the_command_line_does_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(photo(41, 57, 0)).save("photo.png")
    plain = ("predict", "x.safetensors", "photo.png", "--size", "65", "--probabilities", "npy")
    runner = CliRunner()
    for folder, more in (
        ("plain", []), ("fp32", ["--optimize", "--precision", "fp32"]),
        ("bf16", ["--optimize", "--precision", "bf16"]),
    ):  # fmt: skip
        found = runner.invoke(cli, [*plain, "-o", folder, *more])
        assert found.exit_code == 0, found.output
    shares = [
        torch.from_numpy(np.load(Path(folder, "photo-probabilities.npy")))
        for folder in ("plain", "fp32", "bf16")
    ]
    assert apart(shares[1], shares[0]) < FP32
    assert 1e-5 < apart(shares[2], shares[0]) < BF16


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated:DeprecationWarning")  # Its own use.
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_compiled_one_scores_the_same(weights: Path, image: Tensor, precision: str) -> None:
    plain = load(weights)
    quick: Any = load(weights, optimize="compiled", precision=precision)  # type: ignore[call-overload]
    with torch.inference_mode():
        assert apart(quick(image), plain(image)) < (FP32 if precision == "fp32" else BF16)

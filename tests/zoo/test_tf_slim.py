"""The tf-slim profile: the converted network against what real TensorFlow computed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import deeplab_zoo
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config
from deeplab_zoo.converters.numerics import CAFFE_V2, TF_SLIM
from deeplab_zoo.zoo.models.deeplab_v2 import DeepLabV2
from deeplab_zoo.zoo.models.inference import prepare
from deeplab_zoo.zoo.models.resampling import resize, scaled
from deeplab_zoo.zoo.parity.comparison import TOLERANCE, compare

ARGMAX = 0.9999

# TensorFlow's name of an activation and the module whose output it is. In DrSleep's network
# a batch norm may end in a ReLU, and then its name is that of the result.
MODULES = {
    "conv1": "backbone.conv1",
    "bn_conv1": "backbone.relu",
    "pool1": "backbone.maxpool",
    "res2a_branch1": "backbone.layer1.0.downsample.0",
    "bn2a_branch1": "backbone.layer1.0.downsample.1",
    "bn2a_branch2b": "backbone.layer1.0.relu2",
    "res2a_relu": "backbone.layer1.0",
    "res2c_relu": "backbone.layer1.2",
    "res3a_branch1": "backbone.layer2.0.downsample.0",
    "res3a_relu": "backbone.layer2.0",
    "res3b3_relu": "backbone.layer2.3",
    "res4a_branch2b": "backbone.layer3.0.conv2",
    "res4a_relu": "backbone.layer3.0",
    "res4b1_relu": "backbone.layer3.1",
    "res4b11_relu": "backbone.layer3.11",
    "res4b22_relu": "backbone.layer3.22",
    "res5a_branch2b": "backbone.layer4.0.conv2",
    "res5a_relu": "backbone.layer4.0",
    "res5c_relu": "backbone.layer4.2",
    "fc1_voc12_c0": "classifier.convs.0",
    "fc1_voc12_c1": "classifier.convs.1",
    "fc1_voc12_c2": "classifier.convs.2",
    "fc1_voc12_c3": "classifier.convs.3",
    "fc1_voc12": "classifier",
}
NOT_ACTIVATIONS = {"input_nhwc_bgr_minus_mean", "crop_yxhw", "fc1_voc12_float64"}

Arrays = Mapping[str, np.ndarray[Any, Any]]


@pytest.fixture(scope="module")
def tf(shared: Path) -> Path:
    return shared / "golden" / "tf" / "small"


@pytest.fixture(scope="module")
def model(tf: Path, tmp_path_factory: pytest.TempPathFactory) -> DeepLabV2:
    return converted(tf, tmp_path_factory.mktemp("single"), multi_scale=False)


@pytest.fixture(scope="module")
def multi(tf: Path, tmp_path_factory: pytest.TempPathFactory) -> DeepLabV2:
    return converted(tf, tmp_path_factory.mktemp("multi"), multi_scale=True)


def converted(tf: Path, folder: Path, *, multi_scale: bool) -> DeepLabV2:
    out = folder / "x.safetensors"
    deeplab_zoo.convert_tensorflow(tf / "v2" / "model.ckpt", out, multi_scale=multi_scale)
    return deeplab_zoo.load(out)


def golden(path: Path) -> Arrays:
    """Read activations, brought from (batch, height, width, channels) to ours."""
    with np.load(path) as file:
        return {
            name: file[name].transpose(0, 3, 1, 2) if file[name].ndim == 4 else file[name]
            for name in file.files
        }


@torch.inference_mode()
def outputs(model: DeepLabV2, image: torch.Tensor) -> dict[str, list[torch.Tensor]]:
    """Run the model and return what each of `MODULES` gave, call by call."""
    found: dict[str, list[torch.Tensor]] = {name: [] for name in MODULES}
    modules = dict(model.named_modules())
    hooks = []
    for name, place in MODULES.items():

        def hook(_: nn.Module, __: object, output: torch.Tensor, name: str = name) -> None:
            found[name].append(output.clone())  # The next layer may work in place.

        hooks.append(modules[place].register_forward_hook(hook))
    try:
        found["out"] = [model(image)]
    finally:
        for handle in hooks:
            handle.remove()
    return found


def check(blob: str, ours: torch.Tensor, expected: np.ndarray[Any, Any]) -> None:
    found = compare(blob, ours.numpy(), expected)
    assert found.relative_l2 <= TOLERANCE, str(found)


def agreement(scores: torch.Tensor, pred: np.ndarray[Any, Any]) -> float:
    full = resize(scores, pred.shape[-2:], TF_SLIM)
    return float(np.mean(full.argmax(1).numpy() == pred))


@pytest.mark.golden
@pytest.mark.parametrize("size", ["97x129", "96x128", "65x66", "7x9"])
def test_every_activation_of_real_tensorflow_is_reproduced(
    model: DeepLabV2, tf: Path, size: str
) -> None:
    expected = golden(tf / f"forward_{size}.npz")
    image = torch.from_numpy(np.ascontiguousarray(expected["input_nhwc_bgr_minus_mean"]))
    ours = outputs(model, image)
    compared = set()
    for name in MODULES:
        if name in expected:
            (one,) = ours[name]
            check(name, one, expected[name])
            compared.add(name)
    (scores,) = ours["out"]
    check("fc1_voc12_float64", scores, expected["fc1_voc12_float64"])
    if "fc1_voc12_up" in expected:
        check("fc1_voc12_up", resize(scores, image.shape[-2:], TF_SLIM), expected["fc1_voc12_up"])
        compared.add("fc1_voc12_up")
    assert agreement(scores, expected["pred"]) >= ARGMAX
    assert set(expected) - compared == NOT_ACTIVATIONS | {"pred"}
    assert len(compared) == (25 if size == "97x129" else 5)


@pytest.mark.golden
def test_every_step_of_evaluate_msc_is_reproduced(multi: DeepLabV2, tf: Path) -> None:
    expected = golden(tf / "forward_msc_97x129.npz")
    single = golden(tf / "forward_97x129.npz")
    image = torch.from_numpy(np.ascontiguousarray(single["input_nhwc_bgr_minus_mean"]))
    check("image075", scaled(image, 0.75, TF_SLIM), expected["image075"])
    check("image05", scaled(image, 0.5, TF_SLIM), expected["image05"])
    ours = outputs(multi, image)
    full, three_quarters, half = ours["fc1_voc12"]
    check("score100", full, expected["score100"])
    check("score075", three_quarters, expected["score075"])
    check("score05", half, expected["score05"])
    check("score075_up", resize(three_quarters, full.shape[-2:], TF_SLIM), expected["score075_up"])
    check("score05_up", resize(half, full.shape[-2:], TF_SLIM), expected["score05_up"])
    (fused,) = ours["out"]
    check("fused", fused, expected["fused"])
    assert agreement(fused, expected["pred"]) >= ARGMAX
    assert len(expected) == 9


@pytest.mark.golden
def test_evaluating_as_another_profile_is_another_function(tf: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.safetensors"
    deeplab_zoo.convert_tensorflow(tf / "v2" / "model.ckpt", out)
    other = deeplab_zoo.load(out, evaluate_as="caffe-v2")
    assert other.numerics == CAFFE_V2
    assert other.backbone.bn1.eps == 1e-5
    expected = golden(tf / "forward_96x128.npz")
    with torch.no_grad():
        scores = other(torch.tensor(expected["input_nhwc_bgr_minus_mean"]))
    assert scores.shape == (1, 21, 13, 17)  # Explicit padding; SAME gives 12 and 16.
    assert expected["fc1_voc12"].shape == (1, 21, 12, 16)


def random_model(**changes: Any) -> DeepLabV2:
    torch.manual_seed(0)
    return DeepLabV2(DeepLabV2Config(5, (1, 2, 4, 3), 4, (2, 3, 4, 5), **changes), TF_SLIM).eval()


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 9), (33, 48)])
def test_same_padding_gives_an_eighth_rounded_up(size: tuple[int, int]) -> None:
    for model in (random_model(), random_model(scales=(1.0, 0.75, 0.5))):
        if len(model.config.scales) > 1 and min(size) < 2:
            continue  # Half a pixel is none.
        with torch.no_grad():
            scores = model(torch.randn(2, 3, *size))
        assert scores.shape == (2, 5, -(-size[0] // 8), -(-size[1] // 8))
        assert scores.isfinite().all()


def check_compiled(scales: tuple[float, ...], sizes: list[tuple[int, int]], **how: Any) -> None:
    torch.compiler.reset()
    model = DeepLabV2(DeepLabV2Config(3, (1, 1, 1, 1), 4, (2, 2, 2, 2), scales=scales), TF_SLIM)
    compiled = torch.compile(model.eval(), fullgraph=True, backend="eager", **how)
    for size in sizes:
        image = torch.randn(1, 3, *size)
        with torch.no_grad():
            torch.testing.assert_close(compiled(image), model(image))


def test_the_model_compiles_without_graph_breaks() -> None:
    check_compiled((1.0, 0.5), [(65, 96)], dynamic=False)


@pytest.mark.slow
@pytest.mark.parametrize("scales", [(1.0,), (1.0, 0.75, 0.5)])
def test_the_model_compiles_for_all_sizes_at_once(scales: tuple[float, ...]) -> None:
    check_compiled(scales, [(65, 96), (70, 81)], dynamic=True)


def test_photos_are_not_padded_and_the_mean_is_drsleeps() -> None:
    image = np.random.default_rng(0).integers(0, 256, (21, 34, 3), dtype=np.uint8)
    x = prepare(image, TF_SLIM)
    assert x.shape == (1, 3, 21, 34)
    mean = np.array([104.00698793, 116.66876762, 122.67891434], np.float32)
    np.testing.assert_array_equal(x[0].permute(1, 2, 0).numpy(), image[..., ::-1] - mean)
    assert random_model().predict(image).shape == (21, 34)


def test_evaluate_as_is_a_profile_of_another_name(tmp_path: Path) -> None:
    from deeplab_zoo.converters import weights
    from deeplab_zoo.converters.archive import Origin

    model = random_model()
    state = {
        name: tensor.numpy()
        for name, tensor in model.state_dict().items()
        if "num_batches" not in name
    }
    path = tmp_path / "x.safetensors"
    weights.write(weights.Weights(state, model.config, TF_SLIM, Origin("x", {}, "x")), path)
    assert deeplab_zoo.load(path).numerics == TF_SLIM
    assert deeplab_zoo.load(path, evaluate_as="torch-halfpixel").numerics.resize == "half_pixel"
    with pytest.raises(deeplab_zoo.ZooError, match="numerics profile 'caffe' is unknown"):
        deeplab_zoo.load(path, evaluate_as="caffe")
    with pytest.raises(deeplab_zoo.ZooError, match="trained under 'tf-slim', asked for 'caffe-v2'"):
        deeplab_zoo.load(path, numerics="caffe-v2")

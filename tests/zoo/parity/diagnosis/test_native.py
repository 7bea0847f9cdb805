"""Ten faults in a native model."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
import torch
from torch import nn

import deeplab_zoo
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config
from deeplab_zoo.converters.naming.deeplab_v2 import context_of, from_canonical
from deeplab_zoo.converters.write_caffe import deploy_net, filled
from deeplab_zoo.zoo.demo import BN_FACTOR, random_blobs, write_net
from deeplab_zoo.zoo.models.deeplab_v2 import DeepLabV2
from deeplab_zoo.zoo.models.resampling import pad_same
from deeplab_zoo.zoo.parity.original import Original, open_original

from .planting import SEEDS, SIZE, Planted, proven, told


def caffe_name(model: DeepLabV2, module: str) -> str:
    return from_canonical("caffe", module, context_of(model.config.blocks))


def pick(
    model: DeepLabV2, kind: type[nn.Module], random: Random, at: str = ""
) -> tuple[str, nn.Module]:
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, kind) and at in name
    ]
    return random.choice(found)


def wrong_eps(model: DeepLabV2, random: Random) -> Planted:
    name, norm = pick(model, nn.BatchNorm2d, random)
    norm.eps = 1e-3
    return caffe_name(model, name), "bn_eps"


def floor_pooling(model: DeepLabV2, _: Random) -> Planted:
    model.backbone.maxpool.ceil_mode = False
    return "pool1", "pooling size"


def half_pixel(model: DeepLabV2, _: Random) -> Planted:
    model.numerics = replace(model.numerics, resize="half_pixel")
    return "data_res075" if len(model.config.scales) > 1 else "fc1_interp", "resize"


def swapped_channels(model: DeepLabV2, _: Random) -> Planted:
    model.numerics = replace(model.numerics, channel_order="RGB")
    return "data", "channel_order"


def ignored_factor(model: DeepLabV2, random: Random) -> Planted:
    name, norm = pick(model, nn.BatchNorm2d, random)
    norm.running_mean *= float(BN_FACTOR)
    norm.running_var *= float(BN_FACTOR)
    return caffe_name(model, name), "BatchNorm factor"


def padding_side(model: DeepLabV2, _: Random) -> Planted:
    conv = model.backbone.conv1
    conv.padding = (0, 0)
    conv.register_forward_pre_hook(lambda _, args: pad_same(args[0], 7, 2))
    return "conv1", "padding"


def wrong_dilation(model: DeepLabV2, random: Random) -> Planted:
    name, conv = pick(model, nn.Conv2d, random, random.choice(["layer4", "layer3"]))
    while conv.kernel_size == (1, 1):
        name, conv = pick(model, nn.Conv2d, random, "layer")
    rate = 1 if conv.dilation[0] > 1 else 2
    conv.dilation = conv.padding = (rate, rate)
    return caffe_name(model, name), "dilation"


def permuted_filter(model: DeepLabV2, random: Random) -> Planted:
    name, conv = pick(model, nn.Conv2d, random)
    with torch.no_grad():
        conv.weight[:2] = conv.weight[:2].flip(0)
    return caffe_name(model, name), ""


def dropped_bias(model: DeepLabV2, random: Random) -> Planted:
    name, conv = pick(model, nn.Conv2d, random, "classifier")
    nn.init.zeros_(conv.bias)
    return caffe_name(model, name), ""


def flipped_bit(model: DeepLabV2, random: Random) -> Planted:
    name, conv = pick(model, nn.Conv2d, random)
    with torch.no_grad():
        bits = conv.weight.view(torch.int32).view(-1)
        bits[random.randrange(len(bits))] ^= 1 << random.randrange(23)
    return caffe_name(model, name), ""


FAULTS = (
    wrong_eps, floor_pooling, half_pixel, swapped_channels, ignored_factor, padding_side,
    wrong_dilation, permuted_filter, dropped_bias, flipped_bit,
)  # fmt: skip


@pytest.fixture(scope="module", params=["single", "multi"])
def native(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    tiny_config: DeepLabV2Config,
    tiny_multi: DeepLabV2Config,
) -> tuple[Callable[[], DeepLabV2], Original]:
    folder = tmp_path_factory.mktemp(request.param)
    config = {"single": tiny_config, "multi": tiny_multi}[request.param]
    text, binary, out = (folder / f"net.{end}" for end in ("prototxt", "caffemodel", "pth"))
    write_net(filled(deploy_net(config, *SIZE), random_blobs(config, 1)), text, binary)
    deeplab_zoo.convert_caffe(text, binary, out)
    return lambda: deeplab_zoo.load(out), open_original([text, binary])


def test_a_sound_model_passes_without_a_diagnosis(
    native: tuple[Callable[[], DeepLabV2], Original],
) -> None:
    make, original = native
    report = proven(make(), original)
    assert report.passed
    assert report.diagnosis is None


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_planted_in_a_native_model_fails_and_is_told(
    native: tuple[Callable[[], DeepLabV2], Original],
    fault: Callable[[DeepLabV2, Random], Planted],
    seed: int,
) -> None:
    make, original = native
    model = make()
    expected = fault(model, Random(f"{fault.__name__} {seed}"))
    told(proven(model, original), expected)

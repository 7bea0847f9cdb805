import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from deeplab_zoo.converters import families
from deeplab_zoo.converters.architectures import ARCHITECTURES, config_of, demand, drawn, find
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config
from deeplab_zoo.converters.largefov import LargeFOVConfig
from deeplab_zoo.converters.numerics import TF_SLIM, profile
from deeplab_zoo.proto.errors import MismatchError, UsageError

NARROW = DeepLabV2Config(classes=5, blocks=(1, 2, 1, 1), stem=6, widths=(4, 5, 6, 7))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_name_stands_for_a_config_of_its_family(name: str) -> None:
    config = config_of(name)
    demand(config, name)
    assert families.of_config(config).name == ARCHITECTURES[name].family
    assert profile(ARCHITECTURES[name].numerics)


def test_no_two_names_are_one_net() -> None:
    assert len({repr(config_of(name)) for name in ARCHITECTURES}) == len(ARCHITECTURES)


def test_the_published_nets_are_what_their_papers_say() -> None:
    assert config_of("deeplabv2-resnet101") == DeepLabV2Config(blocks=(3, 4, 23, 3))
    assert config_of("largefov") == LargeFOVConfig(rates=(12,), average=True)
    assert config_of("deeplabv2-vgg16") == LargeFOVConfig(rates=(6, 12, 18, 24), average=False)


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(
        UsageError, match=r"largefov-msc, .*\. Did you mean 'deeplabv2-resnet101'\?"
    ):
        find("deeplabv2-resnet-101")


def test_classes_and_scales_are_a_runs_own() -> None:
    demand(DeepLabV2Config(classes=11, scales=(1.0, 0.5)), "deeplabv2-resnet101")


def test_another_net_is_refused_with_what_differs() -> None:
    with pytest.raises(MismatchError, match=r"blocks \[3, 4, 6, 3\], not \[3, 4, 23, 3\]"):
        demand(config_of("deeplabv2-resnet50"), "deeplabv2-resnet101")
    with pytest.raises(MismatchError, match=r"of a DeepLab v2 ResNet, expected largefov"):
        demand(NARROW, "largefov")


def test_drawn_weights_are_all_of_a_net_and_depend_on_the_seed_alone() -> None:
    made = drawn(NARROW, 3, TF_SLIM)
    shapes = families.DEEPLAB_V2.parameters(NARROW)
    assert {name: one.shape for name, one in made.state.items()} == shapes
    assert all(one.dtype == np.float32 for one in made.state.values())
    assert (made.numerics, made.config, made.origin.files) == (TF_SLIM, NARROW, {})
    again, other = drawn(NARROW, 3, TF_SLIM), drawn(NARROW, 4, TF_SLIM)
    assert all((made.state[name] == again.state[name]).all() for name in shapes)
    assert (made.state["backbone.conv1.weight"] != other.state["backbone.conv1.weight"]).all()
    # A wider backbone leaves the first layer's values alone: each is drawn by its name.
    wider = drawn(replace(NARROW, widths=(4, 5, 6, 9)), 3, TF_SLIM)
    name = "backbone.layer1.0.conv1.weight"
    assert (made.state[name] == wider.state[name]).all()


def test_drawn_convolutions_keep_the_size_of_what_they_get() -> None:
    made = drawn(replace(NARROW, widths=(64, 64, 64, 64)), 0, TF_SLIM)
    weight = made.state["backbone.layer2.0.conv2.weight"]
    # He: variance 2 / inputs. The mean of 36864 squares is within 2 % (four deviations).
    assert np.square(weight).mean() == pytest.approx(2 / (64 * 9), rel=0.03)
    assert (made.state["backbone.bn1.running_var"] == 1).all()
    assert (made.state["backbone.bn1.running_mean"] == 0).all()


def test_the_names_import_nothing_heavy() -> None:
    script = (
        "import sys; import deeplab_zoo.converters.architectures\n"
        "assert not {'torch', 'numpy', 'h5py'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)

"""What a frozen graph shows of a TensorFlow DeepLab, and graphs that are refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deeplab_zoo.converters import frozen
from deeplab_zoo.converters.deeplab_v3 import DeepLabV3Config, dilations
from deeplab_zoo.converters.naming.deeplab_v3 import NAMING
from deeplab_zoo.proto.checkpoint_records import Variable
from deeplab_zoo.proto.errors import MismatchError
from deeplab_zoo.proto.frozen_graph import FrozenGraph

XCEPTION = DeepLabV3Config(style="tensorflow", backbone="xception65", decoder=True)
MOBILENET = DeepLabV3Config(style="tensorflow", backbone="mobilenet_v2", decoder=False, rates=())


def scope(module: str) -> str:
    return NAMING.from_canonical("tensorflow", module, {})


def layers(config: DeepLabV3Config) -> dict[str, int]:
    """Return the rates of a config's layers under TensorFlow's names."""
    return {scope(module): rate for module, rate in dilations(config).items()}


def graph(*names: str, operations: tuple[str, ...] = (), **changes: Any) -> FrozenGraph:
    constants = {
        name: Variable(name, (1,), "float32", lambda: np.ones(1, np.float32)) for name in names
    }
    values = {"operations": frozenset(("Const", *operations)), "dilations": {}, **changes}
    return FrozenGraph(Path("x.pb"), constants, **values)


NORMED = ("aspp0/weights", "aspp0/BatchNorm/moving_variance")


@pytest.mark.parametrize("base", [XCEPTION, MOBILENET], ids=["xception", "mobilenet"])
@pytest.mark.parametrize(("stride", "rates"), [(16, (6, 12, 18)), (8, (12, 24, 36))])
def test_dilations_tell_output_stride_and_rates(
    base: DeepLabV3Config, stride: int, rates: tuple[int, ...]
) -> None:
    rates = rates if base.rates else ()
    config = DeepLabV3Config(
        style="tensorflow", backbone=base.backbone, decoder=base.decoder,
        output_stride=stride, rates=rates,
    )  # fmt: skip
    found = layers(config)
    assert frozen.settings(found) == {"output_stride": (float(stride),), "rates": rates}
    frozen.check(found, config)


def test_a_graph_that_dilates_otherwise_is_refused() -> None:
    # A multi-grid, which no published net of the zoo has.
    found = layers(XCEPTION)
    where = "xception_65/exit_flow/block2/unit_1/xception_module/separable_conv"
    changed = {**found, f"{where}2_depthwise": 4, f"{where}3_depthwise": 8}
    assert frozen.settings(changed)["output_stride"] == (8.0,)
    with pytest.raises(
        MismatchError, match=r"2 convolutions .*\n.*separable2\.depthwise.*4, exp.* 2"
    ):
        frozen.check(changed, XCEPTION)
    with pytest.raises(MismatchError, match=r"aspp|branches\.1\.depthwise\.conv: 1, expected 6"):
        frozen.check({k: v for k, v in found.items() if "aspp1" not in k}, XCEPTION)


def test_operations_belong_to_the_layer_whose_scope_they_stand_in() -> None:
    found = frozen.read_graph(
        graph(
            *NORMED,
            "aspp1_depthwise/depthwise_weights",
            "sub/y",
            "weights",
            "MobilenetV2/Conv/weights",
            dilations={"aspp1_depthwise/depthwise/SpaceToBatchND_1": 6, "elsewhere/Conv2D": 3},
        )
    )
    assert found.rates == {"aspp1_depthwise": 6}
    kept = [*NORMED, "aspp1_depthwise/depthwise_weights", "MobilenetV2/Conv/weights"]
    assert list(found.variables) == kept
    assert found.dropped == (("sub/y", frozen.CONSTANT), ("weights", frozen.CONSTANT))


def test_a_scope_before_the_net_is_taken_off() -> None:
    names = ("net/MobilenetV2/Conv/weights", "net/aspp0/BatchNorm/moving_variance")
    dilated = {"net/MobilenetV2/Conv/convolution/SpaceToBatchND": 2}
    assert frozen.read_graph(graph(*names, dilations=dilated)).rates == {"MobilenetV2/Conv": 2}


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (graph(*NORMED, operations=("FakeQuantWithMinMaxVars",)), "quantised graph .FakeQuantW"),
        (graph(*NORMED, operations=("QuantizedConv2D",)), "quantised graph .QuantizedConv2D"),
        (graph("aspp0/weights", "aspp0/biases"), "2 weights and no batch norm among 2 constants"),
        (graph("x/y"), "0 weights and no batch norm among 1 constants"),
    ],
)
def test_a_graph_without_the_weights_as_trained_points_to_the_checkpoint(
    made: FrozenGraph, message: str
) -> None:
    with pytest.raises(MismatchError, match=rf"x.pb: .*{message}.*[Cc]onvert the checkpoint"):
        frozen.read_graph(made)

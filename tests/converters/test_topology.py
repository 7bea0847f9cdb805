from collections.abc import Callable

import pytest

from deeplab_zoo.converters import caffe_graph, write_caffe
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config, network
from deeplab_zoo.converters.naming.deeplab_v2 import to_canonical
from deeplab_zoo.converters.topology import Table, differences
from deeplab_zoo.proto import prototxt
from deeplab_zoo.proto.caffe_pb2 import LayerParameter
from deeplab_zoo.proto.records import Layer, Net

Edit = Callable[[LayerParameter], None]


def compared(net: Net, config: DeepLabV2Config) -> list[str]:
    """Say where a net differs from the architecture; empty when it is the same."""

    def module(layer: str) -> str:
        found = to_canonical("caffe", layer)
        return found[0] if found else layer

    table = Table()
    expected = network(table, config, 1e-5)
    found = caffe_graph.enter(table, caffe_graph.select(net), module)
    return [] if expected in found else list(differences(table, expected, found))


def edited(net: Net, layer: str, edit: Edit) -> Net:
    """Change one layer's settings."""
    layers = []
    for one in net.layers:
        params = LayerParameter()
        params.CopyFrom(one.params)
        if one.name == layer:
            edit(params)
        layers.append(
            Layer(params.name, params.type, tuple(params.bottom), tuple(params.top), params)
        )
    return Net(net.name, tuple(layers))


@pytest.mark.parametrize("scales", [(1.0,), (1.0, 0.75, 0.5)])
def test_the_net_we_write_is_the_net_we_state(
    tiny_config: DeepLabV2Config, scales: tuple[float, ...]
) -> None:
    config = DeepLabV2Config(5, tiny_config.blocks, 4, tiny_config.widths, scales=scales)
    net = write_caffe.deploy_net(config, 65, 97)
    assert compared(net, config) == []
    assert compared(prototxt.parse_net(prototxt.format_net(net), "text"), config) == []


def setting(path: str, value: object) -> Edit:
    message, field = path.split(".")

    def edit(params: LayerParameter) -> None:
        target = getattr(params, message)
        if isinstance(value, list):
            del getattr(target, field)[:]
            getattr(target, field).extend(value)
        else:
            setattr(target, field, value)

    return edit


FAULTS = {
    "dilation": ("res4b1_branch2b", setting("convolution_param.dilation", [1]), "dilation 1, expected 2"),
    "padding": ("res5a_branch2b", setting("convolution_param.pad", [3]), "pad 3, expected 4"),
    "stride": ("res3a_branch2a", setting("convolution_param.stride", [1]), "stride 1, expected 2"),
    "kernel": ("pool1", setting("pooling_param.kernel_size", 2), "max-pool of relu of affine backbone.bn1"),
    "floor pooling": ("pool1", setting("pooling_param.round_mode", 1), "round floor, expected ceil"),
    "average pooling": ("pool1", setting("pooling_param.pool", 1), "not in the file"),
    "epsilon": ("bn2a_branch1", setting("batch_norm_param.eps", 1e-3), "eps 0.001, expected 1e-05"),
    "leaky relu": ("conv1_relu", setting("relu_param.negative_slope", 0.1), "relu of affine backbone.bn1: not in"),
    "groups": ("res4b3_branch2b", setting("convolution_param.group", 2), "group 2, expected 1"),
    "product for sum": ("res3a", setting("eltwise_param.operation", 0), "not in the file"),
    "weighted sum": ("res3a", setting("eltwise_param.coeff", [1, 0.5]), "not in the file"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_net_that_computes_something_else_is_told_apart_and_the_layer_named(
    tiny_config: DeepLabV2Config, fault: str
) -> None:
    layer, edit, complaint = FAULTS[fault]
    net = edited(write_caffe.deploy_net(tiny_config, 65, 97), layer, edit)
    found = compared(net, tiny_config)
    assert complaint in found[0]
    if layer.startswith(("res", "bn")) and "expected" in complaint:
        assert layer in found[0]


def test_a_missing_relu_and_a_rewired_shortcut_are_found(tiny_config: DeepLabV2Config) -> None:
    net = write_caffe.deploy_net(tiny_config, 65, 97)
    without = Net("n", tuple(one for one in net.layers if one.name != "res3a_branch2a_relu"))
    assert (
        "relu of affine backbone.layer2.0.bn1: not in the file" in compared(without, tiny_config)[0]
    )

    def rewire(params: LayerParameter) -> None:
        params.bottom[0] = "res2a"

    assert "res3b" in compared(edited(net, "res3b", rewire), tiny_config)[0] or compared(
        edited(net, "res3b", rewire), tiny_config
    )


def test_dropout_and_split_change_nothing_and_extra_outputs_do_not_matter(
    tiny_config: DeepLabV2Config,
) -> None:
    net = write_caffe.deploy_net(tiny_config, 65, 97)
    text = (
        prototxt.format_net(net)
        + """
    layer { name: 's' type: 'Softmax' bottom: 'fc1_voc12' top: 'prob' }
    layer { name: 'silence' type: 'Silence' bottom: 'prob' }
    """
    )
    text = text.replace(
        'name: "fc1_voc12_c0"\n  type: "Convolution"\n  bottom: "res5c"',
        'name: "fc1_voc12_c0"\n  type: "Convolution"\n  bottom: "res5c_drop"',
    ).replace(
        'layer {\n  name: "fc1_voc12_c0"',
        'layer { name: "d" type: "Dropout" bottom: "res5c" top: "res5c_drop" }\n'
        'layer {\n  name: "fc1_voc12_c0"',
    )
    assert compared(prototxt.parse_net(text, "text"), tiny_config) == []


def test_a_wrong_interp_factor_in_a_branch_is_found(tiny_multi: DeepLabV2Config) -> None:
    net = write_caffe.deploy_net(tiny_multi, 65, 97)
    found = compared(
        edited(net, "data_res05", setting("interp_param.shrink_factor", 4)), tiny_multi
    )
    assert any("factor 1/4, expected 1/2" in one for one in found)

"""What a net's text becomes: its inputs, blobs and weights."""

import io
from pathlib import Path

import pytest
import torch

from deeplab_zoo import load_caffe
from deeplab_zoo.proto.errors import MismatchError, UsageError

from .texts import CHAIN, given_input, net_of, one


def test_the_outputs_are_the_blobs_that_no_layer_reads() -> None:
    found = net_of(CHAIN)({"data": torch.tensor([[1.0, -3.0]])})
    assert {blob: value.tolist() for blob, value in found.items()} == {"y": [[0.0, 5.0]]}


def test_a_blob_changed_in_place_has_its_last_value() -> None:
    data = torch.tensor([[1.0, -3.0]])
    found = net_of(CHAIN)({"data": data}, blobs="all")
    assert found["x"].tolist() == [[3.0, -5.0]]
    assert data.tolist() == [[1.0, -3.0]]
    assert list(net_of(CHAIN)({"data": data}, blobs=["x", "data"])) == ["x", "data"]


def test_an_in_place_relu_leaves_the_callers_tensors_alone() -> None:
    text = given_input(1, 2) + one("ReLU", bottoms="data", tops="data")
    data = torch.tensor([[1.0, -3.0]])
    assert net_of(text)({"data": data})["data"].tolist() == [[1.0, 0.0]]
    assert data.tolist() == [[1.0, -3.0]]


def test_inputs_and_blobs_that_are_not_in_the_net_are_named() -> None:
    net = net_of(CHAIN)
    with pytest.raises(UsageError, match=r"\['image'\].*\['data'\]"):
        net({"image": torch.zeros(1, 2)})
    with pytest.raises(UsageError, match=r"\['z'\]: not in the net.*'x', 'y'"):
        net({"data": torch.zeros(1, 2)}, blobs=["z", "y"])


def test_other_sizes_than_the_files_are_taken_and_checked_before_anything_runs() -> None:
    text = given_input(1, 3, 5, 7) + one("InnerProduct", "inner_product_param { num_output: 2 }")
    net = net_of(text)
    assert net({"data": torch.zeros(4, 3, 7, 5)})["out"].shape == (4, 2)
    with pytest.raises(MismatchError, match=r"'l' \(line 2\).*'data' \[1, 3, 5, 8\].*\[2, 105\]"):
        net({"data": torch.zeros(1, 3, 5, 8)})
    assert net.sizes({"data": (2, 3, 5, 7)}) == {"data": (2, 3, 5, 7), "out": (2, 2)}


def test_weights_are_named_by_layer_and_role() -> None:
    text = given_input(1, 2, 4, 4) + (
        "layer { name: 'conv1.1/a' type: 'Convolution' bottom: 'data' top: 'c'"
        " convolution_param { num_output: 3 kernel_size: 2 } }"
        "layer { name: 'bn' type: 'BatchNorm' bottom: 'c' top: 'c' }"
        "layer { name: 'forward' type: 'Scale' bottom: 'c' top: 'c' scale_param { bias_term: true } }"
    )
    assert {key: tuple(value.shape) for key, value in net_of(text).state_dict().items()} == {
        "conv1_1/a.weight": (3, 2, 2, 2),
        "conv1_1/a.bias": (3,),
        "bn.mean": (3,),
        "bn.variance": (3,),
        "forward_2.gamma": (3,),
        "forward_2.beta": (3,),
    }


def test_parameters_shared_by_name_are_one_tensor(golden: Path) -> None:
    folder = golden / "caffe"
    net = load_caffe(folder / "shared_weights.prototxt", folder / "shared_weights.caffemodel.h5")
    assert net.get_parameter("conv_a.weight") is net.get_parameter("conv_b.weight")
    assert len(list(net.parameters())) == 2
    assert net.notes == ()


def test_a_state_dict_fills_a_net_made_without_weights(golden: Path) -> None:
    folder = golden / "caffe"
    full = load_caffe(folder / "fmt_v1.prototxt", folder / "fmt_new.caffemodel")
    empty = load_caffe(folder / "fmt_v1.prototxt")
    empty.load_state_dict(full.state_dict())
    data = {"data": torch.randn(2, 3, 8, 10)}
    assert torch.equal(empty(data)["prob"], full(data)["prob"])


def test_data_layers_become_inputs_whose_shapes_the_caller_may_give() -> None:
    text = (
        "layer { name: 'd' type: 'ImageData' top: 'data' top: 'label' image_data_param { source: 'x' } }"
        + one("InnerProduct", "inner_product_param { num_output: 2 }")
        + "layer { name: 'loss' type: 'SoftmaxWithLoss' bottom: 'out' bottom: 'label' }"
    )
    with pytest.raises(MismatchError, match="'l' .line 1.: no weights.*shapes are not known"):
        net_of(text)
    net = net_of(text, shapes={"data": (4, 3)})
    assert (net.inputs, net.outputs) == ({"data": (4, 3), "label": None}, ("loss",))
    inputs = {"data": torch.randn(4, 3), "label": torch.tensor([0.0, 1.0, 1.0, 0.0])}
    assert net(inputs)["loss"].isfinite()
    with pytest.raises(MismatchError, match="one label for each"):
        net({**inputs, "label": torch.zeros(3)})
    with pytest.raises(UsageError, match="inputs are"):
        net_of(text, shapes={"dat": (4, 3)})


def test_a_net_can_be_exported_with_its_dict_of_inputs() -> None:
    text = given_input(2, 3, 9, 11) + (
        "layer { name: 'c' type: 'Convolution' bottom: 'data' top: 'c' convolution_param"
        " { num_output: 4 kernel_size: 3 weight_filler { type: 'xavier' } } }"
        "layer { name: 'r' type: 'ReLU' bottom: 'c' top: 'c' }"
        "layer { name: 'p' type: 'Pooling' bottom: 'c' top: 'p' pooling_param { pool: AVE kernel_size: 5 pad: 3 stride: 2 } }"
        "layer { name: 's' type: 'Slice' bottom: 'p' top: 'a' top: 'b' }"
        "layer { name: 'f' type: 'ArgMax' bottom: 'a' top: 'f' argmax_param { axis: 1 top_k: 2 } }"
        "layer { name: 'w' type: 'Crop' bottom: 'data' bottom: 'b' top: 'w' crop_param { offset: 1 } }"
    )
    net = net_of(text)
    inputs = {"data": torch.randn(2, 3, 9, 11)}
    exported = torch.export.export(net, (inputs,), {"blobs": "all"}).module()
    found, expected = exported(inputs, blobs="all"), net(inputs, blobs="all")
    assert list(found) == list(expected)
    assert all(torch.equal(found[blob], expected[blob]) for blob in expected)


def test_no_more_is_computed_than_the_blobs_need() -> None:
    text = (
        given_input(1, 2)
        + one("Power", "power_param { scale: 2 }", tops="a")
        + (
            "layer { name: 'e' type: 'Embed' bottom: 'data' top: 'b' embed_param { num_output: 1 input_dim: 1 } }"
        )
    )
    net = net_of(text)
    data = {"data": torch.tensor([[3.0, 5.0]])}
    assert net(data, blobs=["a"])["a"].tolist() == [[6.0, 10.0]]
    with pytest.raises(IndexError):
        net(data)


def test_a_batch_norm_is_joined_with_its_scale_only_where_no_one_sees_it() -> None:
    text = given_input(2, 3, 4, 5) + (
        "layer { name: 'n' type: 'BatchNorm' bottom: 'data' top: 'n' }"
        "layer { name: 's' type: 'Scale' bottom: 'n' top: 's' scale_param { bias_term: true } }"
        "layer { name: 'r' type: 'ReLU' bottom: 's' top: 's' }"
    )
    net = net_of(text)
    for buffer in net.state_dict().values():
        buffer.uniform_(0.5, 2)
    data = {"data": torch.randn(2, 3, 4, 5)}
    everything, joined = net(data, blobs="all"), net(data)
    torch.testing.assert_close(joined["s"], everything["s"], rtol=1e-5, atol=1e-6)
    shape = (1, 3, 1, 1)
    mean, variance = net.n.mean.view(shape), net.n.variance.view(shape)  # type: ignore[union-attr, operator]
    torch.testing.assert_close(everything["n"], (data["data"] - mean) / (variance + 1e-5).sqrt())


def test_layers_may_have_any_name() -> None:
    names = ["blobs", "steps", "forward", "a.b", "a_b", "a[0", "x;y,z", '\\"', "\\n", "", "ü/1x1"]
    text = given_input(1, 2)
    for index, name in enumerate(names):
        bottom = f"t{index - 1}" if index else "data"
        text += one("PReLU", bottoms=bottom, tops=f"t{index}").replace("'l'", f"'{name}'")
    net = net_of(text)
    assert len(net.state_dict()) == len(names)
    assert "ü/1x1.weight" in net.state_dict()
    program = torch.export.export(net, ({"data": torch.ones(1, 2)},))
    held = io.BytesIO()
    torch.export.save(program, held)
    held.seek(0)
    found = torch.export.load(held).module()({"data": -torch.ones(1, 2)})
    assert found["t10"].tolist() == [[-(0.25**11)] * 2]

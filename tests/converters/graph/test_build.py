"""What a net's text becomes, and what is refused with which words."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deeplab_zoo import load_caffe
from deeplab_zoo.converters.graph.build import build
from deeplab_zoo.converters.graph.engine import Graph
from deeplab_zoo.converters.graph.fillers import filled
from deeplab_zoo.converters.graph.registry import LAYERS, layer
from deeplab_zoo.proto import prototxt
from deeplab_zoo.proto.caffe_pb2 import FillerParameter
from deeplab_zoo.proto.errors import FormatError, MismatchError, UsageError, ZooError


def net_of(text: str, phase: str = "TEST", **arguments: object) -> Graph:
    return build(prototxt.parse_net(text, "net"), None, phase, **arguments)  # type: ignore[arg-type]


def one(name: str, settings: str = "", bottoms: str = "data", tops: str = "out") -> str:
    ends = [f"bottom: '{blob}'" for blob in bottoms.split()] + [
        f"top: '{blob}'" for blob in tops.split()
    ]
    return f"layer {{ name: 'l' type: '{name}' {' '.join(ends)} {settings} }}\n"


def given_input(*sizes: int, name: str = "data") -> str:
    return f"input: '{name}' input_shape {{ {' '.join(f'dim: {size}' for size in sizes)} }}\n"


def run(text: str, phase: str = "TEST", **inputs: torch.Tensor) -> Mapping[str, torch.Tensor]:
    with torch.no_grad():
        return net_of(text, phase)(inputs, blobs="all")


# Blobs and inputs.

CHAIN = given_input(1, 2) + (
    "layer { name: 'a' type: 'Power' bottom: 'data' top: 'x' power_param { scale: 2 } }"
    "layer { name: 'b.c' type: 'Power' bottom: 'x' top: 'x' power_param { shift: 1 } }"
    "layer { name: 'd' type: 'Power' bottom: 'x' top: 'y' power_param { scale: -1 } }"
    "layer { name: 'e' type: 'ReLU' bottom: 'y' top: 'y' }"
)


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


# What is refused.


def test_one_error_lists_every_layer_that_is_not_supported_with_its_line() -> None:
    text = given_input(1, 2) + "".join(
        f"layer {{ name: 'u{index}' type: '{name}' bottom: 'data' top: 't{index}' }}\n"
        for index, name in enumerate(["Warp", "ReLU", "Python", "DenseCRF"] + ["Odd"] * 30)
    )
    with pytest.raises(FormatError) as error:
        net_of(text)
    places = re.findall(r"layer '(u\d+)' \(line (\d+)\): type", str(error.value))
    assert [name for name, _ in places] == [f"u{index}" for index in range(34) if index != 1]
    assert places[0] == ("u0", "2")
    assert "33 layers" in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (one("ReLU", bottoms="b", tops="a") + one("ReLU", bottoms="a", tops="b"), "reads 'b'.*line 3.*file's order"),
        (one("ReLU") + one("TanH"), "writes 'out', which layer 'l' .line 2. writes too"),
        (one("ReLU", tops="a b"), "2 tops, expected 1"),
        (one("Eltwise"), "1 bottoms, expected at least 2"),
        (one("Reshape", tops="data"), "in place"),
        (one("Eltwise", bottoms="data x", tops="data") + one("ReLU", tops="x"), "reads .x."),
        (one("ReLU") + one("TanH", tops="data"), "overwrites 'data'"),
        (one("Convolution", "convolution_param { num_output: 1 kernel_size: 9 }"), r"\[2, 3, 5, 7\].*\[2, 1, -3, -1\]"),
        (one("Convolution", "convolution_param { num_output: 1 kernel_size: 0 }"), "kernel"),
        (one("Convolution", "convolution_param { num_output: 4 kernel_size: 1 group: 2 }"), "2 groups divide"),
        (one("Convolution", "convolution_param { num_output: 2000000000 kernel_size: 1 }"), "more than"),
        (one("InnerProduct", "inner_product_param { num_output: 1000000000 }"), "to be filled|more than"),
        (one("Tile", "tile_param { tiles: 2000000000 }"), r"\[2, 6000000000, 5, 7\], more than"),
        (one("Interp", "interp_param { zoom_factor: 100000 }"), "more than"),
        (one("Interp", "interp_param { height: 2 width: 2 pad_beg: -5 }"), "cropping"),
        (one("Deconvolution", "convolution_param { num_output: 1 kernel_size: 1 pad: 4 }"), "empty"),
        (one("Crop", "crop_param { offset: 1 offset: 2 offset: 3 }", "data data"), "offsets"),
        (one("Crop", "crop_param { offset: 1 }", "data data"), "to hold 5 after offset 1"),
        (one("Slice", "slice_param { slice_point: 3 }", tops="a b"), "rise within"),
        (one("Slice", "slice_param { axis: 1 slice_dim: 1 }", tops="a"), "both axis and slice_dim"),
        (one("Concat", "concat_param { axis: 4 }"), "axis 4"),
        (one("Flatten", "flatten_param { axis: 2 end_axis: 1 }"), "axis before end_axis"),
        (one("Permute", "permute_param { order: 0 order: 4 }"), "the axes"),
        (one("Reshape", "reshape_param { shape { dim: 0 dim: -1 dim: -1 } }"), "at most one -1"),
        (one("Reshape", "reshape_param { shape { dim: 7 } }"), "as many numbers"),
        (one("ArgMax", "argmax_param { axis: 1 top_k: 4 }"), "top_k"),
        (one("LRN", "lrn_param { local_size: 4 }"), "odd"),
        (one("Dropout", "dropout_param { dropout_ratio: 1 }"), "between 0 and 1"),
        (one("Eltwise", "eltwise_param { coeff: 1 }", "data data"), "1 coeff for 2 bottoms"),
        (one("Eltwise", "eltwise_param { operation: MAX coeff: 1 coeff: 2 }", "data data"), "SUM only"),
        (one("Scale", "scale_param { axis: 2 num_axes: 3 }"), "3 axes from axis 2"),
        (one("Log", "log_param { base: 0 }"), "base 0"),
        (one("Exp", "exp_param { base: -2 }"), "base -2"),
        (one("Pooling", "pooling_param { pool: AVE kernel_size: 2 }", tops="a b"), "MAX pooling only"),
        (one("Pooling", "pooling_param { pool: STOCHASTIC kernel_size: 2 }"), "random"),
        (one("Scale", "scale_param { filler { type: 'magic' } }"), "filler 'magic'"),
        (one("SoftmaxWithLoss", "", "data data"), "one label for each"),
        (one("EuclideanLoss", "softmax_param { axis: 1 }", "data") , "1 bottoms"),
        (one("DummyData", "dummy_data_param { shape { dim: 100000 dim: 100000 } }", ""), "more than|to be filled"),
        (one("DummyData", "dummy_data_param { shape { dim: 0 } }", ""), "empty"),
        (one("MVN", "param { name: 'w' }"), "1 param for 0 weights"),
    ],
)  # fmt: skip
def test_a_bad_net_is_refused_by_layer(text: str, words: str) -> None:
    with pytest.raises(ZooError, match=f"(?s)layer 'l' .line [23].: .*({words})"):
        net_of(given_input(2, 3, 5, 7) + text)


def test_sizes_of_nothing_are_refused_in_the_file_and_in_a_call() -> None:
    with pytest.raises(ZooError, match=r"\[0, 3\]"):
        net_of(given_input(0, 3) + one("ReLU"))
    with pytest.raises(MismatchError, match=r"\[1, 0\]"):
        net_of(given_input(1, 3) + one("ReLU"))({"data": torch.zeros(1, 0)})


def test_a_phase_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UsageError, match="TRAIN, TEST"):
        net_of(CHAIN, "VALIDATE")


def test_a_type_is_registered_once() -> None:
    with pytest.raises(ValueError, match="two functions for ReLU"):
        layer("ReLU")(LAYERS["ReLU"].build)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.integers(1, 6), min_size=0, max_size=5), st.sampled_from(sorted(LAYERS)))
def test_any_layer_takes_or_refuses_any_shape_with_an_error_of_ours(
    shape: list[int], name: str
) -> None:
    known = LAYERS[name]
    bottoms = " ".join(["data"] * known.bottoms[0])
    tops = " ".join(f"t{index}" for index in range(known.tops[0]))
    everything = (
        "convolution_param { num_output: 2 kernel_size: 2 } inner_product_param { num_output: 2 }"
        "embed_param { num_output: 2 input_dim: 9 } pooling_param { kernel_size: 2 }"
        "interp_param { zoom_factor: 2 } tile_param { tiles: 2 } clip_param { min: 0 max: 1 }"
        "dummy_data_param { shape { dim: 2 } } reshape_param { shape { dim: -1 } }"
    )
    text = "input: 'data'\n" + one(name, everything, bottoms, tops)
    try:
        net = net_of(text, shapes={"data": shape})
    except ZooError as error:
        assert "layer 'l' (line 2)" in str(error)
        return
    found = net({"data": torch.zeros(shape)}, blobs="all")  # Also a label of any class.
    expected = net.sizes({"data": shape})
    assert {blob: tuple(value.shape) for blob, value in found.items()} == expected


# Phases, weights that are filled, and layers that no golden case has.


def test_batch_statistics_are_used_and_kept_in_the_train_phase() -> None:
    text = given_input(2, 3, 4, 5) + one(
        "BatchNorm", "batch_norm_param { moving_average_fraction: 0.9 }"
    )
    net = net_of(text, "TRAIN")
    assert net.training
    x = torch.randn(2, 3, 4, 5) * 3 + 1
    y = net({"data": x})["out"]
    wide = x.double()
    mean, variance = wide.mean((0, 2, 3)), wide.var((0, 2, 3), correction=0)
    shape = (1, 3, 1, 1)
    expected = (wide - mean.view(shape)) / (variance.view(shape) + 1e-5).sqrt()
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-6)
    for times in (1, 1.9):  # Sums in float32.
        torch.testing.assert_close(net.l.mean_sum.double(), mean * times, rtol=1e-5, atol=0)  # type: ignore[union-attr, operator]
        torch.testing.assert_close(
            net.l.variance_sum.double(), variance * times * 40 / 39, rtol=1e-5, atol=0
        )  # type: ignore[union-attr, operator]
        assert net.l.factor.item() == pytest.approx(times)  # type: ignore[union-attr, operator]
        net({"data": x})


def test_dropout_drops_and_scales_in_the_train_phase_only() -> None:
    text = given_input(1, 2000) + one("Dropout", "dropout_param { dropout_ratio: 0.25 }")
    ones = torch.ones(1, 2000)
    assert torch.equal(run(text, data=ones)["out"], ones)
    dropped = run(text, "TRAIN", data=ones)["out"]
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert 0.15 < (dropped == 0).float().mean() < 0.35


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


SEGNET = given_input(1, 2, 5, 6) + (
    "layer { name: 'p' type: 'Pooling' bottom: 'data' top: 'p' top: 'm'"
    " pooling_param { kernel_size: 2 stride: 2 } }"
    "layer { name: 'u' type: 'Upsample' bottom: 'p' bottom: 'm' top: 'u'"
    " upsample_param { scale: 2 pad_out_h: true } }"
)


def test_segnets_upsample_puts_maxima_back_where_they_were() -> None:
    x = torch.randn(1, 2, 5, 6)
    found = run(SEGNET, data=x)
    assert found["u"].shape == (1, 2, 5, 6)
    assert torch.equal(found["u"][found["u"] != 0], x[found["u"] != 0])
    assert torch.equal(found["u"].flatten(2).sort(2).values[..., -1], x.flatten(2).max(2).values)
    assert (found["u"] != 0).sum() == found["p"].numel()


def test_segnets_upsample_to_a_size_is_the_mask_read_row_by_row() -> None:
    text = (
        given_input(1, 1, 1, 2)
        + given_input(1, 1, 1, 2, name="mask")
        + one("Upsample", "upsample_param { upsample_h: 3 upsample_w: 4 }", "data mask")
    )
    mask = torch.tensor([[[[6.0, 11.0]]]])
    found = run(text, data=torch.tensor([[[[5.0, 7.0]]]]), mask=mask)["out"]
    assert found.tolist() == [[[[0, 0, 0, 0], [0, 0, 5, 0], [0, 0, 0, 7]]]]


def test_segnets_batch_norm_scales_and_shifts_in_its_inference_mode() -> None:
    settings = (
        "bn_param { bn_mode: INFERENCE scale_filler { value: 3 } shift_filler { value: -1 } }"
    )
    x = torch.randn(2, 3, 4, 5)
    found = run(given_input(2, 3, 4, 5) + one("BN", settings), data=x)["out"]
    torch.testing.assert_close(found, x * 3 - 1)
    learning = run(given_input(2, 3, 4, 5) + one("BN"), data=x)["out"]
    assert learning.mean((0, 2, 3)).abs().max() < 1e-6


X = np.random.default_rng(0).normal(0, 2, (2, 3, 4, 5))


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("BNLL", "", np.log1p(np.exp(X))),
        ("Threshold", "threshold_param { threshold: 0.5 }", X > 0.5),
        ("Log", "log_param { base: 2 scale: 0.1 shift: 3 }", np.log2(0.1 * X + 3)),
        ("Exp", "exp_param { scale: 0.5 shift: 1 }", np.exp(0.5 * X + 1)),
        ("Power", "power_param { power: 2 scale: 3 shift: 1 }", (3 * X + 1) ** 2),
        ("Permute", "permute_param { order: 0 order: 2 }", X.transpose(0, 2, 1, 3)),
        ("Reduction", "reduction_param { operation: ASUM axis: 2 coeff: 2 }", 2 * np.abs(X).sum((2, 3))),
        ("Reduction", "reduction_param { operation: SUMSQ }", (X**2).sum()),
        ("Reduction", "reduction_param { axis: -2 }", X.sum((2, 3))),
        ("MVN", "mvn_param { normalize_variance: false }", X - X.mean((2, 3), keepdims=True)),
        ("MVN", "mvn_param { across_channels: true }", (X - X.mean((1, 2, 3), keepdims=True)) / X.std((1, 2, 3), keepdims=True)),
        ("Normalize", "norm_param { across_spatial: false }", X / np.sqrt((X**2).sum(1, keepdims=True))),
        ("Normalize", "norm_param { scale_filler { value: 20 } }", 20 * X / np.sqrt((X**2).sum((1, 2, 3), keepdims=True))),
        ("ArgMax", "argmax_param { out_max_val: true }", np.stack([X.reshape(2, -1).argmax(1), X.reshape(2, -1).max(1)], 1)[..., None, None]),
        ("Bias", "bias_param { filler { value: 2 } }", X + 2),
        ("Tile", "tile_param { axis: -1 tiles: 2 }", np.tile(X, (1, 1, 1, 2))),
    ],
)  # fmt: skip
def test_a_layer_computes_its_formula(name: str, settings: str, expected: np.ndarray) -> None:
    text = given_input(2, 3, 4, 5) + one(name, settings)
    found = run(text, data=torch.from_numpy(X).float())["out"]
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)  # Elementwise.


LABELS = torch.tensor([2.0, 0.0])
SCORES = torch.tensor([[0.5, -1.0, 0.25], [0.1, 0.2, -3.0]])


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("HingeLoss", "", (1.5 + 0 + 0.75 + 0.9 + 1.2 + 0) / 2),
        ("HingeLoss", "hinge_loss_param { norm: L2 }", (2.25 + 0.75**2 + 0.9**2 + 1.44) / 2),
        ("MultinomialLogisticLoss", "", -(np.log(0.25) + np.log(0.1)) / 2),
        ("Accuracy", "", 0.0),
        ("Accuracy", "accuracy_param { top_k: 2 }", 1.0),
        ("Accuracy", "accuracy_param { top_k: 2 ignore_label: 2 }", 1.0),
    ],
)
def test_a_loss_of_labels_computes_its_formula(name: str, settings: str, expected: float) -> None:
    text = given_input(2, 3) + given_input(2, name="label") + one(name, settings, "data label")
    assert run(text, data=SCORES, label=LABELS)["out"].item() == pytest.approx(expected)


def test_sigmoid_cross_entropy_is_divided_by_the_batch() -> None:
    text = (
        given_input(2, 3)
        + given_input(2, 3, name="t")
        + one("SigmoidCrossEntropyLoss", "", "data t")
    )
    target = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    x = SCORES.double().numpy()
    expected = (np.log1p(np.exp(x)) - target.numpy() * x).sum() / 2
    assert run(text, data=SCORES, t=target)["out"].item() == pytest.approx(expected)


def test_the_contrastive_loss_tells_equal_pairs_from_others() -> None:
    text = given_input(2, 3) + given_input(2, 3, name="b") + given_input(2, name="y")
    text += one("ContrastiveLoss", "contrastive_loss_param { margin: 2 }", "data b y")
    other = SCORES + torch.tensor([[1.0, 0, 0], [0, 0.5, 0]])
    found = run(text, data=SCORES, b=other, y=torch.tensor([1.0, 0.0]))["out"]
    assert found.item() == pytest.approx((1 + 1.5**2) / 4)


def test_each_class_has_its_accuracy_as_a_second_top() -> None:
    text = (
        given_input(2, 3)
        + given_input(2, name="label")
        + one("Accuracy", "", "data label", "out each")
    )
    found = run(text, data=SCORES, label=torch.tensor([0.0, 2.0]))
    assert found["out"].item() == 0.5
    assert found["each"].tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("settings", "check"),
    [
        ("type: 'constant' value: 3", lambda v: (v == 3).all()),
        ("type: 'uniform' min: 2 max: 4", lambda v: 2 <= v.min() < 2.1 and 3.9 < v.max() <= 4),
        ("type: 'gaussian' mean: 1 std: 0.5", lambda v: abs(v.mean() - 1) < 0.05 and abs(v.std() - 0.5) < 0.05),
        ("type: 'gaussian' sparse: 4", lambda v: abs((v != 0).mean() - 0.1) < 0.03),
        ("type: 'xavier'", lambda v: 0.3 < np.abs(v).max() * 5 <= 3**0.5),
        ("type: 'msra' variance_norm: FAN_OUT", lambda v: abs(v.std() - (2 / 200) ** 0.5) < 0.01),
        ("type: 'msra' variance_norm: AVERAGE", lambda v: abs(v.std() - (2 / 112.5) ** 0.5) < 0.01),
        ("type: 'positive_unitball'", lambda v: np.allclose(v.reshape(40, -1).sum(1), 1)),
        ("type: 'bilinear'", lambda v: np.allclose(v, 1)),
    ],
)  # fmt: skip
def test_a_filler_gives_its_distribution(settings: str, check: object) -> None:
    net = prototxt.parse_net(
        f"layer {{ name: 'l' type: 'Bias' bias_param {{ filler {{ {settings} }} }} }}", "net"
    )
    filler = net.layers[0].params.bias_param.filler
    shape = (40, 5, 5, 1) if "bilinear" not in settings else (40, 25, 1, 1)
    found = filled(filler, shape, np.random.default_rng(0), "here")
    assert found.dtype == np.float32
    assert found.shape == shape
    assert check(found)  # type: ignore[operator]


def test_a_bilinear_filler_wants_a_square_kernel() -> None:
    with pytest.raises(FormatError, match="here: .*square"):
        filled(FillerParameter(type="bilinear"), (1, 1, 2, 3), np.random.default_rng(0), "here")


def test_fillers_are_seeded_and_each_layer_has_its_own_numbers() -> None:
    settings = "inner_product_param { num_output: 4 weight_filler { type: 'gaussian' } }"
    text = (
        given_input(1, 3)
        + one("InnerProduct", settings)
        + one("InnerProduct", settings, "data", "b").replace("'l'", "'k'")
    )
    first, again, other = (net_of(text, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["l.weight"], other["l.weight"])
    assert not torch.equal(first["l.weight"], first["k.weight"])


def test_layers_that_found_no_weights_and_weights_that_found_no_layer_are_noted(
    golden: Path,
) -> None:
    folder = golden / "caffe"
    net = load_caffe(
        folder / "rejects" / "layer_missing_in_file.prototxt", folder / "fmt_new.caffemodel"
    )
    assert any("fc7_new" in note and "filled" in note for note in net.notes)
    assert any("'fc7': in the weights, not in the net" in note for note in net.notes)


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


def test_statistics_are_gathered_whatever_is_asked_for() -> None:
    text = (
        given_input(2, 3, 4, 5) + one("BatchNorm") + one("AbsVal", tops="b").replace("'l'", "'k'")
    )
    net = net_of(text, "TRAIN")
    net({"data": torch.ones(2, 3, 4, 5)}, blobs=["b"])
    assert net.get_buffer("l.factor").item() == 1


# Labels and refusals.

LABELLED = given_input(2, 3, 2, 2) + given_input(2, 1, 2, 2, name="label")


@pytest.mark.parametrize(
    ("kind", "label", "settings"),
    [
        ("SoftmaxWithLoss", 3.0, ""),
        ("SoftmaxWithLoss", -1.0, "loss_param { ignore_label: 255 }"),
        ("Accuracy", 254.0, "accuracy_param { ignore_label: 255 }"),
        ("SegAccuracy", 7.0, ""),
    ],
)
def test_a_label_beyond_the_classes_is_told(kind: str, label: float, settings: str) -> None:
    net = net_of(LABELLED + one(kind, settings, bottoms="data label"))
    labels = torch.zeros(2, 1, 2, 2)
    data = torch.randn(2, 3, 2, 2)
    net({"data": data, "label": labels})
    labels[1, 0, 0, 1] = label
    with pytest.raises(MismatchError, match=rf"'l'.*: {kind} of 3 classes: labels \[{label:.0f}\]"):
        net({"data": data, "label": labels})


def test_a_label_beyond_the_classes_of_vectors_is_told() -> None:
    vectors = given_input(2, 3) + given_input(2, name="label")
    for kind in ("HingeLoss", "MultinomialLogisticLoss"):
        net = net_of(vectors + one(kind, bottoms="data label"))
        with pytest.raises(MismatchError, match=r"labels \[5\] in 'label', expected 0 to 2"):
            net({"data": torch.rand(2, 3), "label": torch.tensor([1.0, 5.0])})


WEIGHTS = "class_weighting: 0.5 class_weighting: 2 class_weighting: 3"


def test_segnets_class_weights_multiply_and_do_not_divide() -> None:
    data, labels = torch.randn(2, 3, 2, 2), torch.tensor([0, 1, 2, 9, 1, 1, 9, 0.0])
    inputs = {"data": data, "label": labels.reshape(2, 1, 2, 2)}
    words = f"loss_param {{ ignore_label: 9 weight_by_label_freqs: true {WEIGHTS} }}"
    found = run(LABELLED + one("SoftmaxWithLoss", words, bottoms="data label"), **inputs)["out"]
    chances = torch.softmax(data.double(), 1).permute(0, 2, 3, 1).reshape(8, 3)
    share = (0.5, 2.0, 3.0)
    each = [
        -share[int(label)] * torch.log(chances[at, int(label)]).item()
        for at, label in enumerate(labels)
        if label != 9
    ]
    assert found.item() == pytest.approx(sum(each) / 6, rel=1e-6)
    plain = run(
        LABELLED
        + one("SoftmaxWithLoss", f"loss_param {{ {WEIGHTS} ignore_label: 9 }}", "data label"),
        **inputs,
    )["out"]
    assert plain.item() != pytest.approx(found.item(), rel=1e-3)  # Without the switch.


def test_class_weights_of_another_number_are_refused() -> None:
    words = f"loss_param {{ weight_by_label_freqs: true {WEIGHTS} }}"
    with pytest.raises(MismatchError, match="3 classes, as class_weighting has"):
        net_of(
            given_input(2, 4, 2, 2)
            + given_input(2, 1, 2, 2, name="label")
            + one("SoftmaxWithLoss", words, bottoms="data label")
        )


def test_refused_settings_and_unknown_types_are_one_error() -> None:
    chain = given_input(1, 2, 9, 9) + "".join(
        f"layer {{ name: '{name}' type: '{kind}' bottom: 'data' top: '{name}' {settings} }}\n"
        for name, kind, settings in (
            ("p", "Pooling", "pooling_param { pool: STOCHASTIC kernel_size: 2 }"),
            ("c", "Convolution", "convolution_param { kernel_size: 2 }"),
            ("r", "ReLU", ""),
        )
    )
    with pytest.raises(FormatError, match="2 layers that are not supported") as refused:
        net_of(chain)
    assert all(word in str(refused.value) for word in ("'p' (line 2)", "'c' (line 3)"))
    spp = "layer { name: 's' type: 'SPP' bottom: 'data' top: 's' }"
    with pytest.raises(FormatError, match="3 layers that are not supported") as refused:
        net_of(chain + spp)
    for word in ("'s' (line 5): type 'SPP'", "random", "no num_output"):
        assert word in str(refused.value)

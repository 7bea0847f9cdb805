"""Which nets are refused, with which words."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deeplab_zoo.converters.graph.registry import LAYERS, layer
from deeplab_zoo.proto.errors import FormatError, MismatchError, UsageError, ZooError

from .texts import CHAIN, given_input, net_of, one


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
        (one("Exp", "exp_param { shift: 1000 }"), "shift 1000.0, whose power is beyond"),
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

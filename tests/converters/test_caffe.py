from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deeplab_zoo.converters import caffe
from deeplab_zoo.converters.archive import Role, Tensor
from deeplab_zoo.proto import prototxt
from deeplab_zoo.proto.errors import MismatchError
from deeplab_zoo.proto.records import Blob, Net

BN = """layer { name: 'bn' type: 'BatchNorm' bottom: 'data' top: 'x' }
layer { name: 'sc' type: 'Scale' bottom: 'x' top: 'x' scale_param { bias_term: true } }"""


def net(text: str, **blobs: list[object]) -> Net:
    """A net from text, with arrays for some of its layers."""
    found = prototxt.parse_net("input: 'data'\n" + text, "net")
    filled = {
        name: tuple(Blob(np.shape(one), np.asarray(one)) for one in arrays)
        for name, arrays in blobs.items()
    }
    layers = tuple(replace(layer, blobs=filled.get(layer.name, ())) for layer in found.layers)
    return replace(found, layers=layers)


def by_name(found: tuple[Tensor, ...]) -> dict[str, Tensor]:
    return {tensor.name: tensor for tensor in found}


def f(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


@given(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=8),
    st.floats(0.5, 2000, width=32),
)
def test_statistics_are_the_sums_times_the_float32_reciprocal(
    sums: list[float], factor: float
) -> None:
    mean = f(*sums)
    found = by_name(caffe.tensors(net(BN, bn=[mean, np.abs(mean), f(factor)]))[0])
    expected = mean * (np.float32(1) / np.float32(factor))
    assert found["bn/mean"].data.tobytes() == expected.tobytes()
    assert found["bn/mean_sum"].data.tobytes() == mean.tobytes()
    assert found["bn/factor"].data.tobytes() == f(factor).tobytes()


def test_a_factor_of_zero_gives_zeros_as_in_caffe() -> None:
    found = by_name(caffe.tensors(net(BN, bn=[f(3, 4), f(5, 6), f(0)]))[0])
    assert found["bn/mean"].data.tolist() == [0, 0]
    assert found["bn/variance"].data.tolist() == [0, 0]
    assert found["bn/mean"].transform == "zeroed: factor 0"


@pytest.mark.parametrize("case", ["bn_sf0", "bn_sf1", "bn_sf999", "bn_sf_half"])
def test_the_real_caffes_batch_norm_is_reproduced(golden: object, case: str) -> None:
    from pathlib import Path

    from deeplab_zoo.proto import caffemodel

    folder = Path(str(golden)) / "caffe"
    text = prototxt.read(folder / f"{case}.prototxt")
    stored = {one.name: one.blobs for one in caffemodel.read(folder / f"{case}.caffemodel").layers}
    layers = tuple(replace(one, blobs=stored.get(one.name, ())) for one in text.layers)
    found = {tensor.role: tensor.data for tensor in caffe.tensors(replace(text, layers=layers))[0]}
    eps = np.float32(next(o for o in layers if o.blobs).params.batch_norm_param.eps)
    with np.load(folder / f"{case}.npz") as values:
        x, y = values["in/data"], values["out/bn"]
    shape = (1, -1) + (1,) * (x.ndim - 2)
    ours = (x - found[Role.MEAN].reshape(shape)) / np.sqrt(
        found[Role.VARIANCE].reshape(shape) + eps
    )
    np.testing.assert_allclose(ours, y, rtol=2e-6, atol=1e-6)


def test_a_scale_joins_the_batch_norm_it_reads_whatever_the_order_in_the_file() -> None:
    text = """
    layer { name: 'bn_a' type: 'BatchNorm' bottom: 'data' top: 'a' }
    layer { name: 'bn_b' type: 'BatchNorm' bottom: 'data' top: 'b' }
    layer { name: 'scale_1' type: 'Scale' bottom: 'a' top: 'a' scale_param { bias_term: true } }
    layer { name: 'scale_2' type: 'Scale' bottom: 'b' top: 'b' scale_param { bias_term: true } }
    """
    sums = [f(1), f(1), f(1)]
    found = by_name(
        caffe.tensors(net(text, bn_a=sums, bn_b=sums, scale_1=[f(2), f(3)], scale_2=[f(4), f(5)]))[
            0
        ]
    )
    assert found["bn_a/gamma"].data == 2
    assert found["bn_b/beta"].data == 5
    assert found["bn_b/beta"].sources == ("scale_2[1]",)


def test_a_scale_that_reads_something_else_keeps_its_own_name() -> None:
    text = """
    layer { name: 'bn' type: 'BatchNorm' bottom: 'data' top: 'x' }
    layer { name: 'relu' type: 'ReLU' bottom: 'x' top: 'x' }
    layer { name: 'sc' type: 'Scale' bottom: 'x' top: 'x' }
    """
    found = by_name(caffe.tensors(net(text, bn=[f(1), f(1), f(1)], sc=[f(2)]))[0])
    assert "sc/gamma" in found
    assert "bn/gamma" not in found


SHARED = """
layer { name: 'one' type: 'Convolution' bottom: 'data' top: 'a' param { name: 'w' } param { name: 'b' }
  convolution_param { num_output: 2 kernel_size: 1 } }
layer { name: 'two' type: 'Convolution' bottom: 'a' top: 'b' param { name: 'w' } param { name: 'b' }
  convolution_param { num_output: 2 kernel_size: 1 } }
"""


def test_shared_parameters_are_kept_once_with_all_their_places() -> None:
    weight, bias = np.ones((2, 2, 1, 1), np.float32), f(1, 2)
    found = caffe.tensors(net(SHARED, one=[weight, bias], two=[weight.copy(), bias.copy()]))[0]
    assert [(t.name, t.sources) for t in found] == [
        ("one/weight", ("one[0]", "two[0]")),
        ("one/bias", ("one[1]", "two[1]")),
    ]


def test_shared_parameters_that_differ_are_an_error() -> None:
    weight, bias = np.ones((2, 2, 1, 1), np.float32), f(1, 2)
    other = net(SHARED, one=[weight, bias], two=[weight, f(1, 3)])
    with pytest.raises(MismatchError, match=r"'two'.*blob 1 differs from one\[1\].*shares 'b'"):
        caffe.tensors(other)


def test_unknown_layers_with_weights_are_one_error_that_lists_them_all() -> None:
    text = "".join(
        f"layer {{ name: '{name}' type: 'Warp' bottom: 'data' top: '{name}' }}\n" for name in "abc"
    )
    with pytest.raises(MismatchError, match="2 layers") as caught:
        caffe.tensors(net(text, a=[f(1)], c=[f(1), f(2)]))
    assert "layer 'a' (line 2): type 'Warp' with 1 blobs" in str(caught.value)
    assert "layer 'c' (line 4): type 'Warp' with 2 blobs" in str(caught.value)


def test_unknown_layers_without_weights_are_noted() -> None:
    _, notes = caffe.tensors(net("layer { name: 'w' type: 'Warp' bottom: 'data' top: 'w' }"))
    assert notes == ("layer 'w' (line 2): type 'Warp' is unknown; it has no weights",)


def test_values_that_are_not_finite_are_counted() -> None:
    weight = np.array([[1, np.nan], [np.inf, 2]], np.float32)
    text = """layer { name: 'fc' type: 'InnerProduct' bottom: 'data' top: 'y'
    inner_product_param { num_output: 2 bias_term: false } }"""
    _, notes = caffe.tensors(net(text, fc=[weight]))
    assert notes == ("fc/weight: 2 of 4 values are NaN or infinite",)


def test_doubles_are_rounded_and_say_so() -> None:
    text = "layer { name: 'p' type: 'PReLU' bottom: 'data' top: 'y' }"
    (tensor,), _ = caffe.tensors(net(text, p=[np.array([1 / 3])]))
    assert tensor.data.dtype == np.float32
    assert (tensor.source_dtype, tensor.transform) == ("float64", "float64 rounded to float32")


def test_an_inner_products_transpose_and_old_shapes_come_out_as_out_by_in() -> None:
    text = """layer { name: 'fc' type: 'InnerProduct' bottom: 'data' top: 'y'
    inner_product_param { num_output: 2 transpose: true } }"""
    weight = np.arange(6, dtype=np.float32).reshape(3, 2)
    found = by_name(caffe.tensors(net(text, fc=[weight, f(1, 2).reshape(1, 1, 1, 2)]))[0])
    assert found["fc/weight"].data.tolist() == weight.T.tolist()
    assert found["fc/weight"].transform == "transposed"
    assert found["fc/bias"].data.shape == (2,)


def test_batch_norm_with_other_than_three_blobs_is_refused() -> None:
    with pytest.raises(MismatchError, match=r"'bn' .line 2.: BatchNorm with 5 blobs, expected 3"):
        caffe.tensors(net(BN, bn=[f(1)] * 5))


def test_a_layer_type_has_one_converter() -> None:
    with pytest.raises(ValueError, match="two converters for Scale"):
        caffe.converts("Scale")(caffe.scale)


@pytest.mark.parametrize(
    ("layer", "blobs", "unused"),
    [
        (
            "Convolution' convolution_param { bias_term: false } name: 'l",
            [np.ones((1, 1)), f(1)],
            1,
        ),
        ("Scale", [f(1), f(2), f(3)], 2),
        ("BN", [f(1), f(2), f(3), f(4)], 2),
    ],
)
def test_a_blob_that_its_layer_does_not_use_is_not_dropped_in_silence(
    layer: str, blobs: list[object], unused: int
) -> None:
    name = "" if "name:" in layer else "name: 'l' "
    text = f"layer {{ {name}bottom: 'data' top: 'y' type: '{layer}' }}"
    with pytest.raises(MismatchError, match=f"'l'.*has no place for its blob {unused}"):
        caffe.tensors(net(text, l=blobs))


def test_two_layers_of_one_name_are_refused() -> None:
    text = "layer { name: 'p' type: 'PReLU' bottom: 'data' top: 'y' }\n"
    with pytest.raises(MismatchError, match=r"'p' .line 3.: a second layer that gives p/weight"):
        caffe.tensors(net(text + text.replace("'y'", "'z'"), p=[f(1)]))


def test_matrices_and_batch_norms_of_odd_shapes_are_taken_as_they_are() -> None:
    text = """layer { name: 'fc' type: 'InnerProduct' bottom: 'data' top: 'y' }
    layer { name: 'bn' type: 'BN' bottom: 'y' top: 'z' }"""
    found = by_name(caffe.tensors(net(text, fc=[np.ones((2, 1, 3), np.float32)], bn=[f(1)]))[0])
    assert found["fc/weight"].data.shape == (2, 1, 3)
    assert list(found) == ["fc/weight", "bn/gamma"]


def test_numbers_beyond_single_precision_are_noted_and_no_warning() -> None:
    text = BN + "layer { name: 'p' type: 'PReLU' bottom: 'x' top: 'y' }"
    _, notes = caffe.tensors(net(text, bn=[f(1), f(1), f(1e-42)], p=[np.array([1e300, 1.0])]))
    assert notes == (
        "bn/mean: 1 of 1 values are NaN or infinite",
        "bn/variance: 1 of 1 values are NaN or infinite",
        "p/weight: 1 of 2 values are NaN or infinite",
    )

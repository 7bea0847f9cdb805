"""Weights that no file has: filled, seeded, and noted."""

from pathlib import Path

import numpy as np
import pytest
import torch

from deeplab_zoo import load_caffe
from deeplab_zoo.converters.graph.fillers import filled
from deeplab_zoo.proto import prototxt
from deeplab_zoo.proto.caffe_pb2 import FillerParameter
from deeplab_zoo.proto.errors import FormatError

from .texts import given_input, net_of, one


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

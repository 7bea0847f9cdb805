"""Graphs with their batch norms folded compute what they did."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from deeplab_zoo import fold_batch_norm, load_caffe
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config
from deeplab_zoo.converters.graph.build import build
from deeplab_zoo.converters.graph.engine import Graph
from deeplab_zoo.proto import prototxt

Make = Callable[..., tuple[Path, Path]]

TOLERANCE = 5e-6  # Relative L2 over a hundred layers; 1e-6 is usual.


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    wide = expected.double()
    assert (found.double() - wide).norm() <= TOLERANCE * wide.norm()


def net_of(layers: str, phase: str = "TEST") -> Graph:
    text = "input: 'data' input_shape { dim: 2 dim: 4 dim: 9 dim: 7 } " + layers
    net = build(prototxt.parse_net(text, "net"), None, phase)
    torch.manual_seed(0)
    for value in net.state_dict().values():
        value.uniform_(0.5, 1.5)
    return net


def layer(name: str, kind: str, bottom: str, top: str, settings: str = "") -> str:
    return f"layer {{ name: '{name}' type: '{kind}' bottom: '{bottom}' top: '{top}' {settings} }} "


CONV = "convolution_param { num_output: 6 kernel_size: 3 group: 2 bias_term: false }"
UP = "convolution_param { num_output: 6 kernel_size: 3 stride: 2 }"
EPS = "batch_norm_param { eps: 0.01 }"
BIAS = "scale_param { bias_term: true }"


@pytest.mark.parametrize("scales", [(1.0,), (1.0, 0.75, 0.5)])
def test_a_deeplab_keeps_every_blob_that_is_left(
    make_net: Make, tiny_config: DeepLabV2Config, scales: tuple[float, ...]
) -> None:
    graph = load_caffe(*make_net(replace(tiny_config, scales=scales)))
    folded = fold_batch_norm(graph)
    assert not [one for one in folded.steps if one.layer.type in ("BatchNorm", "Scale")]
    assert folded.blobs == graph.blobs  # The nets normalise in place.
    image = {"data": torch.randn(2, 3, 65, 97) * 60}
    with torch.no_grad():
        expected, found = graph(image, blobs="all"), folded(image, blobs="all")
    for blob in graph.blobs:
        close(found[blob], expected[blob])


@pytest.mark.parametrize(
    ("layers", "left"),
    [
        (layer("c", "Convolution", "data", "x", CONV) + layer("n", "BatchNorm", "x", "y", EPS), 1),
        (
            layer("c", "Deconvolution", "data", "x", UP)
            + layer("n", "BatchNorm", "x", "y", EPS)
            + layer("s", "Scale", "y", "z", BIAS),
            1,
        ),
        # Scale without a bias, after a norm in place.
        (
            layer("c", "Convolution", "data", "x", CONV)
            + layer("n", "BatchNorm", "x", "x", EPS)
            + layer("s", "Scale", "x", "x"),
            1,
        ),
        # Someone else reads what is between.
        (
            layer("c", "Convolution", "data", "x", CONV)
            + layer("n", "BatchNorm", "x", "y", EPS)
            + layer("r", "ReLU", "x", "z"),
            3,
        ),
        (
            layer("c", "Convolution", "data", "x", CONV)
            + layer("n", "BatchNorm", "x", "y", EPS)
            + layer("s", "Scale", "y", "z", BIAS)
            + layer("r", "ReLU", "y", "w"),
            3,
        ),
        (layer("n", "BatchNorm", "data", "x", EPS), 1),
    ],
)
def test_only_chains_that_no_one_else_reads_are_folded(layers: str, left: int) -> None:
    graph = net_of(layers)
    folded = fold_batch_norm(graph)
    assert len(folded.steps) == left
    assert folded.outputs == graph.outputs
    data = {"data": torch.randn(2, 4, 9, 7)}
    with torch.no_grad():
        expected, found = graph(data, blobs=folded.blobs), folded(data, blobs="all")
    for blob in folded.blobs:
        close(found[blob], expected[blob])


def test_a_norm_that_gathers_statistics_stays() -> None:
    graph = net_of(
        layer("c", "Convolution", "data", "x", CONV) + layer("n", "BatchNorm", "x", "y"), "TRAIN"
    )
    folded = fold_batch_norm(graph)
    assert len(folded.steps) == 2
    assert folded.training


def test_a_folded_net_keeps_its_precision() -> None:
    text = layer("c", "Convolution", "data", "c", CONV) + layer("n", "BatchNorm", "c", "n", EPS)
    net = net_of(text).double()
    image = {"data": torch.randn(2, 4, 9, 7, dtype=torch.float64)}
    torch.testing.assert_close(
        fold_batch_norm(net)(image)["n"], net(image)["n"], rtol=1e-12, atol=0
    )

"""Ten faults in a graph, of a net that no table knows."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import deeplab_zoo
from deeplab_zoo.converters.graph.build import build
from deeplab_zoo.converters.graph.engine import Graph
from deeplab_zoo.converters.graph.registry import LAYERS, Operation
from deeplab_zoo.converters.graph.step import Step
from deeplab_zoo.proto import caffemodel, prototxt
from deeplab_zoo.proto.caffe_pb2 import LayerParameter, PoolingParameter
from deeplab_zoo.proto.records import Blob, Net
from deeplab_zoo.zoo.demo import BN_FACTOR
from deeplab_zoo.zoo.models.resampling import pad_same
from deeplab_zoo.zoo.parity.conventions import edited
from deeplab_zoo.zoo.parity.original import open_original

from .planting import SEEDS, Planted, proven, told

NET = """
input: 'data' input_shape { dim: 1 dim: 3 dim: 68 dim: 100 }
layer { name: 'stem' type: 'Convolution' bottom: 'data' top: 'stem'
  convolution_param { num_output: 6 kernel_size: 5 stride: 2 pad: 2 } }
layer { name: 'stem_bn' type: 'BatchNorm' bottom: 'stem' top: 'stem' }
layer { name: 'stem_scale' type: 'Scale' bottom: 'stem' top: 'stem'
  scale_param { bias_term: true } }
layer { name: 'stem_relu' type: 'ReLU' bottom: 'stem' top: 'stem' }
layer { name: 'pool' type: 'Pooling' bottom: 'stem' top: 'pool'
  pooling_param { pool: MAX kernel_size: 3 stride: 2 } }
layer { name: 'norm' type: 'LRN' bottom: 'pool' top: 'norm' lrn_param { local_size: 3 } }
layer { name: 'left' type: 'Convolution' bottom: 'norm' top: 'left'
  convolution_param { num_output: 8 kernel_size: 3 pad: 2 dilation: 2 group: 2 } }
layer { name: 'left_bn' type: 'BatchNorm' bottom: 'left' top: 'left_n' }
layer { name: 'left_relu' type: 'ReLU' bottom: 'left_n' top: 'left_n' }
layer { name: 'right' type: 'Convolution' bottom: 'norm' top: 'right'
  convolution_param { num_output: 8 kernel_size: 3 pad: 4 dilation: 4 } }
layer { name: 'right_bn' type: 'BatchNorm' bottom: 'right' top: 'right' }
layer { name: 'join' type: 'Concat' bottom: 'left_n' bottom: 'right' top: 'join' }
layer { name: 'down' type: 'Pooling' bottom: 'join' top: 'down'
  pooling_param { pool: MAX kernel_size: 3 stride: 2 } }
layer { name: 'mid' type: 'Convolution' bottom: 'down' top: 'mid'
  convolution_param { num_output: 5 kernel_size: 3 stride: 2 pad: 1 } }
layer { name: 'mid_relu' type: 'PReLU' bottom: 'mid' top: 'mid' }
layer { name: 'up' type: 'Interp' bottom: 'mid' top: 'up' interp_param { zoom_factor: 3 } }
layer { name: 'score' type: 'Convolution' bottom: 'up' top: 'score'
  convolution_param { num_output: 4 kernel_size: 1 } }
layer { name: 'wide' type: 'Interp' bottom: 'score' top: 'wide'
  interp_param { height: 41 width: 57 } }
layer { name: 'prob' type: 'Softmax' bottom: 'wide' top: 'prob' }
"""


def with_blobs(net: Net, seed: int = 5) -> Net:
    """Draw weights that keep values in range."""
    random = np.random.default_rng(seed)
    graph = build(net)
    layers = []
    steps = {step.layer.name: step for step in graph.steps}
    for layer in net.layers:
        step = steps.get(layer.name)
        arrays: list[np.ndarray] = []
        if layer.type == "BatchNorm" and step:
            (channels,) = step.weights()["mean"].shape
            arrays = [random.normal(0, 0.3, channels), random.uniform(0.5, 2, channels)]
            arrays = [array * BN_FACTOR for array in arrays] + [np.full(1, BN_FACTOR)]
        elif step:
            for shape in step.blob_shapes:
                spread = 1 / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 0.3
                arrays.append(random.normal(0, spread, shape))
        blobs = tuple(Blob(one.shape, one.astype(np.float32)) for one in arrays)
        layers.append(replace(layer, blobs=blobs))
    return replace(net, layers=tuple(layers))


@pytest.fixture(scope="module")
def graph_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("graph")
    text, binary = folder / "net.prototxt", folder / "net.caffemodel"
    text.write_text(NET)
    with binary.open("wb") as file:
        caffemodel.write(with_blobs(prototxt.read(text)), file)
    return [text, binary]


def choose(graph: Graph, random: Random, kind: str, accepts: Callable[[Step], bool]) -> Step:
    return random.choice([s for s in graph.steps if s.layer.type == kind and accepts(s)])


def edit(step: Step, change: Callable[[LayerParameter], None]) -> None:
    step.layer = edited(step.layer, change)
    step.operation = LAYERS[step.layer.type].build(step.layer)


def graph_eps(graph: Graph, random: Random) -> Planted:
    step = choose(graph, random, "BatchNorm", lambda _: True)
    edit(step, lambda params: setattr(params.batch_norm_param, "eps", 1e-3))
    return step.layer.name, "bn_eps"


def graph_floor(graph: Graph, random: Random) -> Planted:
    step = choose(graph, random, "Pooling", lambda one: one.layer.name == "pool")
    edit(step, lambda params: setattr(params.pooling_param, "round_mode", PoolingParameter.FLOOR))
    return step.layer.name, "pooling size"


def graph_half_pixel(graph: Graph, random: Random) -> Planted:
    step = choose(graph, random, "Interp", lambda _: True)
    before = step.operation

    def run(_: object, bottoms: list[torch.Tensor]) -> list[torch.Tensor]:
        size = before.sizes([tuple(bottoms[0].shape)])[0][2:]
        return [functional.interpolate(bottoms[0], size=size, mode="bilinear")]

    step.operation = Operation(before.sizes, run)
    return step.layer.name, "resize"


def graph_channels(graph: Graph, _: Random) -> Planted:
    with torch.no_grad():
        graph.stem.weight.copy_(graph.stem.weight.flip(1))
    return "stem", "channel_order"


def graph_factor(graph: Graph, random: Random) -> Planted:
    step = choose(graph, random, "BatchNorm", lambda _: True)
    step.mean *= float(BN_FACTOR)
    step.variance *= float(BN_FACTOR)
    return step.layer.name, "BatchNorm factor"


def graph_padding(graph: Graph, random: Random) -> Planted:
    step = choose(
        graph, random, "Convolution", lambda one: 2 in one.layer.params.convolution_param.stride
    )
    settings = step.layer.params.convolution_param
    kernel, stride, before = settings.kernel_size[0], settings.stride[0], step.operation

    def run(weights: dict[str, torch.Tensor], bottoms: list[torch.Tensor]) -> list[torch.Tensor]:
        x = pad_same(bottoms[0], kernel, stride)
        return [functional.conv2d(x, weights["weight"], weights["bias"], stride)]

    step.operation = Operation(before.sizes, run, before.blobs)
    return step.layer.name, "padding"


def graph_dilation(graph: Graph, random: Random) -> Planted:
    step = choose(
        graph, random, "Convolution", lambda one: bool(one.layer.params.convolution_param.dilation)
    )
    rate = 6 - step.layer.params.convolution_param.dilation[0]  # 2 and 4 change places.

    def change(params: LayerParameter) -> None:
        params.convolution_param.dilation[:] = params.convolution_param.pad[:] = [rate]

    edit(step, change)
    return step.layer.name, "dilation"


def graph_permuted(graph: Graph, random: Random) -> Planted:
    step = choose(graph, random, "Convolution", lambda _: True)
    with torch.no_grad():
        step.weight[:2] = step.weight[:2].flip(0)
    return step.layer.name, ""


def graph_bias(graph: Graph, random: Random) -> Planted:
    step = choose(graph, random, "Convolution", lambda _: True)
    nn.init.zeros_(step.bias)
    return step.layer.name, ""


def graph_bit(graph: Graph, random: Random) -> Planted:
    step = choose(graph, random, "Convolution", lambda _: True)
    with torch.no_grad():
        bits = step.weight.view(torch.int32).view(-1)
        bits[random.randrange(len(bits))] ^= 1 << random.randrange(23)
    return step.layer.name, ""


GRAPH_FAULTS = (
    graph_eps, graph_floor, graph_half_pixel, graph_channels, graph_factor, graph_padding,
    graph_dilation, graph_permuted, graph_bias, graph_bit,
)  # fmt: skip


def test_a_sound_graph_passes(graph_files: list[Path]) -> None:
    original = open_original(graph_files)
    report = proven(deeplab_zoo.load_caffe(*graph_files), original)
    assert report.passed, report.verdict


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("fault", GRAPH_FAULTS)
def test_a_fault_planted_in_a_graph_fails_and_is_told(
    graph_files: list[Path], fault: Callable[[Graph, Random], Planted], seed: int
) -> None:
    original = open_original(graph_files)
    graph = deeplab_zoo.load_caffe(*graph_files)
    expected = fault(graph, Random(f"{fault.__name__} {seed}"))
    told(proven(graph, original), expected)

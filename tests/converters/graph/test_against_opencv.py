"""OpenCV's Caffe engine as a second reference, for layers that it computes as Caffe does."""

import io
from collections.abc import Callable
from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch

from deeplab_zoo.converters.graph.build import build
from deeplab_zoo.converters.graph.engine import Graph
from deeplab_zoo.proto import caffemodel, prototxt
from deeplab_zoo.proto.errors import MismatchError
from deeplab_zoo.proto.records import Blob, Net

cv2 = pytest.importorskip("cv2")

TOLERANCE = 1e-5  # Relative L2; OpenCV has kernels of its own for most layers.

GAUSSIAN = "weight_filler { type: 'gaussian' } bias_filler { type: 'uniform' }"


def convolution(random: Random) -> str:
    kernel, stride, dilation = random.randint(1, 5), random.randint(1, 4), random.randint(1, 3)
    return (
        f"convolution_param {{ num_output: 6 group: {random.choice([1, 2])} kernel_h: {kernel} "
        f"kernel_w: {random.randint(1, 5)} stride: {stride} pad_h: {random.randint(0, 4)} "
        f"pad_w: {random.randint(0, 4)} dilation: {dilation} {GAUSSIAN} }}"
    )


def deconvolution(random: Random) -> str:
    kernel, stride = random.randint(1, 5), random.randint(1, 4)
    return (
        f"convolution_param {{ num_output: 6 group: {random.choice([1, 2])} kernel_size: {kernel} "
        f"stride: {stride} pad: {random.randint(0, (kernel - 1) // 2)} {GAUSSIAN} }}"
    )


def pooling(random: Random) -> str:
    kernel = random.randint(1, 7)
    return (
        f"pooling_param {{ pool: {random.choice(['MAX', 'AVE'])} kernel_size: {kernel} "
        f"stride: {random.randint(1, kernel)} pad: {random.randint(0, kernel // 2)} }}"
    )


def inner_product(random: Random) -> str:
    return f"inner_product_param {{ num_output: {random.randint(1, 7)} {GAUSSIAN} }}"


def interp(random: Random) -> str:
    return f"interp_param {{ height: {random.randint(1, 50)} width: {random.randint(1, 50)} }}"


def lrn(random: Random) -> str:
    region = random.choice(["ACROSS_CHANNELS", "WITHIN_CHANNEL"])
    return (
        f"lrn_param {{ local_size: {random.choice([1, 3, 5])} alpha: 0.5 norm_region: {region} }}"
    )


def fixed(settings: str = "") -> Callable[[Random], str]:
    return lambda _: settings


# The layers, each with settings for which OpenCV was found to agree with the real Caffe.
ALLOWED: dict[str, Callable[[Random], str]] = {
    "AbsVal": fixed(),
    "BatchNorm": fixed(),
    "Convolution": convolution,
    "Deconvolution": deconvolution,
    "ELU": fixed("elu_param { alpha: 0.7 }"),
    "Flatten": fixed(),
    "InnerProduct": inner_product,
    "Interp": interp,
    "LRN": lrn,
    "PReLU": fixed("prelu_param { filler { type: 'uniform' } }"),
    "Pooling": pooling,
    "Power": fixed("power_param { power: 2 scale: 0.5 shift: 1 }"),
    "ReLU": fixed("relu_param { negative_slope: 0.1 }"),
    "Scale": fixed("scale_param { bias_term: true filler { type: 'gaussian' } }"),
    "Sigmoid": fixed(),
    "Softmax": fixed(),
    "TanH": fixed(),
}

# What OpenCV computes otherwise than the real Caffe did (golden cases of the same names).
KNOWN_ERRORS = {
    "deconv_dilation_hw": "a Deconvolution's dilation is ignored",
    "interp_pad_hw": "an Interp's pads are ignored",
    "interp_shrink2": "an Interp given by factors has no size",
    "interp_zoom4_shrink3": "an Interp given by two factors has another size",
    "kernel_overhang": "a kernel larger than the padded input has no output; C's division gives one",
    "lrn_across_k2": "LRN's k is taken for 1",
    "pool_ave_empty_window": "windows outside the input are clipped away (MAX with k < s too)",
    "scale_two_bottom_bias": "a Scale of two bottoms drops its bias",
    "stage_level": "include and exclude rules are read for one state only",
    "swish": "Swish's beta is taken for 1",
}


def with_weights(net: Net, graph: Graph) -> bytes:
    """Write the graph's weights as a caffemodel, blobs in Caffe's order."""
    state = {key.partition(".")[2]: value.numpy() for key, value in graph.state_dict().items()}
    order = ("weight", "bias", "gamma", "beta", "mean", "variance")
    arrays = [state[role] for role in order if role in state]
    if "mean" in state:
        arrays.append(np.ones(1, np.float32))
    blobs = tuple(Blob(array.shape, array) for array in arrays)
    layers = tuple(
        replace(layer, blobs=blobs) if layer.name == "l" else layer for layer in net.layers
    )
    file = io.BytesIO()
    caffemodel.write(replace(net, layers=layers), file)
    return file.getvalue()


def overhangs(graph: Graph, height: int, width: int) -> bool:
    """Tell whether a kernel is larger than the padded input."""
    params = graph.steps[0].layer.params
    pool, conv = params.pooling_param, params.convolution_param
    rates = list(conv.dilation) or [1]
    high = rates[0] * (conv.kernel_h - 1) + 1 - 2 * conv.pad_h
    wide = rates[0] * (conv.kernel_w - 1) + 1 - 2 * conv.pad_w
    least = max(pool.kernel_size - 2 * pool.pad, 0)
    return height < max(high, least) or width < max(wide, least)


def opencvs(text: str, weights: bytes, image: np.ndarray) -> np.ndarray:
    engine = cv2.dnn.readNetFromCaffe(
        np.frombuffer(text.encode(), np.uint8), np.frombuffer(weights, np.uint8)
    )
    engine.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    engine.enableFusion(False)
    engine.setInput(image, "data")
    return np.asarray(engine.forward("l"))


def compared(kind: str, random: Random, height: int, width: int) -> bool:
    """Compare a layer of this kind; tell whether the settings made a layer at all."""
    settings = ALLOWED[kind](random)
    shape = (2, 4, height, width)
    text = (
        f"input: 'data' input_shape {{ dim: 2 dim: 4 dim: {height} dim: {width} }} "
        f"layer {{ name: 'l' type: '{kind}' bottom: 'data' top: 'l' {settings} }}"
    )
    net = prototxt.parse_net(text, "net")
    try:
        graph = build(net, seed=random.randint(0, 999))
    except MismatchError as error:
        assert "empty" in str(error)
        return False
    if overhangs(graph, height, width):
        return False
    for key, value in graph.state_dict().items():
        if key == "l.mean":
            value.uniform_(-1, 1)
        if key == "l.variance":
            value.uniform_(0.5, 2)
    image = np.random.default_rng(random.randint(0, 999)).normal(0, 2, shape).astype(np.float32)
    with torch.no_grad():
        ours = graph({"data": torch.from_numpy(image)})["l"].numpy()
    theirs = opencvs(text, with_weights(net, graph), image)
    assert ours.shape == theirs.shape, settings
    distance = np.linalg.norm(ours - theirs.astype(np.float64))
    assert distance <= TOLERANCE * np.linalg.norm(theirs), settings
    return True


@pytest.mark.parametrize("kind", sorted(ALLOWED))
def test_a_layer_agrees_with_opencv(kind: str) -> None:
    random = Random(kind)
    count = 40 if ALLOWED[kind](Random(1)) != ALLOWED[kind](Random(2)) else 4
    made = [
        compared(kind, random, random.randint(1, 40), random.randint(1, 40)) for _ in range(count)
    ]
    assert sum(made) > count / 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution", "Interp", "Pooling"])
def test_a_layer_agrees_with_opencv_at_every_size(kind: str) -> None:
    random = Random(kind)
    for size in range(1, 41):
        for _ in range(30):
            compared(kind, random, size, random.randint(1, 40))

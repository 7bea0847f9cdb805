"""The main job on built-in input: make a caffemodel, convert it, prove it unchanged."""

import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..converters import caffe_graph, hdf5, weights
from ..converters.convert import convert_caffe
from ..converters.deeplab_v2 import DeepLabV2Config, norm_of, parameters
from ..converters.files import replacing, sha256
from ..converters.naming.deeplab_v2 import HEAD, context_of, from_canonical
from ..converters.native import to_native
from ..converters.write_caffe import deploy_net, filled
from ..proto import caffemodel, prototxt
from ..proto.records import Blob, Net
from .models.inference import prepare
from .models.load import build
from .parity import opencv
from .parity.blobs import activations
from .parity.comparison import compare
from .parity.report import ParityReport, write

# Every layer of the published net, an eighth as wide, at the published three scales.
NARROW = DeepLabV2Config(stem=8, widths=(8, 16, 32, 64), scales=(1.0, 0.75, 0.5))
SIZE = (129, 161)
BN_FACTOR = np.float32(999.982)  # What Caffe's factor converges to at a fraction of 0.999.


class Step(NamedTuple):
    """Something done, for the user to see, and the file it left (if any)."""

    text: str
    path: Path | None = None
    report: ParityReport | None = None


def run(folder: Path, seed: int = 0) -> Iterator[Step]:
    """Do the demo in ``folder``, yielding after each step; the last has the report."""
    engine = f"OpenCV {opencv.version()}"
    text, binary, archive, native = (
        folder / name
        for name in ("deploy.prototxt", "narrow.caffemodel", "narrow.h5", "narrow.safetensors")
    )
    net = filled(deploy_net(NARROW, *SIZE), random_blobs(NARROW, seed))
    write_net(net, text, binary)
    yield Step(f"wrote a narrow DeepLab-ResNet-101 of {len(net.layers)} layers", binary)
    convert_caffe(text, binary, archive)
    yield Step("read it back into an HDF5 archive", archive)
    converted = to_native(hdf5.read(archive))
    weights.write(converted.weights, native)
    yield Step(f"brought {len(converted.weights.state)} tensors home to PyTorch", native)
    model = build(converted.weights)
    image = prepare(picture(*SIZE, seed), model.numerics).numpy()
    ours = activations(model, image)
    graph = caffe_graph.select(prototxt.read(text))
    reference = opencv.run(graph, np.fromfile(binary, np.uint8), image)
    report = ParityReport(
        "narrow DeepLab-ResNet-101, three scales",
        engine,
        {path.name: sha256(path) for path in (text, binary)},
        _equal_weights(net, {k: v.numpy() for k, v in model.state_dict().items()}),
        tuple(compare(blob, ours[blob], value) for blob, value in reference.items()),
    )
    _, page = write(report, folder)
    yield Step(f"compared {len(report.comparisons)} blobs with {engine}", page, report)


def write_net(net: Net, text: Path, binary: Path) -> None:
    """Write a net as Caffe keeps it: the graph as prototxt, the weights as caffemodel."""
    with replacing(text) as temporary:
        temporary.write_text(prototxt.format_net(net), encoding="utf-8")
    with replacing(binary) as temporary, temporary.open("wb") as file:
        caffemodel.write(net, file)


def random_blobs(config: DeepLabV2Config, seed: int) -> dict[str, tuple[Blob, ...]]:
    """Draw weights that keep activations in range through 101 layers, by Caffe layer.

    Convolutions are uniform with He's variance, the last of each residual branch a quarter
    of it; statistics are stored as Caffe does, multiplied by a factor.
    """
    names = context_of(config.blocks)
    shapes = parameters(config)
    blobs: dict[str, tuple[Blob, ...]] = {}
    for name, shape in shapes.items():
        module, _, parameter = name.rpartition(".")
        if parameter != "weight" or len(shape) != 4:
            continue
        layer = from_canonical("caffe", module, names)
        random = np.random.Generator(np.random.PCG64([seed, zlib.crc32(layer.encode())]))
        bound = np.sqrt(6 / (shape[1] * shape[2] * shape[3])) * _gain(module)
        weight = random.uniform(-bound, bound, shape).astype(np.float32)
        out = shape[0]
        if module.startswith(HEAD):
            blobs[layer] = _blobs(weight, random.normal(0, 0.1, out))
            continue
        norm = from_canonical("caffe", norm_of(module), names)
        mean, variance = random.normal(0, 0.1, out), random.uniform(0.5, 1.5, out)
        blobs[layer] = _blobs(weight)
        blobs[norm] = _blobs(mean * BN_FACTOR, variance * BN_FACTOR, np.array([BN_FACTOR]))
        blobs[f"scale{norm.removeprefix('bn')}"] = _blobs(
            random.uniform(0.8, 1.2, out), random.normal(0, 0.05, out)
        )
    return blobs


def _gain(module: str) -> float:
    if module == "backbone.conv1":
        return 1 / 64  # Pixels are some 60 wide.
    if module.startswith(HEAD):
        return 0.1
    return 0.25 if module.endswith("conv3") else 1.0


def _blobs(*arrays: NDArray[np.floating]) -> tuple[Blob, ...]:
    return tuple(Blob(one.shape, one.astype(np.float32)) for one in arrays)


def picture(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Draw a photo-like RGB picture (height, width, 3): a sky, a ground, some round things."""
    random = np.random.Generator(np.random.PCG64(seed))
    y, x = np.mgrid[:height, :width]
    image = np.stack([90 + 0.5 * y, 130 + 0.3 * y, 200 - 0.6 * y], -1)
    image[y > 0.6 * height] = (95, 110, 60)
    for _ in range(6):
        centre, radius = random.uniform(0, (height, width)), random.uniform(0.05, 0.25) * height
        image[np.hypot(y - centre[0], x - centre[1]) < radius] = random.uniform(0, 255, 3)
    noise = random.normal(0, 8, image.shape)
    return (image + noise).clip(0, 255).astype(np.uint8)


def _equal_weights(net: Net, state: Mapping[str, NDArray[np.float32]]) -> tuple[int, int]:
    """Count the model's tensors and those equal, to the bit, to what the caffemodel holds.

    Stated apart from the converter: by each layer's own blobs and Caffe's own division.
    """
    layers = {layer.name: layer for layer in net.layers}
    names = context_of(NARROW.blocks)
    compared = equal = 0
    for name, shape in parameters(NARROW).items():
        module, _, parameter = name.rpartition(".")
        layer = layers[from_canonical("caffe", module, names)]
        if layer.type == "BatchNorm" and parameter in ("weight", "bias"):
            layer = layers[f"scale{layer.name.removeprefix('bn')}"]
        index = {"weight": 0, "bias": 1, "running_mean": 0, "running_var": 1}[parameter]
        expected = layer.blobs[index].data
        if parameter.startswith("running"):
            expected = np.multiply(expected, np.float32(1) / np.float32(layer.blobs[2].data[0]))
        compared += 1
        equal += state[name].shape == shape and state[name].tobytes() == expected.tobytes()
    return compared, equal

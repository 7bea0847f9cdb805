"""The main job on built-in input: make a caffemodel, convert it, prove it unchanged, train it."""

import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ..converters import hdf5, weights
from ..converters.convert import convert_caffe
from ..converters.deeplab_v2 import DeepLabV2Config, norm_of, parameters
from ..converters.files import replacing, sha256, write_text
from ..converters.naming.deeplab_v2 import HEAD, context_of, from_canonical
from ..converters.native import to_native
from ..converters.write_caffe import deploy_net, filled
from ..proto import caffemodel, prototxt
from ..proto.errors import UsageError
from ..proto.records import Blob, Net
from .data.layouts import open_dataset
from .evaluation.evaluate import evaluate
from .evaluation.network import open_network
from .evaluation.report import markdown
from .models.load import load
from .parity import opencv, page
from .parity.cases import photo
from .parity.check import check
from .parity.comparison import tolerance
from .parity.engine import Case
from .parity.original import open_original
from .parity.report import ParityReport, write_json, write_markdown
from .training.config import TrainConfig, read_yaml
from .training.job import RESULT, finetune
from .training.shapes import write_shapes

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
    """Do the demo in ``folder``, yielding after each step; one of them has the report."""
    opencv.version()  # Told before the work, where it is not installed.
    text, binary, archive, native = (
        folder / name
        for name in ("deploy.prototxt", "narrow.caffemodel", "narrow.h5", "narrow.safetensors")
    )
    there = [one for one in (text, folder / "report.json", folder / "shapes") if one.exists()]
    if there and not binary.exists():
        raise UsageError(f"{there[0]}: is there already, and no demo's. Name another folder: -o.")
    net = filled(deploy_net(NARROW, *SIZE), random_blobs(NARROW, seed))
    write_net(net, text, binary)
    yield Step(f"wrote a narrow DeepLab-ResNet-101 of {len(net.layers)} layers", binary)
    convert_caffe(text, binary, archive)
    yield Step("read it back into an HDF5 archive", archive)
    converted = to_native(hdf5.read(archive))
    weights.write(converted.weights, native)
    yield Step(f"brought {len(converted.weights.state)} tensors home to PyTorch", native)
    model = load(native)
    original = open_original([text, binary])
    reference = opencv.engine(original)
    report = check(
        model,
        original,
        reference,
        [Case(f"photo, {SIZE[0]}x{SIZE[1]}", photo(*SIZE, seed))],
        tolerance("fp32"),
        files={native.name: sha256(native)},
    )
    write_json(report, folder / "report.json")
    write_markdown(report, folder / "report.md")
    page.write(report, folder / "report.html")
    count = len(report.cases[0].comparisons)
    yield Step(f"compared {count} blobs with {reference.label}", folder / "report.html", report)
    if report.passed:
        yield from trained(native, folder, seed)


def trained(native: Path, folder: Path, seed: int) -> Iterator[Step]:
    """Fine-tune the net on drawn shapes for a few updates, from and to an mIoU."""
    data, run = folder / "shapes", folder / "finetuned"
    _clear(run, data)
    write_shapes(data, 16, 6, seed=seed)
    yield Step("drew a dataset of 22 pictures", data)
    config = TrainConfig(
        data=str(data), loss="ce+lovasz", reset_head=True, batch_norm="trained", lr=1e-3, steps=50,
        batch_size=8, accumulate=1, crop=81, random_scale=False, val_start=True, val_every=0,
        save_every=50, workers=0, tensorboard=False, seed=seed,
    )  # fmt: skip
    said: list[str] = []
    result = finetune(native, config, run, show=said.append)
    if result.path is None:
        raise KeyboardInterrupt  # The training has noticed it, and saved.
    before, after = (line.rpartition(" ")[2] for line in said if "mIoU" in line)
    told = f"fine-tuned {result.step} updates with {config.loss}, mIoU {before} -> {after}"
    yield Step(told, result.path)
    judged = evaluate(
        open_network(str(run / RESULT), torch.device("cpu")), open_dataset(data, "val")
    )
    write_text(run / "evaluation.md", "\n".join(markdown(judged)) + "\n")
    yield Step(f"evaluated: {judged.headline}", run / "evaluation.md")


def _clear(run: Path, data: Path) -> None:
    """Remove what a demo before has trained; another's run stays, which `finetune` refuses."""
    config = run / "config.yaml"
    if config.is_file() and Path(read_yaml(config).get("data", "")).resolve() == data.resolve():
        shutil.rmtree(run)


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

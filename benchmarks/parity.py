"""How close the native model is to the real Caffe and to OpenCV's Caffe engine.

Full size: weights from a seed, written by this project, read and run by OpenCV from the same
files, every blob compared. Narrow: every blob of the reference run of the real Caffe, where
those values lie beside the checkout. Prints a Markdown table; several minutes on two cores.

    python benchmarks/parity.py [--reference ../shared/golden/caffe/small]
"""

import argparse
import platform
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import deeplab_zoo
from deeplab_zoo.converters import caffe_graph
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config
from deeplab_zoo.converters.write_caffe import deploy_net, filled
from deeplab_zoo.proto import prototxt
from deeplab_zoo.zoo.demo import picture, random_blobs, write_net
from deeplab_zoo.zoo.models.inference import prepare
from deeplab_zoo.zoo.parity import opencv
from deeplab_zoo.zoo.parity.blobs import activations
from deeplab_zoo.zoo.parity.comparison import Comparison, compare

SIZES = {
    (1.0,): ((321, 321), (320, 433), (513, 513)),
    (1.0, 0.75, 0.5): ((321, 321), (321, 449), (513, 513)),
}


def full_size() -> Iterator[tuple[str, list[Comparison]]]:
    """Compare the 176 MB net with OpenCV at each size."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text, binary, out = (folder / f"net.{kind}" for kind in ("prototxt", "caffemodel", "h5"))
        for scales, sizes in SIZES.items():
            config = DeepLabV2Config(scales=scales)
            blobs = random_blobs(config, 0)
            for size in sizes:
                write_net(filled(deploy_net(config, *size), blobs), text, binary)
                deeplab_zoo.convert_caffe(text, binary, out)
                model = deeplab_zoo.load(out)
                image = prepare(picture(*size, 0), model.numerics).numpy()
                graph = caffe_graph.select(prototxt.read(text))
                expected = opencv.run(graph, np.fromfile(binary, np.uint8), image)
                ours = activations(model, image)
                label = f"full size, {_form(config)}, {size[0]}x{size[1]}"
                yield label, [compare(one, ours[one], value) for one, value in expected.items()]


def narrow(folder: Path) -> Iterator[tuple[str, list[Comparison]]]:
    """Compare with every recorded blob of the real Caffe."""
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "x.safetensors"
        for net in ("single", "msc"):
            deeplab_zoo.convert_caffe(folder / f"{net}.prototxt", folder / f"{net}.caffemodel", out)
            model = deeplab_zoo.load(out)
            expected = dict(np.load(folder / "single_blobs.npz"))
            if net == "msc":
                expected |= dict(np.load(folder / "msc_blobs.npz"))
            ours = activations(model, expected["data"])
            label = f"an eighth as wide, {_form(model.config)}, 65x97"
            yield label, [compare(one, ours[one], value) for one, value in expected.items()]


def _form(config: DeepLabV2Config) -> str:
    return "multi-scale" if len(config.scales) > 1 else "single-scale"


def _row(engine: str, label: str, found: list[Comparison]) -> str:
    worst = max(found, key=lambda one: one.relative_l2)
    final = next(one for one in found if one.blob == "fc1_interp")
    return (
        f"| {label} | {engine} | {len(found)} | {worst.relative_l2:.1e} ({worst.blob}) | "
        f"{final.relative_l2:.1e} | {final.agreement:.3%} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    beside = Path(__file__).parents[2] / "shared" / "golden" / "caffe" / "small"
    parser.add_argument("--reference", type=Path, default=beside)
    options = parser.parse_args()
    print(
        f"{platform.platform()}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads\n"
    )
    print("| net | engine | blobs | worst relative L2 | scores, relative L2 | same argmax |")
    print("|---|---|---:|---:|---:|---:|")
    if options.reference.is_dir():
        for label, found in narrow(options.reference):
            print(_row("Caffe 1.0.0-rc3 (DeepLab fork)", label, found), flush=True)
    else:
        print(f"no reference values at {options.reference}", file=sys.stderr)
    for label, found in full_size():
        print(_row(f"OpenCV {opencv.version()}", label, found), flush=True)


if __name__ == "__main__":
    main()

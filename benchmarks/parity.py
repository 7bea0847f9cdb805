"""How close the native model is to the real Caffe, the real TensorFlow and OpenCV's Caffe engine.

Full size: weights from a seed, written by this project, read and run by OpenCV from the same
files, every blob compared. Narrow: every blob of the reference runs of the real Caffe and of
the real TensorFlow, where those values lie beside the checkout. Prints a Markdown table;
several minutes on two cores.

    python benchmarks/parity.py [--reference ../shared/golden] [--narrow]
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
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config
from deeplab_zoo.converters.write_caffe import deploy_net, filled
from deeplab_zoo.zoo.demo import random_blobs, write_net
from deeplab_zoo.zoo.models.inference import prepare
from deeplab_zoo.zoo.parity import opencv
from deeplab_zoo.zoo.parity.blobs import activations
from deeplab_zoo.zoo.parity.cases import photo
from deeplab_zoo.zoo.parity.comparison import Comparison, compare
from deeplab_zoo.zoo.parity.original import open_original

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
                image = prepare(photo(*size, 0), model.numerics).numpy()
                expected = opencv.engine(open_original([text, binary])).run({"data": image})
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


def narrow_tensorflow(folder: Path) -> Iterator[tuple[str, list[Comparison]]]:
    """Compare with every recorded activation of the real TensorFlow that is a blob of ours."""
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "x.safetensors"
        deeplab_zoo.convert_tensorflow(folder / "v2" / "model.ckpt", out)
        model = deeplab_zoo.load(out)
        for size in ("97x129", "96x128", "65x66", "7x9"):
            recorded = dict(np.load(folder / f"forward_{size}.npz"))
            image = recorded["input_nhwc_bgr_minus_mean"].transpose(0, 3, 1, 2)
            ours = activations(model, np.ascontiguousarray(image))
            expected = {
                blob: recorded[key].transpose(0, 3, 1, 2)
                for key in recorded
                if (blob := key.removesuffix("_relu")) in ours
                and (key.endswith("_relu") or key.startswith(("pool1", "fc1")))
            }
            label = f"an eighth as wide, single-scale, {size}"
            yield label, [compare(blob, ours[blob], value) for blob, value in expected.items()]


def _form(config: DeepLabV2Config) -> str:
    return "multi-scale" if len(config.scales) > 1 else "single-scale"


def _row(engine: str, label: str, found: list[Comparison]) -> str:
    worst = max(found, key=lambda one: one.distance)
    final = next(one for one in reversed(found) if one.blob in ("fc1_interp", "fc1_voc12"))
    return (
        f"| {label} | {engine} | {len(found)} | {worst.relative_l2:.1e} ({worst.blob}) | "
        f"{final.relative_l2:.1e} | {final.agreement:.3%} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    beside = Path(__file__).parents[2] / "shared" / "golden"
    parser.add_argument("--reference", type=Path, default=beside)
    parser.add_argument("--narrow", action="store_true", help="leave the full size out")
    options = parser.parse_args()
    print(
        f"{platform.platform()}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads\n"
    )
    print("| net | engine | blobs | worst relative L2 | scores, relative L2 | same argmax |")
    print("|---|---|---:|---:|---:|---:|")
    if options.reference.is_dir():
        for label, found in narrow(options.reference / "caffe" / "small"):
            print(_row("Caffe 1.0.0-rc3 (DeepLab fork)", label, found), flush=True)
        for label, found in narrow_tensorflow(options.reference / "tf" / "small"):
            print(_row("TensorFlow 2.21.0", label, found), flush=True)
    else:
        print(f"no reference values at {options.reference}", file=sys.stderr)
    for label, found in () if options.narrow else full_size():
        print(_row(f"OpenCV {opencv.version()}", label, found), flush=True)


if __name__ == "__main__":
    main()

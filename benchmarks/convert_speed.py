"""How fast is ``convert caffe``, beside the disk and beside protobuf with Python lists?

Makes a full-size DeepLab-ResNet-101 caffemodel (176 MB) from a seed, then times, in
interleaved rounds of one process, imports excluded:

- ours: read the caffemodel, write the HDF5 archive and the safetensors file, both fsynced;
- disk: write and fsync the bytes of those same two files;
- read: read the caffemodel and copy every number into an array of its own, and the same
  with google.protobuf and a Python list per blob, as older converters do (lists).

The source's sha256, which a conversion also records, is timed apart. Peak memory is of a
process of its own, above the same process that only imports.

    python benchmarks/convert_speed.py [--rounds 5] [--folder /tmp]
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from deeplab_zoo.converters import convert, files, hdf5, weights
from deeplab_zoo.converters.native import to_native
from deeplab_zoo.proto import caffe_pb2, caffemodel


def ours(folder: Path) -> None:
    """Convert, as the command does, but for the sha256 of the sources."""
    digest, convert.sha256 = convert.sha256, lambda path: path.name  # type: ignore[attr-defined]
    try:
        archive = convert.read_caffe(folder / "net.prototxt", folder / "net.caffemodel")
    finally:
        convert.sha256 = digest  # type: ignore[attr-defined]
    hdf5.write(archive, folder / "net.h5")
    weights.write(to_native(archive).weights, folder / "net.safetensors")


def disk(folder: Path, contents: list[bytes]) -> None:
    """Write the same bytes to files that exist, as ours do, and fsync them."""
    for index, content in enumerate(contents):
        with files.replacing(folder / f"raw{index}") as path, path.open("wb") as file:
            file.write(content)


def read(folder: Path) -> None:
    """Read every number into an array of its own."""
    for layer in caffemodel.read(folder / "net.caffemodel").layers:
        for blob in layer.blobs:
            np.array(blob.data)


def lists(folder: Path) -> None:
    """Do the same with the generated protobuf classes and Python lists."""
    net = caffe_pb2.NetParameter()
    net.ParseFromString((folder / "net.caffemodel").read_bytes())
    for layer in net.layer:
        for blob in layer.blobs:
            np.array(list(blob.data), np.float32).reshape(list(blob.shape.dim))


def timed(job: Callable[[], object]) -> float:
    """Return the seconds a job takes."""
    started = time.perf_counter()
    job()
    return time.perf_counter() - started


def peak(folder: Path, job: str) -> float:
    """Return the peak memory in MiB of a fresh process that imports and runs ``job``."""
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2]);"
        "import convert_speed; folder = Path(sys.argv[1]);"
        f"{job}; assert 'torch' not in sys.modules; print(Path('/proc/self/status').read_text())"
    )
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", code, str(folder), here]
    status = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def make(folder: Path) -> None:
    """Write the full-size net, from a seed."""
    from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config
    from deeplab_zoo.converters.write_caffe import deploy_net, filled
    from deeplab_zoo.zoo.demo import random_blobs, write_net

    config = DeepLabV2Config()
    net = filled(deploy_net(config, 321, 321), random_blobs(config, 0))
    write_net(net, folder / "net.prototxt", folder / "net.caffemodel")


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        make(folder)
        ours(folder)
        contents = [(folder / f"net.{kind}").read_bytes() for kind in ("h5", "safetensors")]
        rounds: dict[str, list[float]] = {
            "ours": [],
            "disk": [],
            "read": [],
            "lists": [],
            "sha256": [],
        }
        for _ in range(options.rounds):
            rounds["ours"].append(timed(lambda: ours(folder)))
            rounds["disk"].append(timed(lambda: disk(folder, contents)))
            rounds["sha256"].append(timed(lambda: files.sha256(folder / "net.caffemodel")))
        for _ in range(min(3, options.rounds)):
            rounds["read"].append(timed(lambda: read(folder)))
            rounds["lists"].append(timed(lambda: lists(folder)))
        source = (folder / "net.caffemodel").stat().st_size / 1e6
        print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
        print(f"caffemodel {source:.1f} MB; medians of {options.rounds} interleaved rounds")
        middle = {kind: statistics.median(times) for kind, times in rounds.items()}
        for kind, times in rounds.items():
            spread = f"{min(times):.3f} to {max(times):.3f}"
            print(f"{kind:<8} {middle[kind]:7.3f} s   ({spread})")
        ratios = [a / b for a, b in zip(rounds["ours"], rounds["disk"], strict=True)]
        print(f"ours / disk   {statistics.median(ratios):.2f}   (bound 2.5)")
        print(f"lists / read  {middle['lists'] / middle['read']:.1f}   (bound 10)")
        bare, full = peak(folder, "pass"), peak(folder, "convert_speed.ours(folder)")
        limit = 1.3 * source * 1e6 / 2**20 + 16
        print(f"peak memory above imports {full - bare:.0f} MiB   (bound {limit:.0f})")


if __name__ == "__main__":
    main()

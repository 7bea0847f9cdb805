"""How fast is ``convert tf``, beside TensorFlow with ``torch.save`` and beside the disk?

Makes a full-size DeepLab-ResNet-101 checkpoint of TensorFlow's (V2, 176 MB) from a seed, then
times, in interleaved rounds, whole processes:

- command: ``deeplab-zoo convert tf``, as a user runs it;
- tensorflow: a script that does the same with ``tf.train.load_checkpoint``, which verifies
  the same checksums, and ``torch.save``, which fsyncs nothing;

and within this process, imports excluded:

- ours: read the checkpoint with its crcs verified, write the safetensors file, fsynced;
- crc: the part of that spent in crc32c;
- disk: write and fsync the bytes of that file;
- open: open the checkpoint and list names, shapes and types.

The source's sha256, which a conversion also records, is timed apart.

    python benchmarks/convert_tf_speed.py [--rounds 5] [--folder /tmp]
"""

import argparse
import hashlib
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from deeplab_zoo.converters import convert, files, weights
from deeplab_zoo.converters.native import to_native
from deeplab_zoo.proto import checkpoint_v2, table
from deeplab_zoo.proto.checkpoint import open_checkpoint

COMMAND = Path(sys.executable).with_name("deeplab-zoo")

BASELINE = """
import sys
import numpy as np
import tensorflow as tf
import torch

source, target = sys.argv[1:]
reader = tf.train.load_checkpoint(source)
state = {}
for name in reader.get_variable_to_shape_map():
    data = reader.get_tensor(name)
    if data.ndim == 4:
        data = data.transpose(3, 2, 0, 1)
    state[name] = torch.from_numpy(np.ascontiguousarray(data))
torch.save(state, target)
"""


def command(folder: Path) -> None:
    """Convert with the command."""
    arguments = ["convert", "tf", folder / "net.ckpt", "-o", folder / "command.safetensors"]
    subprocess.run([COMMAND, *arguments], check=True, capture_output=True)


def tensorflow(folder: Path) -> None:
    """Convert with TensorFlow and PyTorch."""
    arguments = [folder / "net.ckpt", folder / "tensorflow.pth"]
    subprocess.run([sys.executable, "-c", BASELINE, *arguments], check=True, capture_output=True)


def ours(folder: Path) -> None:
    """Convert, as the command does, but for the sha256 of the sources."""
    digest, convert.sha256 = convert.sha256, lambda path: path.name  # type: ignore[attr-defined]
    try:
        archive = convert.read_tensorflow(folder / "net.ckpt")
    finally:
        convert.sha256 = digest  # type: ignore[attr-defined]
    weights.write(to_native(archive).weights, folder / "net.safetensors")


@contextmanager
def clocked_crc() -> Iterator[list[float]]:
    """Give a list of the seconds that each crc32c within the block takes."""
    plain, times = table.crc32c, []

    def clocked(*parts: object) -> int:
        started = time.perf_counter()
        crc = plain(*parts)  # type: ignore[arg-type]
        times.append(time.perf_counter() - started)
        return crc

    table.crc32c = checkpoint_v2.crc32c = clocked  # type: ignore[attr-defined]
    try:
        yield times
    finally:
        table.crc32c = checkpoint_v2.crc32c = plain  # type: ignore[attr-defined]


def disk(folder: Path, content: bytes) -> None:
    """Write the same bytes to a file that exists, as ours does, and fsync it."""
    with files.replacing(folder / "raw") as path, path.open("wb") as file:
        file.write(content)


def listed(folder: Path) -> list[tuple[str, tuple[int, ...], str]]:
    """Open the checkpoint and list it."""
    variables = open_checkpoint(folder / "net.ckpt").values()
    return [(variable.name, variable.shape, variable.dtype) for variable in variables]


def digests(path: Path) -> list[str]:
    """Return the sha256 of each tensor's numbers, whatever the tensors are called."""
    state, _ = weights.read_named(path)
    return sorted(hashlib.sha256(np.ascontiguousarray(one)).hexdigest() for one in state.values())


def timed(job: Callable[[], object]) -> float:
    """Return the seconds a job takes."""
    started = time.perf_counter()
    job()
    return time.perf_counter() - started


def make(folder: Path) -> None:
    """Write the full-size checkpoint, from a seed."""
    from deeplab_zoo.converters import caffe
    from deeplab_zoo.converters.archive import Archive, Origin, tool
    from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config
    from deeplab_zoo.converters.export import export
    from deeplab_zoo.converters.numerics import TF_SLIM
    from deeplab_zoo.converters.write_caffe import deploy_net, filled
    from deeplab_zoo.zoo.demo import random_blobs

    config = DeepLabV2Config()
    net = filled(deploy_net(config, 321, 321), random_blobs(config, 0))
    tensors, _ = caffe.tensors(net)
    archive = Archive(Origin("caffe", {}, tool()), TF_SLIM, None, tensors)
    weights.write(to_native(archive).weights, folder / "made.safetensors")
    export(folder / "made.safetensors", folder / "net.ckpt", to="tf")


def measure(folder: Path, count: int) -> dict[str, list[float]]:
    """Run the rounds; the disk is idle when a job starts."""
    ours(folder)
    content = (folder / "net.safetensors").read_bytes()
    data = folder / "net.ckpt.data-00000-of-00001"
    kinds = ("command", "tensorflow", "ours", "crc", "disk", "open", "sha256")
    rounds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(count):
        for job in (command, tensorflow):
            os.sync()
            rounds[job.__name__].append(timed(lambda job=job: job(folder)))
    if digests(folder / "command.safetensors") != digests(folder / "tensorflow.pth"):
        sys.exit("convert_tf_speed: the two results hold other numbers, expected the same.")
    os.sync()
    for _ in range(count):
        with clocked_crc() as crcs:
            rounds["ours"].append(timed(lambda: ours(folder)))
        rounds["crc"].append(sum(crcs))
        rounds["disk"].append(timed(lambda: disk(folder, content)))
        rounds["open"].append(timed(lambda: listed(folder)))
        rounds["sha256"].append(timed(lambda: files.sha256(data)))
    return rounds


def ratio(rounds: dict[str, list[float]], one: str, other: str) -> float:
    """Return the median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(rounds[one], rounds[other], strict=True))


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if find_spec("tensorflow") is None:
        sys.exit("convert_tf_speed: needs TensorFlow: pip install 'deeplab-zoo[tensorflow]'")
    if not COMMAND.is_file():
        sys.exit(f"convert_tf_speed: {COMMAND} is missing: pip install deeplab-zoo")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        make(folder)
        rounds = measure(folder, options.rounds)
        source = (folder / "net.ckpt.data-00000-of-00001").stat().st_size / 1e6
        variables = len(listed(folder))
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(
        f"checkpoint {source:.1f} MB, {variables} variables; "
        f"medians of {options.rounds} interleaved rounds"
    )
    for kind, times in rounds.items():
        spread = f"{min(times):.4f} to {max(times):.4f}"
        print(f"{kind:<10} {statistics.median(times):8.4f} s   ({spread})")
    print(
        f"tensorflow / command  {ratio(rounds, 'tensorflow', 'command'):.1f}   (bound: at least 4)"
    )
    print(f"ours / disk           {ratio(rounds, 'ours', 'disk'):.2f}   (bound 2.5)")
    print(f"crc / ours            {100 * ratio(rounds, 'crc', 'ours'):.0f} %   (bound 30 %)")
    print(f"open and list         {1000 * statistics.median(rounds['open']):.1f} ms")


if __name__ == "__main__":
    main()

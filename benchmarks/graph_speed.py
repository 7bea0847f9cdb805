"""How fast is a prototxt run as a graph, beside the native model of the same net?

Makes a DeepLab-ResNet-101 from a seed, loads it both ways, checks that they give the same
scores, then times one forward pass of each in interleaved rounds of one process. What each
blob costs that is asked for (``all``) is timed apart.

    python benchmarks/graph_speed.py [--rounds 7] [--size 321] [--multi-scale] [--narrow]
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from deeplab_zoo import convert_caffe, load, load_caffe
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config
from deeplab_zoo.converters.write_caffe import deploy_net, filled
from deeplab_zoo.zoo.demo import random_blobs, write_net

BOUND = 1.05
NARROW = DeepLabV2Config(stem=8, widths=(8, 16, 32, 64))


def timed(function: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


@torch.inference_mode()
def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--size", type=int, default=321)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--multi-scale", action="store_true")
    parser.add_argument("--narrow", action="store_true", help="an eighth as wide")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = NARROW if options.narrow else DeepLabV2Config()
    if options.multi_scale:
        config = replace(config, scales=(1.0, 0.75, 0.5))
    with tempfile.TemporaryDirectory() as name:
        text, binary = Path(name, "net.prototxt"), Path(name, "net.caffemodel")
        net = filled(deploy_net(config, options.size, options.size), random_blobs(config, 0))
        write_net(net, text, binary)
        start = time.perf_counter()
        graph = load_caffe(text, binary)
        built = time.perf_counter() - start
        convert_caffe(text, binary, Path(name, "native.safetensors"))
        model = load(Path(name, "native.safetensors"))
    image = torch.randn(1, 3, options.size, options.size) * 60
    scores = "fc_fusion" if options.multi_scale else "fc1_voc12"
    same = torch.equal(graph({"data": image}, blobs=[scores])[scores], model(image))
    rounds: dict[str, list[float]] = {"graph": [], "native": [], "graph, all": []}
    calls: dict[str, Callable[[], object]] = {
        "graph": lambda: graph({"data": image}, blobs=[scores]),
        "native": lambda: model(image),
        "graph, all": lambda: graph({"data": image}, blobs="all"),
    }
    order = list(calls)
    for _ in range(options.rounds):
        for kind in order:
            rounds[kind].append(timed(calls[kind]))
        order.reverse()  # So that neither always runs in the other's wake.
    print(
        f"{platform.platform()}, {options.threads} threads, Python {platform.python_version()}, "
        f"torch {torch.__version__}"
    )
    print(
        f"{'narrow' if options.narrow else 'full size'}, scales {config.scales}, "
        f"{options.size}x{options.size}; medians of {options.rounds} interleaved rounds; "
        f"equal scores: {same}; graph built in {built:.2f} s"
    )
    for kind, times in rounds.items():
        spread = f"{min(times):.3f} to {max(times):.3f}"
        print(f"{kind:<10} {statistics.median(times):7.3f} s   ({spread})")
    ratios = [a / b for a, b in zip(rounds["graph"], rounds["native"], strict=True)]
    print(f"graph / native   {statistics.median(ratios):.3f}   (bound {BOUND})")


if __name__ == "__main__":
    main()

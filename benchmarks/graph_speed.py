"""How fast is a prototxt run as a graph, beside the native model and OpenCV's engine?

Makes a DeepLab-ResNet-101 from a seed, loads it three ways, and times one forward pass of each
in interleaved rounds of one process, in an order that turns with every round, so that noise
falls on all alike:

- the graph beside the native model, which give the same scores to the bit;
- the graph with its batch norms folded beside OpenCV's engine, which folds its own (fusion and
  Winograd on, as OpenCV does by default);
- the graph with every blob asked for.

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

import cv2
import numpy as np
import torch

from deeplab_zoo import convert_caffe, fold_batch_norm, load, load_caffe
from deeplab_zoo.converters.caffe_graph import select
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config
from deeplab_zoo.converters.graph.engine import Graph
from deeplab_zoo.converters.write_caffe import deploy_net, filled
from deeplab_zoo.proto import prototxt
from deeplab_zoo.zoo.demo import random_blobs, write_net
from deeplab_zoo.zoo.parity.opencv import rewritten

NARROW = DeepLabV2Config(stem=8, widths=(8, 16, 32, 64))
RATIOS = {("graph", "native"): 1.05, ("folded", "OpenCV"): 1.0}  # With their bounds.


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def timed(function: Callable[[], object], clock: Callable[[], float]) -> float:
    """Return the seconds that a call takes."""
    start = clock()
    function()
    return clock() - start


def opencv_engine(
    graph: Graph, text: Path, binary: Path, image: np.ndarray, scores: str
) -> Callable[[], np.ndarray]:
    """Return OpenCV's forward pass of the same files."""
    shapes = graph.sizes({"data": image.shape})
    rewrote, last = rewritten(select(prototxt.read(text)), shapes)
    engine = cv2.dnn.readNetFromCaffe(
        np.frombuffer(rewrote.encode(), np.uint8), np.fromfile(binary, np.uint8)
    )
    engine.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)

    def run() -> np.ndarray:
        engine.setInput(image, "data")
        return np.asarray(engine.forward(last[scores]))

    return run


def distance(found: torch.Tensor, reference: torch.Tensor) -> float:
    """Return the relative L2 distance."""
    wide = reference.double()
    return float((found.double() - wide).norm() / wide.norm())


@torch.inference_mode()
def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--size", type=int, default=321)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="cpu is the processor's time, of all threads together; for a busy machine, with "
        "--threads 1",
    )
    parser.add_argument("--multi-scale", action="store_true")
    parser.add_argument("--narrow", action="store_true", help="an eighth as wide")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    config = NARROW if options.narrow else DeepLabV2Config()
    if options.multi_scale:
        config = replace(config, scales=(1.0, 0.75, 0.5))
    scores = "fc_fusion" if options.multi_scale else "fc1_voc12"
    image = torch.randn(1, 3, options.size, options.size) * 60
    with tempfile.TemporaryDirectory() as name:
        text, binary = Path(name, "net.prototxt"), Path(name, "net.caffemodel")
        net = filled(deploy_net(config, options.size, options.size), random_blobs(config, 0))
        write_net(net, text, binary)
        start = time.perf_counter()
        graph = load_caffe(text, binary)
        built = time.perf_counter() - start
        convert_caffe(text, binary, Path(name, "native.safetensors"))
        model = load(Path(name, "native.safetensors"))
        engine = opencv_engine(graph, text, binary, image.numpy(), scores)
    folded = fold_batch_norm(graph)
    calls: dict[str, Callable[[], object]] = {
        "graph": lambda: graph({"data": image}, blobs=[scores]),
        "native": lambda: model(image),
        "folded": lambda: folded({"data": image}, blobs=[scores]),
        "OpenCV": engine,
        "every blob": lambda: graph({"data": image}, blobs="all"),
    }
    expected = graph({"data": image}, blobs=[scores])[scores]
    same = torch.equal(expected, model(image))
    apart = {
        "folded": distance(folded({"data": image}, blobs=[scores])[scores], expected),
        "OpenCV": distance(torch.from_numpy(engine()), expected),
    }
    rounds: dict[str, list[float]] = {kind: [] for kind in calls}
    order = list(calls)
    for index in range(options.rounds):
        for kind in order:
            rounds[kind].append(timed(calls[kind], CLOCKS[options.clock]))
        order.reverse()
        if index % 2:
            order.append(order.pop(0))
    print(
        f"{platform.platform()}, {options.threads} threads, Python {platform.python_version()}, "
        f"torch {torch.__version__}, OpenCV {cv2.__version__}"
    )
    print(
        f"{'narrow' if options.narrow else 'full size'}, scales {config.scales}, "
        f"{options.size}x{options.size}, {options.clock} time; "
        f"medians of {options.rounds} interleaved rounds; graph built in {built:.2f} s"
    )
    print(f"scores of graph and native model equal to the bit: {same}; relative L2 from the")
    print("graph's: " + ", ".join(f"{kind} {value:.1e}" for kind, value in apart.items()))
    for kind, times in rounds.items():
        spread = f"{min(times):.3f} to {max(times):.3f}"
        print(f"{kind:<12} {statistics.median(times):7.3f} s   ({spread})")
    for (one, other), bound in RATIOS.items():
        ratios = [a / b for a, b in zip(rounds[one], rounds[other], strict=True)]
        least = min(rounds[one]) / min(rounds[other])
        print(
            f"{one} / {other:<8} {statistics.median(ratios):.3f}   (bound {bound}; of the "
            f"fastest rounds {least:.3f})"
        )


if __name__ == "__main__":
    main()

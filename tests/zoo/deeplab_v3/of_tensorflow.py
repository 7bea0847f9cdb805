"""Nets of TensorFlow's own DeepLab, an eighth as wide, and random weights of them."""

import numpy as np

from deeplab_zoo.converters import weights
from deeplab_zoo.converters.archive import Origin
from deeplab_zoo.converters.deeplab_v3 import DeepLabV3Config, parameters
from deeplab_zoo.converters.numerics import TF_DEEPLAB, Numerics

GRAPH = "frozen_inference_graph.pb"
EIGHTH = 0.125  # The program's width.
XCEPTION = DeepLabV3Config(5, "tensorflow", "xception65", width=EIGHTH)
MOBILENET = DeepLabV3Config(5, "tensorflow", "mobilenet_v2", decoder=False, rates=(), width=EIGHTH)


def random_weights(config: DeepLabV3Config, numerics: Numerics = TF_DEEPLAB) -> weights.Weights:
    random = np.random.default_rng(3)
    state = {
        name: (random.uniform(0.5, 1.5, shape) / max(1, np.prod(shape[1:]))).astype("f4")
        for name, shape in parameters(config).items()
    }
    return weights.Weights(state, config, numerics, Origin("x", {}, "x"))

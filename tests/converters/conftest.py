"""Files for the tests of what reads them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import deeplab_zoo
from deeplab_zoo.converters.archive import Origin
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config, parameters
from deeplab_zoo.converters.export import TARGETS
from deeplab_zoo.converters.numerics import TF_SLIM, Numerics
from deeplab_zoo.converters.weights import Weights
from deeplab_zoo.converters.write_caffe import deploy_net, filled
from deeplab_zoo.zoo.demo import random_blobs, write_net


@pytest.fixture(scope="session")
def random_weights() -> Callable[..., Weights]:
    """Draw native weights of a config, as if they came from a file of Caffe's."""

    def draw(config: DeepLabV2Config, numerics: Numerics = TF_SLIM) -> Weights:
        random = np.random.default_rng(3)
        state = {
            name: random.uniform(0.5, 1.5, shape).astype("f4")
            for name, shape in parameters(config).items()
        }
        return Weights(state, config, numerics, Origin("caffe", {"a file": "0" * 64}, "x"))

    return draw


@pytest.fixture(scope="session")
def files(tiny_config: DeepLabV2Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same weights in every format that we write, to be read only."""
    folder = tmp_path_factory.mktemp("files")
    net = filled(deploy_net(tiny_config, 65, 97), random_blobs(tiny_config, 1))
    write_net(net, folder / "net.prototxt", folder / "net.caffemodel")
    deeplab_zoo.convert_caffe(None, folder / "net.caffemodel", folder / "x.h5")
    for to, target in TARGETS.items():
        if to not in ("h5", "caffe"):
            out = folder / (f"x{target.suffix}" if target.suffix else to)
            deeplab_zoo.export(folder / "x.h5", out, to=to, mixed_numerics=True)
    return folder

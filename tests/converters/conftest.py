"""Files for the tests of what reads them."""

from pathlib import Path

import pytest

import deeplab_zoo
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config
from deeplab_zoo.converters.export import TARGETS
from deeplab_zoo.converters.write_caffe import deploy_net, filled
from deeplab_zoo.zoo.demo import random_blobs, write_net


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

"""Where the tests find reference values.

Small files lie in ``tests/golden``. The large ones, whole networks run by the real Caffe and
TensorFlow, lie beside the checkout in ``../shared`` where they are available; tests that need
them are marked ``golden`` and skip elsewhere.
"""

import math
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from deeplab_zoo.converters import deeplab_v3
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config
from deeplab_zoo.converters.naming.deeplab_v3 import NAMING as V3_NAMING
from deeplab_zoo.converters.write_caffe import deploy_net, filled
from deeplab_zoo.proto.checkpoint_write import write_v2
from deeplab_zoo.zoo.demo import random_blobs, write_net

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

# Workers share the cores between them; each taking all would make every one wait.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # For processes that tests start.
    torch.set_num_threads(1)

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "golden"
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def golden() -> Path:
    """The small reference files of the project."""
    return GOLDEN


@pytest.fixture(scope="session")
def shared() -> Path:
    """The large reference files, beside the checkout."""
    if not (SHARED / "golden").is_dir():
        pytest.skip(f"the reference data are not at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def small(shared: Path) -> Path:
    """A DeepLab-ResNet-101 an eighth as wide, written and run by the real Caffe."""
    return shared / "golden" / "caffe" / "small"


@pytest.fixture(scope="session")
def tiny_config() -> DeepLabV2Config:
    """Every kind of block, unequal sizes, a stage longer than three for Caffe's b1, b2 names."""
    return DeepLabV2Config(classes=5, blocks=(1, 2, 4, 3), stem=4, widths=(2, 3, 4, 5))


@pytest.fixture(scope="session")
def tiny_multi(tiny_config: DeepLabV2Config) -> DeepLabV2Config:
    """The same at three scales."""
    return replace(tiny_config, scales=(1.0, 0.75, 0.5))


@pytest.fixture
def make_net(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Write a net with seeded weights; return its prototxt and caffemodel."""

    def make(config: DeepLabV2Config, height: int = 65, width: int = 97) -> tuple[Path, Path]:
        net = filled(deploy_net(config, height, width), random_blobs(config, 1))
        text, binary = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
        write_net(net, text, binary)
        return text, binary

    return make


@pytest.fixture
def save_checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """Write variables as a V2 checkpoint; return its prefix."""

    def write(variables: dict[str, np.ndarray[Any, Any]], name: str = "model.ckpt") -> Path:
        prefix = tmp_path / name
        with (
            Path(f"{prefix}.index").open("wb") as index,
            Path(f"{prefix}.data-00000-of-00001").open("wb") as data,
        ):
            write_v2(variables, index, data)
        return prefix

    return write


@pytest.fixture(scope="session")
def program_state() -> Callable[..., dict[str, torch.Tensor]]:
    """Return a maker of random state dicts of DeepLab v3 and v3+, under their program's names.

    Their statistics are not 0 and 1, and keep the values of deep layers near 1. A program that
    had more names than one has more layouts; with ``counters`` batch norms keep theirs too.
    What a test draws afterwards from PyTorch is seeded as well.
    """

    def make(
        config: deeplab_v3.DeepLabV3Config,
        layout: str | None = None,
        *,
        seed: int = 0,
        counters: bool = False,
    ) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        layout = layout or config.style
        state = {}
        for name, shape in deeplab_v3.parameters(config).items():
            module, _, parameter = name.rpartition(".")
            their_module = V3_NAMING.from_canonical(layout, module, {})
            theirs = f"{their_module}.{parameter}"
            if len(shape) == 4:
                data = torch.randn(shape) * (1.5 / math.prod(shape[1:])) ** 0.5
            elif parameter in ("weight", "running_var"):
                data = torch.rand(shape) + 0.5
            else:
                data = torch.randn(shape) * 0.3
            state[theirs] = data
            if alias := V3_NAMING.alias_of(layout, theirs):
                state[alias] = data
            if counters and parameter == "running_var":
                state[f"{their_module}.num_batches_tracked"] = torch.tensor(7)
        return state

    return make


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Chrome]":
    """A headless Chromium without network, to open written pages in as ``file://``.

    Its console is read with ``browser.get_log("browser")``.
    """
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("chromium and chromedriver (Debian: chromium-driver) are not installed")
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--no-first-run", "--disable-background-networking", "--disable-component-update",
        "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = Chrome(options=options, service=ChromeService(driver))
    yield chrome
    chrome.quit()

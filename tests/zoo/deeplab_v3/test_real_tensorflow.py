"""What real TensorFlow computed, wrote and froze."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock

import deeplab_zoo
from deeplab_zoo.converters.deeplab_v3 import DeepLabV3Config
from deeplab_zoo.converters.describe import describe
from deeplab_zoo.converters.native import Native
from deeplab_zoo.converters.numerics import TF_DEEPLAB
from deeplab_zoo.proto.checkpoint import open_checkpoint
from deeplab_zoo.proto.errors import FormatError, MismatchError
from deeplab_zoo.zoo.models.deeplab_v3 import DeepLabV3
from deeplab_zoo.zoo.models.inference import prepare
from deeplab_zoo.zoo.models.load import build
from deeplab_zoo.zoo.models.resampling import resize

from .of_tensorflow import GRAPH, MOBILENET, XCEPTION

Convert = Callable[[Path], Native]
PROGRAM = Path(__file__).parent / "run_tf_deeplab.py"
QUIET = {"TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
SIZES = ("33x321", "34x50")
CHECKPOINT = "model.ckpt-3"


def run_tensorflow(root: Path, *nets: str) -> Path:
    command = [sys.executable, str(PROGRAM), str(root), *nets]
    done = subprocess.run(
        command, env=os.environ | QUIET, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return root


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What real TensorFlow left, a folder for each net; run once, whoever asks for it."""
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("needs tensorflow")
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tf_deeplab"
    with FileLock(f"{root}.lock"):
        if not root.is_dir():
            root.mkdir()
            run_tensorflow(root, "xception", "mobilenet", "mobilenet_8")
    return root


def relative(found: torch.Tensor, expected: np.ndarray[Any, Any]) -> float:
    """``expected`` has TensorFlow's axes."""
    wanted = torch.from_numpy(expected).permute(0, 3, 1, 2)
    assert found.shape == wanted.shape
    return float((found - wanted).norm() / wanted.norm())


def scored(model: DeepLabV3, photos: np.ndarray[Any, Any]) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.cat([prepare(one, model.numerics) for one in photos]))


def check_scores(folder: Path, model: DeepLabV3) -> None:
    with np.load(folder / "scores.npz") as found:
        for size in SIZES:
            photos = found[f"image_{size}"]
            scores = scored(model, photos)
            assert relative(scores, found[f"scores_{size}"]) < 1e-5
            full = resize(scores, photos.shape[1:3], model.numerics)
            assert relative(full, found[f"full_{size}"]) < 1e-5


@pytest.mark.parametrize(
    ("net", "file", "config"),
    [
        ("xception", GRAPH, XCEPTION),
        ("mobilenet", CHECKPOINT, MOBILENET),
        ("mobilenet_8", GRAPH, replace(MOBILENET, output_stride=8)),
    ],
)
def test_scores_are_those_of_real_tensorflow(
    original: Path, convert: Convert, net: str, file: str, config: DeepLabV3Config
) -> None:
    native = convert(original / net / file)
    assert native.weights.config == config
    assert native.weights.numerics == TF_DEEPLAB
    check_scores(original / net, build(native.weights))


@pytest.mark.slow
def test_xception_at_output_stride_8_is_that_of_real_tensorflow(
    tmp_path: Path, convert: Convert
) -> None:
    run_tensorflow(tmp_path, "xception_8")
    native = convert(tmp_path / "xception_8" / GRAPH)
    assert native.weights.config == replace(XCEPTION, output_stride=8, rates=(12, 24, 36))
    check_scores(tmp_path / "xception_8", build(native.weights))


@pytest.mark.parametrize("net", ["xception", "mobilenet"])
def test_other_conventions_are_other_functions(original: Path, convert: Convert, net: str) -> None:
    """Each is well above the tolerance, so that agreement shows that none was mistaken."""
    native = convert(original / net / CHECKPOINT)
    with np.load(original / net / "scores.npz") as found:
        photos, expected = found["image_34x50"], found["scores_34x50"]
    for change in ({"bn_eps": 1e-5}, {"padding": "explicit"}, {"resize": "half_pixel"}):
        model = build(replace(native.weights, numerics=replace(TF_DEEPLAB, **change)))
        scores = scored(model, photos)
        # Xception pads explicitly itself; only a decoder resizes before the scores.
        same = {"xception": ["padding"], "mobilenet": ["resize"]}[net]
        assert (relative(scores, expected) < 1e-5) == (list(change) == same), change


def test_other_rates_are_another_function(original: Path, convert: Convert) -> None:
    native = convert(original / "xception" / CHECKPOINT)
    with np.load(original / "xception" / "scores.npz") as found:
        photos, expected = found["image_33x321"], found["scores_33x321"]
    for rates in ((6, 12, 19), (6, 11, 18), (7, 12, 18)):
        config = replace(native.weights.config, rates=rates)
        scores = scored(build(replace(native.weights, config=config)), photos)
        assert relative(scores, expected) > 1e-4, rates


@pytest.mark.parametrize("net", ["xception", "mobilenet"])
def test_a_graph_a_checkpoint_and_the_way_back_hold_the_same_bits(
    original: Path, convert: Convert, tmp_path: Path, net: str
) -> None:
    native = convert(original / net / CHECKPOINT)
    assert deeplab_zoo.compare(original / net / GRAPH, tmp_path / "x.safetensors").equal
    stored = open_checkpoint(original / net / CHECKPOINT)
    left = {name for name, _ in native.conversion.dropped}
    assert {name.rpartition("/")[2] for name in left} == {
        "global_step", "RMSProp", "RMSProp_1", "ExponentialMovingAverage",
    }  # fmt: skip
    deeplab_zoo.export(tmp_path / "x.safetensors", tmp_path / "y", to="tf")
    written = open_checkpoint(tmp_path / "y")
    assert set(written) == set(stored) - left
    for name, one in written.items():
        expected = stored[name].read()
        assert one.shape == expected.shape
        assert one.read().tobytes() == expected.tobytes()


def test_a_folder_of_the_zoo_is_told_and_read(original: Path, convert: Convert) -> None:
    assert describe(original / "mobilenet").content == "DeepLab v3 or v3+"
    found = describe(original / "mobilenet" / GRAPH)
    assert (found.kind, found.content) == ("TensorFlow frozen graph", "DeepLab v3 or v3+")
    assert "SpaceToBatchND" in found.facts["operations"]
    assert convert(original / "mobilenet").weights.config == MOBILENET


def test_a_graph_that_is_cut_short_is_refused(
    original: Path, convert: Convert, tmp_path: Path
) -> None:
    whole = (original / "mobilenet" / GRAPH).read_bytes()
    for size in np.linspace(100, len(whole) - 1, 23).astype(int):
        (tmp_path / "cut.pb").write_bytes(whole[:size])
        with pytest.raises((FormatError, MismatchError), match=r"cut.pb|names of parameters"):
            convert(tmp_path / "cut.pb")

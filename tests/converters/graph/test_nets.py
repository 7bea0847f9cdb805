"""Whole nets: the graph against the real Caffe, the native model, and its own export."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from deeplab_zoo import load_caffe
from deeplab_zoo.converters import convert
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config
from deeplab_zoo.zoo.models.load import load
from deeplab_zoo.zoo.parity.blobs import activations

Make = Callable[..., tuple[Path, Path]]
Arrays = Mapping[str, np.ndarray]

TO_CAFFE = 1e-5  # Relative L2 of a blob of a hundred layers.
TO_NATIVE = 1e-6


def check_blobs(ours: Mapping[str, torch.Tensor], reference: Arrays, tolerance: float) -> None:
    for blob, value in reference.items():
        wide = value.astype(np.float64)
        found = ours[blob].numpy()
        assert found.shape == value.shape
        assert np.linalg.norm(found - wide) <= tolerance * np.linalg.norm(wide), blob


def run(text: Path, weights: Path, image: np.ndarray) -> dict[str, torch.Tensor]:
    with torch.inference_mode():
        return load_caffe(text, weights)({"data": torch.from_numpy(image)}, blobs="all")


def native(text: Path, weights: Path, image: np.ndarray, folder: Path) -> Arrays:
    convert.convert_caffe(text, weights, folder / "native.safetensors")
    return activations(load(folder / "native.safetensors"), image)


@pytest.mark.golden
@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("single.prototxt", "single.caffemodel"),
        ("single.prototxt", "single.caffemodel.h5"),
        ("single.prototxt", "msc.caffemodel"),
        ("single_drsleep.prototxt", "single.caffemodel"),
    ],
)
def test_every_blob_of_the_narrow_net_is_caffes(small: Path, text: str, weights: str) -> None:
    with np.load(small / "single_blobs.npz") as golden:
        expected = {blob: golden[blob] for blob in golden.files}
    ours = run(small / text, small / weights, expected["data"])
    if "drsleep" in text:
        del expected["fc1_interp"]
    check_blobs(ours, expected, TO_CAFFE)


@pytest.mark.golden
@pytest.mark.parametrize("weights", ["msc.caffemodel", "single.caffemodel"])
def test_every_blob_of_the_multi_scale_net_is_caffes(small: Path, weights: str) -> None:
    with np.load(small / "single_blobs.npz") as single, np.load(small / "msc_blobs.npz") as msc:
        expected = {blob: single[blob] for blob in single.files if blob != "fc1_interp"}
        expected |= {blob: msc[blob] for blob in msc.files}
    ours = run(small / "msc.prototxt", small / weights, expected["data"])
    check_blobs(ours, expected, TO_CAFFE)


@pytest.mark.golden
@pytest.mark.parametrize("net", ["single", "msc"])
def test_the_graph_and_the_native_model_agree_on_caffes_nets(
    small: Path, tmp_path: Path, net: str
) -> None:
    text, weights = small / f"{net}.prototxt", small / f"{net}.caffemodel"
    image = np.random.default_rng(0).normal(0, 60, (2, 3, 97, 65)).astype(np.float32)
    reference = native(text, weights, image, tmp_path)
    assert len(reference) > 140
    check_blobs(run(text, weights, image), reference, TO_NATIVE)


@pytest.mark.parametrize("size", [(65, 97), (33, 129)])
def test_the_graph_and_the_native_model_agree(
    make_net: Make, tiny_multi: DeepLabV2Config, tmp_path: Path, size: tuple[int, int]
) -> None:
    text, weights = make_net(tiny_multi, *size)
    image = np.random.default_rng(1).normal(0, 60, (1, 3, *size)).astype(np.float32)
    check_blobs(run(text, weights, image), native(text, weights, image, tmp_path), TO_NATIVE)


def test_blobs_that_are_asked_for_do_not_change_the_others(
    make_net: Make, tiny_config: DeepLabV2Config
) -> None:
    net = load_caffe(*make_net(tiny_config))
    image = {"data": torch.randn(1, 3, 65, 97)}
    with torch.no_grad():
        everything = net(image, blobs="all")
        assert set(everything) == set(net.blobs)
        for blob in net.blobs[::6]:
            assert torch.equal(net(image, blobs=[blob])[blob], everything[blob])


def test_a_deeplab_can_be_exported(make_net: Make, tiny_config: DeepLabV2Config) -> None:
    net = load_caffe(*make_net(tiny_config))
    image = {"data": torch.randn(1, 3, 65, 97)}
    blobs = ["fc1_interp", "res2a"]
    program = torch.export.export(net, (image,), {"blobs": blobs})
    other = {"data": torch.randn(1, 3, 65, 97)}
    with torch.no_grad():
        found, expected = program.module()(other, blobs=blobs), net(other, blobs=blobs)
    assert list(found) == blobs
    assert all(torch.equal(found[blob], expected[blob]) for blob in blobs)


@pytest.mark.skipif(
    torch.__version__ < "2.13", reason="torch 2.11 binds the rounding of a pooling to its input"
)
def test_a_deeplab_can_be_exported_for_any_size(
    make_net: Make, tiny_config: DeepLabV2Config
) -> None:
    net = load_caffe(*make_net(tiny_config))
    sizes = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    program = torch.export.export(
        net, ({"data": torch.randn(2, 3, 65, 97)},), dynamic_shapes=({"data": sizes},)
    )
    for shape in ((3, 3, 72, 81), (2, 3, 129, 50)):
        image = {"data": torch.randn(shape)}
        with torch.no_grad():
            found, expected = program.module()(image), net(image)
        assert all(torch.allclose(found[blob], expected[blob], atol=1e-5) for blob in expected)


@pytest.mark.golden
@pytest.mark.slow
def test_the_narrow_multi_scale_deeplab_can_be_exported(small: Path) -> None:
    net = load_caffe(small / "msc.prototxt", small / "msc.caffemodel")
    image = {"data": torch.randn(1, 3, 65, 97)}
    program = torch.export.export(net, (image,))
    with torch.no_grad():
        found, expected = program.module()(image), net(image)
    assert all(torch.equal(found[blob], expected[blob]) for blob in expected)

"""The fork's CRF layer, against what the layer itself computed."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deeplab_zoo.proto.errors import UsageError
from deeplab_zoo.zoo.crf.caffe import caffe_dense_crf, fast_exp

CASES = ("log_output", "one_iter", "padded", "paper", "prototxt")


def case(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    text = (folder / f"{name}.prototxt").read_text()
    layer = text[text.index("dense_crf_param") :]
    given = dict(re.findall(r"(\w+): ([\w.]+)", layer))
    options: dict[str, Any] = {
        key: [float(given[key])]
        for key in ("pos_w", "pos_xy_std", "bi_w", "bi_xy_std", "bi_rgb_std")
    }
    options["max_iter"] = int(given["max_iter"])
    options["output_probability"] = given.get("output_probability") != "false"
    with np.load(folder / f"{name}.npz") as arrays:
        return options, dict(arrays)


def run(options: dict[str, Any], blobs: dict[str, np.ndarray], exact: bool) -> np.ndarray:
    score, data, sizes = (torch.from_numpy(blobs[f"in/{n}"]) for n in ("score", "data", "data_dim"))
    found: np.ndarray = caffe_dense_crf(score, data, sizes, exact_exp=exact, **options).numpy()
    return found


@pytest.mark.golden
@pytest.mark.parametrize("exact", [False, True], ids=["fast_exp", "exact_exp"])
@pytest.mark.parametrize("name", CASES)
def test_the_layer_is_reproduced(
    shared: Path, name: str, exact: bool, record_property: Callable[[str, object], None]
) -> None:
    options, blobs = case(shared / "golden" / "caffe" / "densecrf", name)
    found, expected = run(options, blobs, exact), blobs["out/crf_inf"]
    relative = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    agreement = (found.argmax(1) == expected.argmax(1)).mean()
    record_property(
        "measured", f"{name}, exact exp {exact}: relative L2 {relative:.1e}, argmax {agreement:.2%}"
    )
    assert agreement >= 0.999
    assert relative < 1e-5


@pytest.mark.golden
def test_outside_of_the_image_the_result_is_zero(shared: Path) -> None:
    options, blobs = case(shared / "golden" / "caffe" / "densecrf", "padded")
    height, width = blobs["in/data_dim"].astype(int).ravel()
    found = run(options, blobs, exact=False)
    assert found.shape[2] > height
    assert found.shape[3] > width
    assert not found[:, :, height:].any()
    assert not found[:, :, :, width:].any()
    np.testing.assert_allclose(found[:, :, :height, :width].sum(1), 1, rtol=1e-5)


def written_out_fast_exp(x: float) -> float:
    """The layer's loops, scalar by scalar."""
    x, doublings = -x, 0
    if x > 20:
        return 0.0
    for limit, halvings in ((0.69 * 8, 3), (0.69 * 4, 2), (0.69, 1)):
        while x > limit:
            doublings += halvings
            x /= 2**halvings
    series = (0.0001413161, 0.0013298820, 0.0083013598, 0.0416573475, 0.1666653019, 0.4999999206)
    value = 0.0
    for factor in series:
        value = x * (factor - value)
    value = 1 - x * (0.9999999995 - value)
    return float(value ** (2**doublings))


def test_fast_exp_is_the_layers() -> None:
    x = torch.linspace(-21, 0, 2113, dtype=torch.float64)
    expected = torch.tensor([written_out_fast_exp(float(value)) for value in x], dtype=x.dtype)
    torch.testing.assert_close(fast_exp(x), expected, rtol=1e-9, atol=0)
    assert not torch.equal(fast_exp(x), x.exp())


def test_a_batch_is_its_images_one_by_one() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 4, 9, 11, generator=generator)
    images = 50 * torch.randn(2, 3, 9, 11, generator=generator)
    sizes = torch.tensor([[7, 11], [9, 8]])
    options: dict[str, Any] = {
        "pos_w": [3], "pos_xy_std": [2], "bi_w": [4, 2], "bi_xy_std": [9, 5], "bi_rgb_std": [30, 60],
    }  # fmt: skip
    both = caffe_dense_crf(scores, images, sizes, max_iter=3, **options)
    for i, (height, width) in enumerate(sizes.tolist()):
        part = (slice(i, i + 1), slice(None), slice(height), slice(width))
        alone = caffe_dense_crf(scores[part], images[part], max_iter=3, **options)
        torch.testing.assert_close(both[part], alone)
    half = caffe_dense_crf(scores.half(), images, sizes, max_iter=3, **options)
    assert half.dtype == torch.float16
    wide = caffe_dense_crf(scores.half().float(), images, sizes, max_iter=3, **options)
    assert torch.equal(half, wide.half())


def test_bad_input_is_named() -> None:
    scores, images = torch.zeros(1, 2, 4, 5), torch.zeros(1, 3, 4, 5)
    with pytest.raises(UsageError, match=r"scores: .*\(2, 4, 5\), expected floating"):
        caffe_dense_crf(scores[0], images)
    with pytest.raises(UsageError, match=r"images: shape .* expected \(1, 3, 4, 5\)"):
        caffe_dense_crf(scores, images[:, :2])
    with pytest.raises(UsageError, match=r"pos_w, pos_xy_std: .*lists of one length"):
        caffe_dense_crf(scores, images, pos_w=[1.0])
    with pytest.raises(UsageError, match=r"max_iter: -1, expected 0 or more"):
        caffe_dense_crf(scores, images, max_iter=-1)
    with pytest.raises(UsageError, match=r"sizes: shape \(3,\), expected \(1, 2\)"):
        caffe_dense_crf(scores, images, torch.ones(3))
    for wrong in (0, torch.nan):
        with pytest.raises(UsageError, match=r"sizes: .*positive heights"):
            caffe_dense_crf(scores, images, torch.full((1, 2), wrong))
    with pytest.raises(UsageError, match=r"scores: -inf at .* = \(0, 0, 0, 0\)"):
        caffe_dense_crf(scores - torch.inf, images)

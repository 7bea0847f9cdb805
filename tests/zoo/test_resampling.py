"""Padding and resizing against TensorFlow's formulas, TensorFlow itself, and PyTorch."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from deeplab_zoo.converters.numerics import (
    CAFFE_V2,
    JACCARD_SEGMENT,
    TF_SLIM,
    TORCH_HALFPIXEL,
    Numerics,
)
from deeplab_zoo.proto.errors import MismatchError
from deeplab_zoo.zoo.models.resampling import pad_same, resize, scaled

Array = np.ndarray[Any, Any]

SIZES = range(1, 21)


def picture(height: int, width: int, channels: int = 2) -> torch.Tensor:
    """Values that differ everywhere, reproducible from the sizes."""
    random = np.random.default_rng([height, width])
    return torch.from_numpy(random.normal(0, 50, (2, channels, height, width)).astype("f4"))


# SAME


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (7, 2), (1, 2), (3, 1), (2, 3), (5, 4)])
def test_padding_is_what_the_output_size_needs_the_larger_half_at_the_end(
    kernel: int, stride: int
) -> None:
    for size in SIZES:
        x = picture(size, 21 - size)
        padded = pad_same(x, kernel, stride, value=7.0)
        for axis, length in ((2, size), (3, 21 - size)):
            out = -(-length // stride)
            total = max((out - 1) * stride + kernel - length, 0)
            before = total // 2
            assert padded.shape[axis] == length + total
            inner = padded.movedim(axis, 0)
            assert (inner[:before] == 7).all()
            assert (inner[before + length :] == 7).all()
            assert (padded.shape[axis] - kernel) // stride + 1 == out
        assert torch.equal(padded[padded != 7].reshape(x.shape), x)


@pytest.mark.parametrize(
    ("size", "kernel", "expected"),
    [(321, 7, (3, 3)), (320, 7, (2, 3)), (161, 3, (1, 1)), (160, 3, (0, 1))],
)
def test_odd_and_even_sizes_are_padded_as_recorded(
    size: int, kernel: int, expected: tuple[int, int]
) -> None:
    row = pad_same(torch.ones(1, 1, 1, size), kernel, 2)[0, 0].amax(0)
    assert len(row) == size + sum(expected)
    assert (int(row.argmax()), int(row.flip(0).argmax())) == expected


# The legacy grid: source = target * in / out


def top_left(x: Array, height: int, width: int) -> Array:
    """TensorFlow 1's resize_bilinear, as its kernel states it, one pixel at a time."""
    rows, columns = x.shape[-2:]
    down = np.float32(rows / height)
    across = np.float32(columns / width)
    out = np.empty((*x.shape[:2], height, width), np.float32)
    for i in range(height):
        y = np.float32(i) * down
        top = int(np.floor(y))
        bottom = min(top + 1, rows - 1)
        for j in range(width):
            z = np.float32(j) * across
            left = int(np.floor(z))
            right = min(left + 1, columns - 1)
            upper = x[..., top, left] + (x[..., top, right] - x[..., top, left]) * (z - left)
            lower = x[..., bottom, left]
            lower = lower + (x[..., bottom, right] - lower) * (z - left)
            out[..., i, j] = upper + (lower - upper) * (y - top)
    return out


@pytest.mark.parametrize("size", SIZES)
def test_the_legacy_grid_is_tensorflows_formula(size: int) -> None:
    other = 21 - size
    for height, width in ((size, other), (other, size), (2 * size + 1, 3), (1, 5 * other)):
        x = picture(size, other)
        found = resize(x, (height, width), TF_SLIM).numpy()
        # One rounding of a value of 200 is 1.5e-5.
        np.testing.assert_allclose(found, top_left(x.numpy(), height, width), rtol=0, atol=5e-5)


def test_a_size_already_right_is_left_alone() -> None:
    x = picture(5, 7)
    for numerics in (TF_SLIM, CAFFE_V2, TORCH_HALFPIXEL, JACCARD_SEGMENT):
        assert resize(x, (5, 7), numerics) is x
        assert scaled(x, 1.0, numerics) is x


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_legacy_grid_keeps_the_type(dtype: torch.dtype) -> None:
    x = picture(5, 7).to(dtype)
    found = resize(x, (9, 3), TF_SLIM)
    assert found.dtype == dtype
    expected = top_left(x.float().numpy(), 9, 3)
    np.testing.assert_allclose(found.float().numpy(), expected, rtol=2e-2, atol=2)


def test_the_legacy_grid_has_gradients() -> None:
    x = picture(3, 4, 1).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda one: resize(one, (5, 6), TF_SLIM), x)


# The other grids are PyTorch's


@pytest.mark.parametrize(
    ("numerics", "corners"),
    [(TORCH_HALFPIXEL, False), (CAFFE_V2, True), (JACCARD_SEGMENT, True)],
)
def test_the_other_grids_are_pytorchs(numerics: Numerics, corners: bool) -> None:
    x = picture(6, 11)
    for size in ((11, 6), (3, 40), (1, 1)):
        expected = functional.interpolate(x, size, mode="bilinear", align_corners=corners)
        assert torch.equal(resize(x, size, numerics), expected)


@pytest.mark.parametrize(
    ("numerics", "scale", "expected"),
    [
        (TF_SLIM, 0.75, (72, 96)),  # int(97 * 0.75), int(129 * 0.75)
        (TF_SLIM, 0.5, (48, 64)),
        (JACCARD_SEGMENT, 0.75, (72, 96)),
        (TORCH_HALFPIXEL, 0.75, (72, 96)),
        (TORCH_HALFPIXEL, 0.5, (48, 64)),
        (CAFFE_V2, 0.75, (73, 97)),
        (CAFFE_V2, 0.5, (49, 65)),
    ],
)
def test_scaled_images_have_their_programs_size(
    numerics: Numerics, scale: float, expected: tuple[int, int]
) -> None:
    x = picture(97, 129, 3)
    found = scaled(x, scale, numerics)
    assert found.shape == (2, 3, *expected)
    if numerics is not TORCH_HALFPIXEL:
        assert torch.equal(found, resize(x, expected, numerics))


@pytest.mark.parametrize("numerics", [TF_SLIM, JACCARD_SEGMENT, TORCH_HALFPIXEL])
def test_an_image_of_which_nothing_is_left_is_refused(numerics: Numerics) -> None:
    words = f"image: 1 x 9 pixels, too small for the scale 0.5 of {numerics.name}"
    with pytest.raises(MismatchError, match=words):
        scaled(picture(1, 9, 3), 0.5, numerics)
    assert scaled(picture(1, 9, 3), 0.5, CAFFE_V2).shape == (2, 3, 1, 5)


def test_a_factor_counts_and_not_the_sizes_where_pytorch_scales() -> None:
    x = picture(97, 129, 3)
    found = scaled(x, 0.75, TORCH_HALFPIXEL)
    expected = functional.interpolate(x, scale_factor=0.75, mode="bilinear", align_corners=False)
    assert torch.equal(found, expected)
    assert not torch.allclose(found, resize(x, (72, 96), TORCH_HALFPIXEL))


# Real TensorFlow

RUN_BY_TENSORFLOW = """
import sys
import numpy as np
import tensorflow as tf

made = dict(np.load(sys.argv[1]))
out = {}
for name, value in made.items():
    if name == "kernel":
        continue
    image = value.transpose(0, 2, 3, 1)
    kind, *numbers = name.split("_")
    if kind == "resize":
        found = tf.compat.v1.image.resize_bilinear(image, [int(n) for n in numbers[2:]])
    elif kind == "pool":
        found = tf.nn.max_pool2d(image, 3, 2, "SAME")
    else:
        found = tf.nn.conv2d(image, made["kernel"], 2, "SAME")
    out[name] = found.numpy().transpose(0, 3, 1, 2)
np.savez(sys.argv[2], **out)
"""


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="needs tensorflow")
def test_tensorflow_pads_and_resizes_alike(tmp_path: Path) -> None:
    made: dict[str, Array] = {}
    for size in SIZES:
        other = 21 - size
        x = picture(size, other).numpy()
        made[f"resize_{size}_{other}_{3 * other}_{2 * size + 1}"] = x
        made[f"resize_{size}_{other}_{other}_{size}"] = x
        made[f"pool_{size}_{other}"] = x
        made[f"conv_{size}_{other}"] = x
    kernel = np.random.default_rng(0).normal(size=(7, 7, 2, 3)).astype("f4")
    arrays: dict[str, Any] = {"kernel": kernel, **made}
    np.savez(tmp_path / "made.npz", **arrays)
    quiet = {"TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", RUN_BY_TENSORFLOW, "made.npz", "found.npz"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | quiet, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    weight = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
    with np.load(tmp_path / "found.npz") as found:
        assert len(found.files) == 80
        for name in found.files:
            kind, *numbers = name.split("_")
            image = torch.from_numpy(made[name])
            if kind == "resize":
                ours = resize(image, (int(numbers[2]), int(numbers[3])), TF_SLIM)
            elif kind == "pool":
                ours = functional.max_pool2d(pad_same(image, 3, 2, -torch.inf), 3, 2)
            else:
                ours = functional.conv2d(pad_same(image, 7, 2), weight, stride=2)
            # Sums of 98 products of up to 200 in another order.
            atol = {"pool": 0.0, "resize": 5e-5, "conv": 2e-3}[kind]
            np.testing.assert_allclose(ours.numpy(), found[name], rtol=0, atol=atol, err_msg=name)

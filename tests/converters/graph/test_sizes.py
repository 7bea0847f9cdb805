"""Sizes 1 to 40 of the layers that change them, against plain statements of Caffe's formulas."""

import math
from random import Random

import numpy as np
import pytest
import torch

from deeplab_zoo.converters.graph.build import build
from deeplab_zoo.converters.graph.engine import Graph
from deeplab_zoo.proto import prototxt
from deeplab_zoo.proto.errors import MismatchError

TOLERANCE = 2e-6  # Relative L2, as of the golden cases.
SIZES = range(1, 41)

Case = tuple[int, ...]


def net_of(kind: str, settings: str, height: int, width: int, channels: int = 2) -> Graph:
    name = {"Deconvolution": "convolution"}.get(kind, kind.lower())
    text = (
        f"input: 'data' input_shape {{ dim: 2 dim: {channels} dim: {height} dim: {width} }} "
        f"layer {{ name: 'l' type: '{kind}' bottom: 'data' top: 'l' {name}_param {{ {settings} }} }}"
    )
    return build(prototxt.parse_net(text, "net"))


def values(height: int, width: int, seed: int, channels: int = 2) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.normal(0, 1, (2, channels, height, width)).astype(np.float32)


def check(net: Graph, x: np.ndarray, expected: np.ndarray, *, exact: bool = False) -> None:
    with torch.no_grad():
        found = net({"data": torch.from_numpy(x)})["l"].numpy()
    assert found.shape == expected.shape
    if exact:
        np.testing.assert_array_equal(found, expected.astype(np.float32))
        return
    numbers = np.isfinite(expected)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    norm = np.linalg.norm(expected[numbers]) or 1.0
    assert np.linalg.norm((found - expected)[numbers]) / norm <= TOLERANCE


def sampled(cases: list[Case], count: int, seed: int) -> list[Case]:
    """Some of the cases, every size among them."""
    chosen = Random(seed).sample(cases, min(count, len(cases)))
    by_size = {case[0]: case for case in Random(seed + 1).sample(cases, len(cases))}
    return sorted({*chosen, *by_size.values()})


# Pooling: size, kernel, stride, pad.
POOLINGS = [
    (n, k, s, p) for n in SIZES for k in (1, 2, 3, 4, 5, 7) for s in range(1, 6) for p in range(k)
]


def pooled_size(n: int, k: int, s: int, p: int, other_pad: int) -> int:
    out = math.ceil((n + 2 * p - k) / s) + 1
    if p or other_pad:
        out -= (out - 1) * s >= n + p
    return out


def pooled(x: np.ndarray, one: Case, other: Case, method: str) -> np.ndarray:
    (h, kh, sh, ph), (w, kw, sw, pw) = one, other
    out = np.zeros(
        (*x.shape[:2], pooled_size(*one, other_pad=pw), pooled_size(*other, other_pad=ph)),
    )
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            top, left = i * sh - ph, j * sw - pw
            window = x[:, :, max(top, 0) : max(top + kh, 0), max(left, 0) : max(left + kw, 0)]
            if method == "AVE":
                area = (min(top + kh, h + ph) - top) * (min(left + kw, w + pw) - left)
                with np.errstate(all="ignore"):
                    out[:, :, i, j] = window.sum((2, 3), dtype=np.float64) / np.float64(area)
            elif window.size:
                out[:, :, i, j] = window.max((2, 3))
            else:
                out[:, :, i, j] = np.finfo(np.float32).min
    return out


def check_pooling(one: Case, seed: int) -> None:
    # The width has a geometry of its own, so that no axis stands for the other.
    other = Random(seed).choice(POOLINGS)
    (h, kh, sh, ph), (w, kw, sw, pw) = one, other
    for method in ("MAX", "AVE"):
        settings = (
            f"pool: {method} kernel_h: {kh} kernel_w: {kw} stride_h: {sh} stride_w: {sw} "
            f"pad_h: {ph} pad_w: {pw}"
        )
        sizes = pooled_size(*one, other_pad=pw), pooled_size(*other, other_pad=ph)
        if min(sizes) < 1:
            with pytest.raises(MismatchError, match="'l' .line 1.: .*empty"):
                net_of("Pooling", settings, h, w)
            continue
        x = values(h, w, seed)
        net = net_of("Pooling", settings, h, w)
        check(net, x, pooled(x, one, other, method), exact=method == "MAX")


def test_pooling_follows_caffes_formulas_on_a_sample() -> None:
    for seed, case in enumerate(sampled(POOLINGS, 150, 0)):
        check_pooling(case, seed)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_pooling_follows_caffes_formulas() -> None:
    for seed, case in enumerate(POOLINGS):
        check_pooling(case, seed)


def test_pooling_that_rounds_down_leaves_an_incomplete_window_out() -> None:
    for seed, (n, k, s, p) in enumerate(sampled(POOLINGS, 25, 2)):
        count = (n + 2 * p - k) // s + 1
        settings = f"kernel_size: {k} stride: {s} pad: {p} round_mode: FLOOR"
        if count < 1:
            with pytest.raises(MismatchError, match="empty"):
                net_of("Pooling", settings, n, n)
            continue
        x = values(n, n, seed)
        whole = pooled(x, (n, k, s, p), (n, k, s, p), "MAX")[:, :, :count, :count]
        check(net_of("Pooling", settings, n, n), x, whole, exact=True)


def test_an_empty_window_of_half_precision_has_its_lowest_number() -> None:
    net = net_of("Pooling", "kernel_size: 1 stride: 2", 4, 4).half()
    found = net({"data": torch.ones(1, 2, 4, 4).half()})["l"]
    assert found[0, 0, 2, 2] == torch.finfo(torch.float16).min


def test_a_mask_has_the_first_maximum_of_each_window() -> None:
    for seed, (n, k, s, p) in enumerate(sampled(POOLINGS, 60, 1)):
        if pooled_size(n, k, s, p, p) < 1:
            continue
        x = np.round(values(n, n, seed))  # Many ties.
        settings = f"kernel_size: {k} stride: {s} pad: {p}"
        text = f"layer {{ name: 'l' type: 'Pooling' bottom: 'data' top: 'l' top: 'm' pooling_param {{ {settings} }} }}"
        net = build(prototxt.parse_net("input: 'data' " + text, "net"))
        found = net({"data": torch.from_numpy(x)})
        out = found["l"].shape[2]
        expected = np.full((2, 2, out, out), -1)
        for i in range(out):
            for j in range(out):
                rows = range(max(i * s - p, 0), min(i * s - p + k, n))
                columns = range(max(j * s - p, 0), min(j * s - p + k, n))
                places = [row * n + column for row in rows for column in columns]
                if places:
                    window = x.reshape(2, 2, -1)[:, :, places]
                    expected[:, :, i, j] = np.array(places)[window.argmax(2)]
        np.testing.assert_array_equal(found["m"].numpy(), expected)


# Convolutions: size, kernel, stride, pad, dilation.
CONVOLUTIONS = [
    (n, k, s, p, d)
    for n in SIZES
    for k in (1, 2, 3, 5)
    for s in (1, 2, 3, 4)
    for p in (0, 1, 2, 4)
    for d in (1, 2, 3)
]


def convolved_size(n: int, k: int, s: int, p: int, d: int) -> int:
    return math.trunc((n + 2 * p - (d * (k - 1) + 1)) / s) + 1  # C's division.


def extent(case: Case) -> int:
    _, kernel, _, _, dilation = case
    return dilation * (kernel - 1) + 1


def strided(start: int, count: int, stride: int) -> slice:
    return slice(start, start + (count - 1) * stride + 1, stride)


def convolved(x: np.ndarray, weight: np.ndarray, one: Case, other: Case) -> np.ndarray:
    """Sum over taps of what each reads of the input, with zeros around it."""
    (h, kh, sh, ph, dh), (w, kw, sw, pw, dw) = one, other
    rows, columns = convolved_size(*one), convolved_size(*other)
    high, wide = (rows - 1) * sh + extent(one), (columns - 1) * sw + extent(other)
    padded = np.zeros((*x.shape[:2], max(high, h + 2 * ph), max(wide, w + 2 * pw)))
    padded[:, :, ph : ph + h, pw : pw + w] = x
    out = np.zeros((x.shape[0], weight.shape[0], rows, columns))
    for i in range(kh):
        for j in range(kw):
            read = padded[:, :, strided(i * dh, rows, sh), strided(j * dw, columns, sw)]
            out += np.einsum("oc,nchw->nohw", weight[:, :, i, j], read)
    return out


def deconvolved(x: np.ndarray, weight: np.ndarray, one: Case, other: Case) -> np.ndarray:
    """Write each input through every tap, then cut the padding off."""
    (h, kh, sh, ph, dh), (w, kw, sw, pw, dw) = one, other
    high, wide = (h - 1) * sh + extent(one), (w - 1) * sw + extent(other)
    out = np.zeros((x.shape[0], weight.shape[1], high, wide))
    for i in range(kh):
        for j in range(kw):
            written = np.einsum("co,nchw->nohw", weight[:, :, i, j], x)
            out[:, :, strided(i * dh, h, sh), strided(j * dw, w, sw)] += written
    return out[:, :, ph : high - ph, pw : wide - pw]


def convolution_settings(one: Case, other: Case, group: int) -> str:
    names = ("kernel", "stride", "pad")
    fields = [
        f"{name}_h: {a} {name}_w: {b}"
        for name, a, b in zip(names, one[1:4], other[1:4], strict=True)
    ]
    return (
        f"num_output: 6 group: {group} dilation: {one[4]} dilation: {other[4]} "
        f"weight_filler {{ type: 'gaussian' }} bias_filler {{ type: 'uniform' }} {' '.join(fields)}"
    )


def check_convolution(kind: str, one: Case, seed: int) -> None:
    other = Random(seed).choice(CONVOLUTIONS)
    group = 1 + seed % 2
    sizes = [convolved_size(*axis) for axis in (one, other)]
    if kind == "Deconvolution":
        sizes = [axis[2] * (axis[0] - 1) + extent(axis) - 2 * axis[3] for axis in (one, other)]
    settings = convolution_settings(one, other, group)
    if min(sizes) < 1:
        with pytest.raises(MismatchError, match="'l' .line 1.: .*empty"):
            net_of(kind, settings, one[0], other[0], 4)
        return
    net = net_of(kind, settings, one[0], other[0], 4)
    state = {key: value.double().numpy() for key, value in net.state_dict().items()}
    x = values(one[0], other[0], seed, 4)
    compute = convolved if kind == "Convolution" else deconvolved
    parts = [
        compute(part, weight, one, other)
        for part, weight in zip(
            np.split(x.astype(np.float64), group, 1),
            np.split(state["l.weight"], group),
            strict=True,
        )
    ]
    expected = np.concatenate(parts, 1) + state["l.bias"][:, None, None]
    assert list(expected.shape[2:]) == sizes
    check(net, x, expected)


def test_convolution_follows_caffes_formulas_on_a_sample() -> None:
    for seed, case in enumerate(sampled(CONVOLUTIONS, 120, 2)):
        check_convolution("Convolution", case, seed)


def test_deconvolution_follows_caffes_formulas_on_a_sample() -> None:
    for seed, case in enumerate(sampled(CONVOLUTIONS, 80, 3)):
        check_convolution("Deconvolution", case, seed)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_convolutions_follow_caffes_formulas() -> None:
    for seed, case in enumerate(CONVOLUTIONS):
        check_convolution("Convolution", case, seed)
        check_convolution("Deconvolution", case, seed)


# Interp: size, zoom (0: not given), shrink, target (0: not given), pads.
INTERPS = [
    (n, zoom, shrink, target, begin, end)
    for n in SIZES
    for zoom in (0, 1, 2, 3, 8)
    for shrink in (0, 1, 2, 3, 4)
    for target in (0, 1, 2, 7, 40)
    for begin, end in ((0, 0), (-1, 0), (0, -2), (-2, -3))
    if zoom or shrink or target
]


def interp_size(n: int, zoom: int, shrink: int, target: int, begin: int, end: int) -> int:
    n += begin + end
    if shrink and not zoom:
        return (n - 1) // shrink + 1
    if zoom and not shrink:
        return n + (n - 1) * (zoom - 1)
    if target:
        return target
    n = (n - 1) // shrink + 1
    return n + (n - 1) * (zoom - 1)


def along(n: int, out: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each output the two pixels it lies between, and the weight of the second."""
    one = np.float32(1)
    ratio = np.float32(n - 1) / np.float32(out - 1) if out > 1 else one * 0
    source = (ratio * np.arange(out, dtype=np.float32)).astype(np.float32)
    low = np.minimum(source.astype(int), n - 1)
    return low, np.minimum(low + 1, n - 1), (source - low).astype(np.float64)


def check_interp(case: Case, seed: int) -> None:
    n, zoom, shrink, target, begin, end = case
    width = Random(seed).choice(SIZES)
    settings = f"pad_beg: {begin} pad_end: {end}"
    settings += f" zoom_factor: {zoom}" * bool(zoom) + f" shrink_factor: {shrink}" * bool(shrink)
    settings += f" height: {target} width: {target + 3}" * bool(target)
    if min(n, width) + begin + end < 1:
        with pytest.raises(MismatchError, match="cropping"):
            net_of("Interp", settings, n, width)
        return
    size = interp_size(*case), interp_size(width, zoom, shrink, target and target + 3, begin, end)
    x = values(n, width, seed)
    inner = x[:, :, -begin : n + end, -begin : width + end].astype(np.float64)
    top, bottom, down = along(n + begin + end, size[0])
    left, right, across = along(width + begin + end, size[1])
    rows = inner[:, :, top] * (1 - down[:, None]) + inner[:, :, bottom] * down[:, None]
    expected = rows[..., left] * (1 - across) + rows[..., right] * across
    check(net_of("Interp", settings, n, width), x, expected)


def test_interp_follows_caffes_formulas_on_a_sample() -> None:
    for seed, case in enumerate(sampled(INTERPS, 200, 4)):
        check_interp(case, seed)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_interp_follows_caffes_formulas() -> None:
    for seed, case in enumerate(INTERPS):
        check_interp(case, seed)

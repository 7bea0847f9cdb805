"""The lattice against the algorithm written out with dictionaries, and against the Gaussian."""

import math
import os
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from deeplab_zoo import PermutohedralLattice
from deeplab_zoo.proto.errors import UsageError
from deeplab_zoo.zoo.lattice import cpu, geometry
from deeplab_zoo.zoo.lattice.features import bilateral_features, position_features

BACKENDS = ("numba", "torch")
METHODS = ("filter", "adjoint", "symmetric")


def points(batch: int, pixels: int, d: int, spread: float = 2.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(batch, pixels, d, dtype=torch.float64, generator=generator)


def signal(batch: int, pixels: int, channels: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, pixels, channels, dtype=torch.float64, generator=generator)


def corners(point: np.ndarray) -> list[tuple[tuple[int, ...], float]]:
    """The vertices of a point's simplex and its barycentric weights (sections 3.1, 3.2).

    A point between simplices (every pixel with x = 0 is one) has a choice of vertices with weight
    zero, which the blur sees: like the authors' program, equal gaps rank in the axes' order.
    """
    d = len(point)
    scaled = [
        f * (d + 1) * math.sqrt(2 / 3) / math.sqrt((i + 1) * (i + 2)) for i, f in enumerate(point)
    ]
    lifted = np.zeros(d + 1)  # in units of d + 1
    for i in range(d, 0, -1):
        lifted[i] = (lifted[0] - i * scaled[i - 1]) / (d + 1)
        lifted[0] += scaled[i - 1]
    lifted[0] /= d + 1
    zero = np.rint(lifted).astype(int)
    excess = zero.sum()  # back to the plane where coordinates sum to zero
    falling = np.argsort(zero - lifted, kind="stable")
    zero[falling[d + 1 - max(excess, 0) :]] -= 1
    zero[falling[: max(-excess, 0)]] += 1
    falling = np.roll(falling, excess)
    apart = lifted - zero
    found = []
    for remainder in range(d + 1):
        vertex = (d + 1) * zero + remainder
        vertex[falling[d + 1 - remainder :]] -= d + 1
        weight = (
            apart[falling[d - remainder]] - apart[falling[d + 1 - remainder]]
            if remainder
            else 1 + apart[falling[d]] - apart[falling[0]]
        )
        found.append((tuple(vertex.tolist()), weight))
    return found


def written_out(features: Tensor, values: Tensor, reverse: bool = False) -> Tensor:
    """Adams, Baek, Davis 2010: splat, blur along each axis with (1, 2, 1) / 2, slice."""
    d = features.shape[1]
    simplices = [corners(point) for point in features.double().numpy()]
    rows: dict[tuple[int, ...], np.ndarray] = defaultdict(lambda: np.zeros(values.shape[1]))
    for simplex, value in zip(simplices, values.double().numpy(), strict=True):
        for vertex, weight in simplex:
            rows[vertex] = rows[vertex] + weight * value
    nothing = np.zeros(values.shape[1])
    for axis in range(d, -1, -1) if reverse else range(d + 1):
        step = np.full(d + 1, -1)
        step[axis] = d
        rows = {
            vertex: value
            + rows.get(tuple((vertex + step).tolist()), nothing) / 2
            + rows.get(tuple((vertex - step).tolist()), nothing) / 2
            for vertex, value in rows.items()
        }
    sliced = [sum(weight * rows[vertex] for vertex, weight in simplex) for simplex in simplices]
    return torch.from_numpy(np.array(sliced)) / (1 + 2.0**-d)


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("d", range(1, 9))
def test_it_is_the_algorithm_of_the_paper(backend: str, d: int) -> None:
    features, values = points(2, 60, d), signal(2, 60, 3)
    lattice = PermutohedralLattice(features, backend=backend)  # type: ignore[arg-type]
    found = lattice.filter(values), lattice.adjoint(values)
    for image in range(2):
        for reverse in (False, True):
            expected = written_out(features[image], values[image], reverse)
            assert relative(found[reverse][image], expected) < 1e-12


def test_a_photo_in_float32_is_filtered_to_1e5_of_the_written_out_algorithm() -> None:
    generator = torch.Generator().manual_seed(2)
    images = (255 * torch.rand(2, 3, 5, 7, generator=generator)).repeat_interleave(3, 2)
    features = bilateral_features(images.repeat_interleave(2, 3), 9.0, 40.0)
    values = torch.rand(2, 15 * 14, 4, generator=generator)
    found = PermutohedralLattice(features).filter(values)
    assert found.dtype == torch.float32
    for image in range(2):
        assert relative(found[image], written_out(features[image], values[image])) < 1e-5


@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_the_error_against_the_gaussian_is_the_algorithms_own(
    d: int, record_property: Callable[[str, object], None]
) -> None:
    features, values = points(1, 300, d, spread=1.0), signal(1, 300, 2).abs()
    gaussian = PermutohedralLattice(features, backend="exact").filter(values)
    found = PermutohedralLattice(features).filter(values)
    gain = float((found * gaussian).sum() / gaussian.square().sum())
    error, shape = relative(found, gaussian), relative(found / gain, gaussian)
    record_property(
        "measured", f"d = {d}: relative error {error:.3f}, gain {gain:.3f}, without it {shape:.3f}"
    )
    assert error == pytest.approx(relative(written_out(features[0], values[0])[None], gaussian))
    # At full density the shape is a Gaussian's to a few per cent; the gain falls with d.
    assert shape < 0.12


def test_the_exact_backend_is_the_double_sum() -> None:
    features, values = points(2, 23, 3), signal(2, 23, 2)
    found = PermutohedralLattice(features, backend="exact").filter(values)
    distance = (features[:, :, None] - features[:, None]).square().sum(3)
    torch.testing.assert_close(found, (-distance / 2).exp() @ values)


@pytest.mark.parametrize("backend", [*BACKENDS, "exact"])
@pytest.mark.parametrize("d", [2, 5, 8])
def test_the_adjoint_is_the_transpose(backend: str, d: int) -> None:
    features, u, v = points(2, 150, d), signal(2, 150, 3, 2), signal(2, 150, 3, 3)
    lattice = PermutohedralLattice(features, backend=backend)  # type: ignore[arg-type]
    scale = u.norm() * lattice.filter(v).norm()
    assert abs((u * lattice.filter(v)).sum() - (lattice.adjoint(u) * v).sum()) < 1e-10 * scale
    assert abs((u * lattice.symmetric(v)).sum() - (lattice.symmetric(u) * v).sum()) < 1e-10 * scale
    mean = (lattice.filter(v) + lattice.adjoint(v)) / 2
    torch.testing.assert_close(lattice.symmetric(v), mean)


def test_the_filter_is_not_symmetric_so_that_the_adjoint_is_needed() -> None:
    lattice, v = PermutohedralLattice(points(1, 150, 5)), signal(1, 150, 2)
    assert relative(lattice.adjoint(v), lattice.filter(v)) > 1e-3


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_those_of_the_forward_and_so_are_second_ones(
    backend: str, method: str
) -> None:
    lattice = PermutohedralLattice(points(2, 9, 3), backend=backend)  # type: ignore[arg-type]
    values = signal(2, 9, 2).requires_grad_()
    # Linear maps: large steps lose nothing.
    assert torch.autograd.gradcheck(getattr(lattice, method), values, eps=1e-2, atol=1e-9)
    assert torch.autograd.gradgradcheck(getattr(lattice, method), values, eps=1e-2, atol=1e-9)


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_the_backends_agree_on_flat_images_where_pixels_lie_between_simplices(
    deterministic: bool, method: str
) -> None:
    features = bilateral_features(torch.full((2, 3, 13, 17), 128.0), 4.0, 8.0)
    values = signal(2, 13 * 17, 3)
    results = [
        getattr(
            PermutohedralLattice(features, backend=backend, deterministic=deterministic), method
        )(values)
        for backend in BACKENDS
    ]
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_features_too_wide_for_exact_names_are_told_apart_all_the_same(backend: str) -> None:
    near = points(1, 20, 8)
    features = torch.cat([near + shift for shift in (-400.0, 0.0, 400.0)], 1)
    low, high = features.amin((0, 1)).numpy(), features.amax((0, 1)).numpy()
    steps, _ = geometry.strides(low, high, images=1)
    assert abs(int(steps[-1])) > 1  # the names are fingerprints
    values = signal(1, 60, 2)
    found = PermutohedralLattice(features, backend=backend).filter(values)  # type: ignore[arg-type]
    # Coordinates of some thousands leave 1e-12 of the float64 geometry.
    assert relative(found[0], written_out(features[0], values[0])) < 1e-9


def test_names_count_from_zero_where_they_fit() -> None:
    steps, image = geometry.strides(np.zeros(5), np.full(5, 85.0), images=12)
    assert steps[-1] == 1
    assert 0 < image < 2**62


@pytest.mark.parametrize("backend", [*BACKENDS, "exact"])
def test_features_of_one_image_serve_a_batch(backend: str) -> None:
    features, values = position_features(6, 7, 2.0, torch.zeros(1)), signal(3, 42, 2).float()
    one = PermutohedralLattice(features, backend=backend)  # type: ignore[arg-type]
    many = PermutohedralLattice(features.repeat(3, 1, 1), backend=backend)  # type: ignore[arg-type]
    torch.testing.assert_close(one.filter(values), many.filter(values))


@pytest.mark.parametrize("batch", [1, 3, 4, 8])
def test_threads_change_no_bit(batch: int) -> None:
    features, values = points(batch, 5000, 5), signal(batch, 5000, 4).float()
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(PermutohedralLattice(features).symmetric(values))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(result, results[0]) for result in results)


def test_without_mkl_the_sums_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    features, values = points(2, 5000, 5), signal(2, 5000, 4)
    expected = PermutohedralLattice(features).filter(values)
    monkeypatch.setattr(cpu, "_MKL", False)
    found = PermutohedralLattice(features).filter(values)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_torch_keeps_its_number_of_threads() -> None:
    threads = torch.get_num_threads()
    try:
        for count in (2, 3):
            torch.set_num_threads(count)
            PermutohedralLattice(points(1, 5000, 3)).filter(signal(1, 5000, 2))
            with ThreadPoolExecutor(1) as later:
                assert torch.get_num_threads() == count
                assert later.submit(torch.get_num_threads).result() == count
    finally:
        torch.set_num_threads(threads)


def test_inference_mode_changes_nothing() -> None:
    features, values = points(2, 5000, 5), signal(2, 5000, 4).float()
    expected = PermutohedralLattice(features).filter(values)
    with torch.inference_mode():
        found = PermutohedralLattice(features.clone()).filter(values.clone())
        assert torch.equal(found, expected)


@pytest.mark.parametrize("backend", [*BACKENDS, "exact"])
def test_autocast_changes_nothing(backend: Any) -> None:
    lattice, values = PermutohedralLattice(points(1, 50, 3), backend=backend), signal(1, 50, 4)
    expected = lattice.filter(values.float())
    with torch.autocast("cpu", torch.bfloat16):
        found = lattice.filter(values.float())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
def test_another_default_type_or_device_changes_nothing(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, values = 255 * torch.rand(1, 3, 5, 7), signal(1, 35, 4).float()
    expected = PermutohedralLattice(bilateral_features(images, 9.0, 40.0)).filter(values)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            features = bilateral_features(images, 9.0, 40.0)
            found = PermutohedralLattice(features).filter(values)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("sigma", [[2.0, 3.0], np.array([2.0, 3.0]), torch.tensor([2.0, 3.0])])
def test_sigmas_may_be_any_sequence(sigma: Any) -> None:
    expected = position_features(4, 6, (2.0, 3.0), torch.zeros(()))
    assert torch.equal(position_features(4, 6, sigma, torch.zeros(())), expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_filters_too() -> None:
    lattice, values = PermutohedralLattice(points(4, 500, 5)), signal(4, 500, 2)
    expected = lattice.filter(values)
    child = os.fork()
    if child == 0:  # Leaves without running pytest's own exit.
        os._exit(0 if torch.equal(lattice.filter(values), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_strided_half_and_channels_first_values_are_taken() -> None:
    lattice, values = PermutohedralLattice(points(2, 40, 3)), signal(2, 40, 6)
    expected = lattice.filter(values)
    strided = values.repeat_interleave(2, 2)[:, :, ::2]
    first = values.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(lattice.filter(strided), expected)
    assert torch.equal(lattice.filter(first), expected)
    for dtype in (torch.float16, torch.bfloat16):
        narrow = points(2, 40, 3).to(dtype)
        wide = PermutohedralLattice(narrow.float()).filter(values)
        assert torch.equal(PermutohedralLattice(narrow).filter(values), wide)
    half = lattice.filter(values.bfloat16())
    assert half.dtype == torch.bfloat16
    assert relative(half, expected) < 0.01  # bfloat16 has 8 bits.


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (torch.zeros(2, 3), r"features: shape \(2, 3\), expected \(batch, pixels, d\)"),
        (torch.zeros(2, 0, 5), r"shape \(2, 0, 5\).*none of them 0"),
        (torch.zeros(2, 3, 9), r"d = 9, expected 1\.\.8"),
        (torch.zeros(2, 3, 4, dtype=torch.int32), r"torch\.int32, expected a floating type"),
        (torch.zeros(2, 3, 4).requires_grad_(), r"require a gradient.*detach"),
        (torch.zeros(2, 3, 4).index_put_((torch.tensor(1), torch.tensor(2), torch.tensor(0)), torch.tensor(float("nan"))), r"nan at image 1, pixel 2, dimension 0"),
        (torch.full((1, 3, 4), float("inf")), r"inf at image 0, pixel 0, dimension 0"),
        (torch.tensor([[[0.0], [-2e20]]]), r"-2\.0+.*e\+20 at image 0, pixel 1.*less than 1e\+12"),
    ],
)  # fmt: skip
def test_bad_features_are_named(features: Tensor, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        PermutohedralLattice(features)


def test_bad_values_and_backends_are_named() -> None:
    lattice = PermutohedralLattice(torch.zeros(2, 3, 4))
    for shape in ((2, 4, 1), (3, 3, 1), (2, 3), (2, 3, 0)):
        with pytest.raises(UsageError, match=r"values: shape .* expected \(2, 3, channels\)"):
            lattice.filter(torch.zeros(shape))
    with pytest.raises(UsageError, match=r"values: torch\.int64, expected a floating type"):
        lattice.filter(torch.zeros(2, 3, 1, dtype=torch.int64))
    with pytest.raises(UsageError, match="backend: 'cuda', expected auto"):
        PermutohedralLattice(torch.zeros(2, 3, 4), backend="cuda")  # type: ignore[arg-type]

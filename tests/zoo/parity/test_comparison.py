import numpy as np
import pytest

from deeplab_zoo.proto.errors import UsageError
from deeplab_zoo.zoo.parity.comparison import PROFILES, compare, tolerance, with_exact

FP32 = PROFILES["fp32"]


def values(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((2, 3, 4, 5)).astype(np.float32)


def test_distances_are_those_of_their_definitions() -> None:
    a, b = values(0), values(0)
    a[1, 2, 3, 4] += 0.5
    found = compare("x", a, b)
    assert found.worst == (1, 2, 3, 4)
    assert found.max_abs == pytest.approx(0.5, rel=1e-6)
    assert found.mean_abs == pytest.approx(0.5 / a.size, rel=1e-6)
    assert found.relative_l2 == pytest.approx(0.5 / np.linalg.norm(b), rel=1e-6)
    expected = np.vdot(a, b) / np.linalg.norm(a) / np.linalg.norm(b)
    assert found.cosine == pytest.approx(expected, rel=1e-6)
    assert not found.within(FP32)


def test_equal_values_pass_and_agree_everywhere() -> None:
    found = compare("x", values(), values())
    assert (found.relative_l2, found.agreement, found.cosine) == (0, 1, pytest.approx(1))
    assert found.within(PROFILES["exact"])


def test_zeros_are_compared_too() -> None:
    zero = np.zeros((1, 2, 3, 4), np.float32)
    assert compare("x", zero, zero).cosine == 1
    assert compare("x", zero + 1, zero).relative_l2 == pytest.approx(np.sqrt(24))
    tiny = zero + np.float32(1e-45)
    assert [compare("x", *two).zero for two in ((zero, zero), (tiny, zero), (zero, tiny))] == [
        True, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_never_passes_and_is_counted(side: int, value: float) -> None:
    sides = [values(), values()]
    sides[side][0, 1, 2, 3] = value
    found = compare("x", *sides)
    assert not found.within(PROFILES["bf16"])
    assert found.non_finite == ((1, 0), (0, 1))[side]
    assert found.worst == (0, 1, 2, 3)


def test_other_shapes_never_pass() -> None:
    found = compare("x", values(), values()[:1])
    assert (found.shape, found.our_shape) == ((1, 3, 4, 5), (2, 3, 4, 5))
    assert not found.within(PROFILES["bf16"])


def test_one_pixel_of_another_class_is_let_pass_and_two_are_not() -> None:
    ours, reference = values(), values()
    ours[0, :, 0, 0] = ours[0, ::-1, 0, 0]
    assert compare("x", ours, reference).agreement == pytest.approx(39 / 40)
    assert compare("x", ours, reference).agrees(FP32)
    ours[1, :, 2, 2] = ours[1, ::-1, 2, 2]
    assert not compare("x", ours, reference).agrees(FP32)
    assert not compare("x", ours[1:, :, 2:3, 2:3], reference[1:, :, 2:3, 2:3]).agrees(FP32)


def test_each_side_has_its_own_distance_from_the_exact_answer() -> None:
    exact = values().astype(np.float64)
    ours, reference = values(), values() * np.float32(1.25)
    found = with_exact(compare("x", ours, reference), ours, reference, exact)
    assert found.ours_exact == 0
    assert found.reference_exact == pytest.approx(0.25)


def test_a_tolerance_that_is_unknown_is_told() -> None:
    with pytest.raises(UsageError, match="tolerance 'loose' is unknown, expected one of exact"):
        tolerance("loose")

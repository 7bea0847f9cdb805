"""How far two engines' values for one blob are apart, and how far is too far."""

from dataclasses import dataclass, replace
from math import inf, isfinite, isnan, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...proto.errors import UsageError

BLOCK = 1 << 15  # Numbers, a quarter of a megabyte in float64.

TOLERANCE = 1e-5  # Relative L2. Caffe against itself with another BLAS kernel: 1e-6.


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What passes.

    Attributes
    ----------
    relative_l2
        The largest distance of a blob, as a share of the reference's norm.
    agreement
        The smallest share of pixels of the scores that get the same class; one pixel of
        several may always differ.

    """

    name: str
    relative_l2: float
    agreement: float


# fp32: two float32 engines differ by about 1e-6 over 101 layers. bf16 keeps 8 bits of a value;
# its errors, 4e-3 each, grow to a few per cent over those layers.
PROFILES = {
    one.name: one
    for one in (
        Tolerance("exact", 0.0, 1.0),
        Tolerance("fp32", TOLERANCE, 0.9999),
        Tolerance("bf16", 0.06, 0.97),
    )
}


def tolerance(name: str) -> Tolerance:
    """Return the tolerance profile called ``name``; raise `UsageError` for an unknown one."""
    if name not in PROFILES:
        raise UsageError(f"tolerance {name!r} is unknown, expected one of {', '.join(PROFILES)}.")
    return PROFILES[name]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One blob: ours against the reference's.

    Attributes
    ----------
    shape, our_shape
        The reference's and ours; where they differ, nothing else is known (NaN).
    relative_l2
        Norm of the difference over the norm of the reference.
    max_abs, mean_abs
        Largest and mean absolute difference, in the blob's own units.
    cosine
        Of the angle between the two; 1 where both are zero.
    worst
        Index of the largest difference.
    agreement
        Share of pixels with the same largest channel; None where that means nothing.
    ours_exact, reference_exact
        Relative L2 of each from exact arithmetic (float64), where that was computed.
    non_finite
        Values that are NaN or infinite: ours, the reference's.
    zero
        Whether both are zero everywhere, which shows nothing.

    """

    blob: str
    shape: tuple[int, ...]
    our_shape: tuple[int, ...]
    relative_l2: float
    max_abs: float
    mean_abs: float
    cosine: float
    worst: tuple[int, ...]
    agreement: float | None
    non_finite: tuple[int, int] = (0, 0)
    zero: bool = False
    ours_exact: float | None = None
    reference_exact: float | None = None

    @property
    def distance(self) -> float:
        """The relative L2 to rank blobs by; one that is not a number is infinite."""
        return inf if isnan(self.relative_l2) else self.relative_l2

    def within(self, limit: Tolerance) -> bool:
        """Tell whether the blob's distance is within a tolerance; NaN is not."""
        return self.relative_l2 <= limit.relative_l2

    def agrees(self, limit: Tolerance) -> bool:
        """Tell whether enough pixels have the same largest channel."""
        if self.agreement is None:
            return True
        pixels = int(np.prod(self.shape)) // self.shape[1]
        stray = 1.001 if pixels > 1 else 0.0  # One, whatever the share is rounded to.
        return (1 - self.agreement) * pixels <= max(stray, (1 - limit.agreement) * pixels)


def compare(
    blob: str,
    ours: NDArray[np.float32],
    reference: NDArray[np.float32],
    *,
    classes: bool = True,
) -> Comparison:
    """Compare two values of one blob, usually (batch, channels, h, w), in float64.

    ``classes`` tells whether the largest channels mean anything; they are slow to find.
    """
    nan = float("nan")
    if ours.shape != reference.shape or not reference.size:
        return Comparison(
            blob, reference.shape, ours.shape, nan, nan, nan, nan, (), None, (0, 0)
        )  # fmt: skip
    found = _measured(ours, reference)
    worst = np.unravel_index(found.worst, ours.shape)
    axis = 1 if ours.ndim > 1 else 0
    same = float(np.mean(ours.argmax(axis) == reference.argmax(axis))) if classes else None
    return Comparison(
        blob,
        reference.shape,
        ours.shape,
        found.relative_l2,
        found.max_abs,
        found.sum_abs / ours.size,
        found.cosine,
        tuple(int(index) for index in worst),
        same,
        found.non_finite,
        found.ours == found.reference == 0,
    )


@dataclass(slots=True)
class _Sums:
    """What is summed up over the blocks of two arrays."""

    distance: float = 0.0  # Squares of the difference, of ours, of the reference; the product.
    ours: float = 0.0
    reference: float = 0.0
    product: float = 0.0
    sum_abs: float = 0.0
    max_abs: float = -1.0
    worst: int = 0
    non_finite: tuple[int, int] = (0, 0)

    @property
    def relative_l2(self) -> float:
        return sqrt(self.distance / self.reference) if self.reference else sqrt(self.distance)

    @property
    def cosine(self) -> float:
        norms = sqrt(self.ours * self.reference)
        return self.product / norms if norms else float(self.ours == self.reference)


def _measured(ours: NDArray[np.float32], reference: NDArray[np.floating[Any]]) -> _Sums:
    """Measure block by block: each is widened to float64 while it is in the cache."""
    sums = _Sums()
    flat, other = ours.reshape(-1), reference.reshape(-1)
    with np.errstate(invalid="ignore", over="ignore"):
        for at in range(0, flat.size, BLOCK):
            x = flat[at : at + BLOCK].astype(np.float64)
            y = other[at : at + BLOCK].astype(np.float64)
            apart = np.abs(x - y)
            sums.distance += float(apart @ apart)
            sums.ours += float(x @ x)
            sums.reference += float(y @ y)
            sums.product += float(x @ y)
            sums.sum_abs += float(apart.sum())
            place = int(apart.argmax())  # The first NaN, where there is one.
            if not apart[place] <= sums.max_abs and not isnan(sums.max_abs):
                sums.max_abs, sums.worst = float(apart[place]), at + place
            if not isfinite(sums.ours + sums.reference):
                counts = int((~np.isfinite(x)).sum()), int((~np.isfinite(y)).sum())
                sums.non_finite = sums.non_finite[0] + counts[0], sums.non_finite[1] + counts[1]
    return sums


def with_exact(
    found: Comparison,
    ours: NDArray[np.float32],
    reference: NDArray[np.float32],
    exact: NDArray[np.float64],
) -> Comparison:
    """Add how far each side is from the exact values."""

    def distance(value: NDArray[np.float32]) -> float | None:
        return _measured(value, exact).relative_l2 if value.shape == exact.shape else None

    return replace(found, ours_exact=distance(ours), reference_exact=distance(reference))

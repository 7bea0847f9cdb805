"""How far two engines' values for one blob are apart, and how far is too far."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...proto.errors import UsageError

TOLERANCE = 1e-5  # Relative L2. Caffe against itself with another BLAS kernel: 1e-6.


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What passes.

    Attributes
    ----------
    relative_l2
        The largest distance of a blob, as a share of the reference's norm.
    agreement
        The smallest share of pixels of the scores that get the same class; one pixel may
        always differ.

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
        Share of pixels with the same largest channel.
    ours_exact, reference_exact
        Relative L2 of each from exact arithmetic (float64), where that was computed.
    non_finite
        Values that are NaN or infinite: ours, the reference's.

    """

    blob: str
    shape: tuple[int, ...]
    our_shape: tuple[int, ...]
    relative_l2: float
    max_abs: float
    mean_abs: float
    cosine: float
    worst: tuple[int, ...]
    agreement: float
    non_finite: tuple[int, int] = (0, 0)
    ours_exact: float | None = None
    reference_exact: float | None = None

    def within(self, limit: Tolerance) -> bool:
        """Tell whether the blob's distance is within a tolerance; NaN is not."""
        return self.relative_l2 <= limit.relative_l2

    def agrees(self, limit: Tolerance) -> bool:
        """Tell whether enough pixels have the same largest channel."""
        pixels = int(np.prod(self.shape)) // self.shape[1]
        return (1 - self.agreement) * pixels <= max(1.001, (1 - limit.agreement) * pixels)


def compare(blob: str, ours: NDArray[np.float32], reference: NDArray[np.float32]) -> Comparison:
    """Compare two values of one blob, usually (batch, channels, h, w), in float64."""
    finite = np.isfinite(ours).all(), np.isfinite(reference).all()
    counts = 0, 0
    if not all(finite):
        counts = int(np.sum(~np.isfinite(ours))), int(np.sum(~np.isfinite(reference)))
    if ours.shape != reference.shape or not reference.size:
        nan = float("nan")
        return Comparison(
            blob, reference.shape, ours.shape, nan, nan, nan, nan, (), nan, counts
        )  # fmt: skip
    wide = reference.astype(np.float64)
    with np.errstate(invalid="ignore"):  # Infinity less infinity.
        difference = np.abs(ours - wide)
    flat = difference.ravel()
    worst = np.unravel_index(int(np.argmax(np.nan_to_num(flat, nan=np.inf))), difference.shape)
    channels = 1 if ours.ndim > 1 else 0
    return Comparison(
        blob,
        reference.shape,
        ours.shape,
        relative(difference, wide),
        float(difference.max()),
        float(difference.mean()),
        _cosine(ours, wide),
        tuple(int(index) for index in worst),
        float(np.mean(ours.argmax(channels) == reference.argmax(channels))),
        counts,
    )


def relative(difference: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """Return the norm of a difference over the reference's, or itself where that is zero."""
    with np.errstate(invalid="ignore"):
        norm, distance = np.linalg.norm(reference.ravel()), np.linalg.norm(difference.ravel())
        return float(distance / norm if norm else distance)


def with_exact(
    found: Comparison,
    ours: NDArray[np.float32],
    reference: NDArray[np.float32],
    exact: NDArray[np.float64],
) -> Comparison:
    """Add how far each side is from the exact values."""

    def distance(value: NDArray[np.float32]) -> float | None:
        return relative(value - exact, exact) if value.shape == exact.shape else None

    return replace(found, ours_exact=distance(ours), reference_exact=distance(reference))


def _cosine(ours: NDArray[np.float32], reference: NDArray[np.float64]) -> float:
    wide = ours.astype(np.float64)
    with np.errstate(invalid="ignore"):
        norms = np.linalg.norm(wide) * np.linalg.norm(reference)
        if norms == 0:
            return float(np.array_equal(wide, reference))
        return float(np.vdot(wide, reference) / norms)

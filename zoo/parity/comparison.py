"""How far two engines' values for one blob are apart."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...proto.errors import MismatchError

TOLERANCE = 1e-5  # Relative L2. Caffe against itself with another BLAS kernel: 1e-6.


@dataclass(frozen=True, slots=True)
class Comparison:
    """One blob: ours against the reference's.

    Attributes
    ----------
    relative_l2
        Norm of the difference over the norm of the reference.
    max_abs, mean_abs
        Largest and mean absolute difference, in the blob's own units.
    worst
        Index of the largest difference.
    agreement
        Share of pixels with the same largest channel.

    """

    blob: str
    shape: tuple[int, ...]
    relative_l2: float
    max_abs: float
    mean_abs: float
    worst: tuple[int, ...]
    agreement: float

    @property
    def passed(self) -> bool:
        """Whether the blob is within the tolerance; NaN is not."""
        return self.relative_l2 <= TOLERANCE


def compare(blob: str, ours: NDArray[np.float32], reference: NDArray[np.float32]) -> Comparison:
    """Compare (batch, channels, h, w) values of one blob in float64.

    Raises
    ------
    MismatchError
        The shapes differ.

    """
    if ours.shape != reference.shape:
        raise MismatchError(
            f"blob {blob!r}: shape {ours.shape} against the reference's {reference.shape}."
        )
    wide = reference.astype(np.float64)
    difference = np.abs(ours - wide)
    norm = float(np.linalg.norm(wide))
    distance = float(np.linalg.norm(difference))
    worst = np.unravel_index(int(np.argmax(difference)), difference.shape)
    return Comparison(
        blob,
        tuple(reference.shape),
        distance / norm if norm else distance,
        float(difference.max()),
        float(difference.mean()),
        tuple(int(index) for index in worst),
        float(np.mean(ours.argmax(1) == reference.argmax(1))),
    )

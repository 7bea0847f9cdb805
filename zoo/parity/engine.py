"""What runs a network: one small interface before every engine, ours and the references."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...converters.numerics import Numerics
from ..models.inference import prepare

Arrays = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine with a network in it.

    ``run`` maps input blobs to every blob it can show, (batch, channels, h, w) under Caffe's
    names, each with the value it has after the last layer that writes it.
    """

    name: str
    version: str
    run: Callable[[Arrays], Arrays]

    @property
    def label(self) -> str:
        """Name and version."""
        return f"{self.name} {self.version}".strip()


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One input to compare at: a picture that each side prepares by itself, or blobs as they are.

    ``picture`` is RGB uint8 (height, width, 3); ``blobs`` are what the network reads.
    """

    name: str
    picture: NDArray[np.uint8] | None = None
    blobs: Arrays | None = None

    def inputs(self, blob: str, numerics: Numerics) -> Arrays:
        """Return the input blobs, the picture prepared as a profile says."""
        if self.picture is None:
            return self.blobs or {}
        return {blob: prepare(self.picture, numerics).numpy()}

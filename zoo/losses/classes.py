"""Which classes a loss averages: the caller's words in, channels and their labels out."""

from collections.abc import Sequence
from operator import index
from typing import Literal

from ...proto.errors import UsageError

Classes = Literal["present", "all"] | Sequence[int]


def channels_of(classes: Classes, count: int) -> tuple[list[int], int]:
    """Return the channels whose losses are wanted, and the label of the first channel.

    Raises
    ------
    UsageError
        A class that does not exist, or is there twice; one channel whose label is not named.

    """
    if isinstance(classes, str):
        if classes not in ("present", "all"):
            raise UsageError(f"classes: {classes!r}, expected 'present', 'all' or a list.")
        if count == 1:
            raise UsageError(
                f"classes: {classes!r} with the probabilities of one class, expected the label "
                "they are of, such as classes=[1]."
            )
        return list(range(count)), 0
    try:
        labels = [index(label) for label in classes]
    except TypeError:
        raise UsageError(
            f"classes: {classes!r}, expected 'present', 'all' or a list of whole numbers."
        ) from None
    if count == 1 and len(labels) == 1:
        return [0], labels[0]
    if not labels or len(set(labels)) < len(labels) or not set(labels) <= set(range(count)):
        raise UsageError(f"classes: {labels}, expected different ones of 0..{count - 1}.")
    return labels, 0

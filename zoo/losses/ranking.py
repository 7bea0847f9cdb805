"""Errors and labels of one class in, the Jaccard loss's Lovász extension out: compiled for the CPU.

The extension needs the pixels in the order of their errors, and only of those in error. A
float32 that is not negative orders like its bits, so the bits of the error, the pixel's number
and whether it is foreground make one 64-bit key. Keys carry their pixel along: nothing is
looked up afterwards, equal errors stay in the pixels' order, and NumPy sorts integers with the
widest vectors the processor has.
"""

from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ..lattice.compiled import compiled

Floats = NDArray[np.float32]
Labels = NDArray[np.int32]
Keys = NDArray[np.int64]

VOID = -(2**31)  # The label of pixels that do not count.


@compiled()
def pack(
    scores: Floats, labels: Labels, label: int, margin: np.float32, keys: Keys
) -> tuple[int, int]:
    """Write the keys of the pixels in error; return how many, and the foreground's size."""
    count = foreground = 0
    for pixel in range(scores.size):
        if labels[pixel] == VOID:
            continue
        hit = labels[pixel] == label
        foreground += hit
        error = np.float32(1) - scores[pixel] if hit else scores[pixel] + margin
        if not error <= 0:  # What is not a number counts, and makes the loss not a number.
            bits = np.int64(~np.float32(error).view(np.int32))
            keys[count] = (bits << 32) | (pixel << 1) | hit
            count += 1
    return count, foreground


@compiled()
def unpack(keys: Keys, foreground: int, gradient: Floats) -> float:
    """Return the loss; write its gradient by each score.

    The Jaccard loss of the first pixels grows by ``1 / union`` with a foreground pixel and by
    ``intersection / (union (union - 1))`` with another.
    """
    loss = 0.0
    intersection = foreground
    for rank in range(keys.size):
        pixel = (keys[rank] & 0xFFFFFFFF) >> 1
        error = np.int32(~(keys[rank] >> 32)).view(np.float32)
        if keys[rank] & 1:
            intersection -= 1
            step = np.float32(1) / np.float32(rank + 1 + intersection)
            gradient[pixel] = -step
        else:
            union = np.float32(rank + 1 + intersection)
            step = np.float32(1)
            if union > 1:  # Otherwise the first false pixel of a class that is absent.
                step = np.float32(intersection) / (union * (union - np.float32(1)))
            gradient[pixel] = step
        loss += float(step * error)
    return loss


def extensions(
    scores: Floats,
    labels: Labels,
    channels: list[int],
    first: int,
    margin: float,
    skip_absent: bool,
    threads: int,
) -> tuple[Floats, Floats, Floats]:
    """Return losses and whether they count, each (groups, classes), and the scores' gradient.

    ``scores`` are (groups, images, classes, pixels), ``labels`` (groups, images, pixels). The
    images of a group are ranked together.
    """
    groups, images, classes, pixels = scores.shape
    losses = np.zeros((groups, classes), np.float32)
    active = np.zeros((groups, classes), np.float32)
    gradient = np.zeros_like(scores, order="C")
    limit = np.float32(margin)

    def rank(row: tuple[int, int]) -> None:
        group, channel = row
        keys = np.empty(images * pixels, np.int64)
        flat = np.ascontiguousarray(scores[group, :, channel]).reshape(-1)
        count, foreground = pack(flat, labels[group].reshape(-1), first + channel, limit, keys)
        if foreground == 0 and skip_absent:
            return
        active[group, channel] = 1
        keys = keys[:count]
        keys.sort()
        steps = np.zeros(images * pixels, np.float32)
        losses[group, channel] = unpack(keys, foreground, steps)
        gradient[group, :, channel] = steps.reshape(images, pixels)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(rank, product(range(groups), channels)))
    return losses, active, gradient

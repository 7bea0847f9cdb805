"""The pre-flight scan: every sample is decoded once, before a GPU is touched.

A dataset enters; what leaves is the histogram of its labels, which classes each sample shows,
and every problem there is: missing files, damage, sizes that differ, labels out of range.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from ...proto.errors import FormatError, MismatchError, ZooError, listing
from .dataset import Dataset, Sample
from .images import complaint, read_photo, read_values
from .legend import REFUSED, Legend

AHEAD = 64  # Samples that wait for a thread; more would only hold memory.


@dataclass(frozen=True, slots=True)
class Finding:
    """What one sample holds: pixels per class id, or why it cannot be used."""

    sample: Sample
    pixels: NDArray[np.int64]
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What a scan found.

    Attributes
    ----------
    dataset
        What was scanned.
    pixels
        Per class, over the sound samples.
    unjudged
        Pixels that are void or padding.
    present
        The classes that each sample shows, in the dataset's order; none for a bad sample.
    problems
        ``file: what is wrong``, in the dataset's order.
    bad
        Ids of the samples that have one.

    """

    dataset: Dataset
    pixels: tuple[int, ...]
    unjudged: int
    present: tuple[frozenset[int], ...]
    problems: tuple[str, ...]
    bad: frozenset[str]

    def images(self) -> tuple[int, ...]:
        """Count the samples that show each class."""
        counts = Counter(one for seen in self.present for one in seen)
        return tuple(counts[one] for one in range(len(self.pixels)))


def check(
    dataset: Dataset, threads: int = 4, progress: Callable[[int, int], None] | None = None
) -> Report:
    """Decode every picture and mask of a dataset; what is wrong is reported, not raised.

    ``progress`` is told how many samples of how many are done.
    """
    count = len(dataset.legend.names)
    total = np.zeros(256, np.int64)
    present: list[frozenset[int]] = []
    bad: dict[str, str] = {}
    for done, one in enumerate(findings_of(dataset, threads), 1):
        total += one.pixels
        present.append(frozenset(np.flatnonzero(one.pixels[:count]).tolist()))
        if one.problem:
            bad[one.sample.id] = one.problem
        if progress:
            progress(done, len(dataset.samples))
    return Report(
        dataset,
        tuple(total[:count].tolist()),
        int(total[count:].sum()),
        tuple(present),
        tuple(bad.values()),
        frozenset(bad),
    )


def findings_of(dataset: Dataset, threads: int = 4) -> Iterator[Finding]:
    """Yield what each sample holds, in order, as the threads get there."""
    samples = iter(dataset.samples)
    with ThreadPoolExecutor(threads) as pool:
        waiting = [pool.submit(examine, s, dataset.legend) for s in islice(samples, AHEAD)]
        while waiting:
            yield waiting.pop(0).result()
            for sample in islice(samples, 1):
                waiting.append(pool.submit(examine, sample, dataset.legend))


def examine(sample: Sample, legend: Legend) -> Finding:
    """Decode a sample and count its labels."""
    nothing = np.zeros(256, np.int64)
    try:
        size = read_photo(sample.image).shape[:2]
        if sample.label is None:
            return Finding(sample, nothing)
        values = read_values(sample.label, legend)
    except FormatError as error:
        return Finding(sample, nothing, str(error))
    if values.shape != size:
        return Finding(sample, nothing, f"{sample.label}: {differ(values.shape, size)}")
    histogram = np.bincount(values.ravel(), minlength=256)
    pixels = np.zeros(256, np.int64)
    np.add.at(pixels, list(legend.values), histogram)
    if pixels[REFUSED]:
        return Finding(sample, nothing, f"{sample.label}: {complaint(histogram, legend)}")
    return Finding(sample, pixels)


def differ(mask: tuple[int, ...], photo: tuple[int, ...]) -> str:
    """Say that a mask and its picture have different sizes."""
    turned = " (turned by 90 degrees?)" if mask == photo[::-1] else ""
    return f"the mask is {mask[0]}x{mask[1]}, its picture {photo[0]}x{photo[1]}{turned}."


def demand_sound(report: Report) -> None:
    """Raise a `FormatError` that lists every problem, or a `MismatchError` for no samples."""
    dataset = report.dataset
    if not dataset.samples:
        raise MismatchError(f"{dataset.name} {dataset.split}: has no samples.")
    if report.problems:
        raise FormatError(
            f"{dataset.name} {dataset.split}: {len(report.problems)} of "
            f"{len(dataset.samples)} samples cannot be used:\n{listing(report.problems)}\n"
            "Repair them, or leave them out (--skip-bad)."
        )


def sound(report: Report) -> tuple[Dataset, Report]:
    """Return the dataset without its bad samples, and the report on what is left.

    ``len(report.bad)`` tells how many were left out.

    Raises
    ------
    ZooError
        Nothing is left.

    """
    kept = [place for place, s in enumerate(report.dataset.samples) if s.id not in report.bad]
    if not kept:
        raise ZooError(
            f"{report.dataset.name} {report.dataset.split}: not one sample can be used:\n"
            f"{listing(report.problems or ['there is none'])}"
        )
    dataset = replace(
        report.dataset, samples=tuple(report.dataset.samples[place] for place in kept)
    )
    present = tuple(report.present[place] for place in kept)
    return dataset, replace(report, dataset=dataset, present=present, problems=(), bad=frozenset())

"""A parity report: the verdict, what was compared with what, every blob's distance.

Written as JSON (for programs; ``format`` and ``version`` at the top, described in
``docs/parity.md``), as Markdown (for a pull request), and as a page (`page`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...converters.compare import Difference
from ...converters.files import write_text
from ..markdown import row, text
from ..strict_json import dumps
from .comparison import Comparison, Tolerance
from .diagnosis import Diagnosis

FORMAT = "deeplab-zoo parity report"
VERSION = 2


@dataclass(frozen=True, slots=True)
class Weighed:
    """The weights against the source's: tensors compared, and those not equal to the bit."""

    tensors: int
    differences: tuple[Difference, ...]

    @property
    def equal(self) -> int:
        """How many are equal to the bit."""
        return self.tensors - len(self.differences)


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """What to look at: the input as RGB, and both sides' classes at the scores' size."""

    image: NDArray[np.uint8] | None
    ours: NDArray[np.integer[Any]]
    reference: NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class Compared:
    """One input: its size, and every blob, in the network's order.

    ``scores`` is the blob whose largest channel is the prediction; None where it was not seen.
    ``blank`` tells an input of zeros alone.
    """

    name: str
    shape: tuple[int, ...]
    comparisons: tuple[Comparison, ...]
    scores: str | None
    pictures: Pictures | None = field(default=None, repr=False, compare=False)
    blank: bool = False

    @property
    def blobs(self) -> list[str]:
        """The names of what was compared."""
        return [one.blob for one in self.comparisons]

    def failures(self, limit: Tolerance) -> list[Comparison]:
        """Return the blobs that are too far apart, the scores also if too few pixels agree."""
        return [
            one
            for one in self.comparisons
            if not one.within(limit) or (one.blob == self.scores and not one.agrees(limit))
        ]

    @property
    def worst(self) -> Comparison:
        """The blob with the largest relative distance; one that is not a number is larger."""
        return max(self.comparisons, key=lambda one: one.distance)


@dataclass(frozen=True, slots=True)
class ParityReport:
    """What was compared, and how it came out.

    Attributes
    ----------
    subject, engine
        Our model and the reference engine, in words.
    files
        Name of each file, the model's and the source's, to its sha256.
    numerics
        The profiles of our model and of the source.
    tolerance
        What passes.
    weights
        None where there was no source to hold them against.
    cases
        One per input.
    uncompared
        Blobs of the reference that were not compared.
    diagnosis
        Of the first blob that differs, where it was asked for.
    notes
        What the reader should know: sizes left out, engines that could not be used.
    environment
        Versions of what took part.
    outputs
        The blobs that our model gives, without which there is no proof.

    """

    subject: str
    engine: str
    files: Mapping[str, str]
    numerics: tuple[str, str]
    tolerance: Tolerance
    weights: Weighed | None
    cases: tuple[Compared, ...]
    uncompared: tuple[str, ...] = ()
    diagnosis: Diagnosis | None = None
    notes: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every tensor is equal, every blob within the tolerance, and nothing unproven."""
        return not (self.first or (self.weights and self.weights.differences) or self.unproven)

    @property
    def unproven(self) -> tuple[str, ...]:
        """What a proof lacks: outputs that were not compared, inputs or scores beside zeros."""
        lacking = [one for one in self.outputs if any(one not in each.blobs for each in self.cases)]
        scores = dict.fromkeys(one.scores for one in self.cases if one.scores in self.silent)
        return (
            *(f"the output {one} was not compared" for one in lacking),
            *(f"the scores {one} are zeros on both sides" for one in scores),
            *(["every input is zeros"] if all(case.blank for case in self.cases) else []),
        )

    @property
    def silent(self) -> list[str]:
        """The blobs that are zeros at every input on both sides, which shows nothing."""
        silent = [{one.blob for one in case.comparisons if one.zero} for case in self.cases]
        return [one for one in self.cases[0].blobs if all(one in each for each in silent)]

    @property
    def first(self) -> tuple[Compared, Comparison] | None:
        """The first blob that differs, in the network's order, and its input."""
        failing = [
            (case, found[0]) for case in self.cases if (found := case.failures(self.tolerance))
        ]
        if not failing:
            return None
        return min(failing, key=lambda pair: pair[0].comparisons.index(pair[1]))

    @property
    def worst(self) -> tuple[Compared, Comparison]:
        """The blob with the largest relative distance, and its input."""
        case = max(self.cases, key=lambda one: one.worst.distance)
        return case, case.worst

    @property
    def verdict(self) -> str:
        """The outcome in one line."""
        total = sum(len(case.comparisons) for case in self.cases)
        failed = sum(len(case.failures(self.tolerance)) for case in self.cases)
        _, worst = self.worst
        parts = []
        if self.weights:
            parts.append(f"{self.weights.equal} of {self.weights.tensors} tensors bit-exact")
        inputs = f" at {len(self.cases)} inputs" if len(self.cases) > 1 else ""
        parts.append(
            f"{total - failed} of {total} blobs{inputs} within {self.tolerance.relative_l2:g} of "
            f"{self.engine}"
        )
        remarks = [f"{'PASS' if self.passed else 'FAIL'}: {', '.join(parts)}"]
        if self.first:
            remarks.append(f"the first that differs is {self.first[1].blob}")
        else:
            remarks.append(f"worst {worst.blob} at {worst.relative_l2:.1e}")
        if silent := self.silent:
            more = f" and {len(silent) - 3} more" if len(silent) > 3 else ""
            remarks.append(f"zeros on both sides show nothing: {', '.join(silent[:3])}{more}")
        return "; ".join([*remarks, *self.unproven])


def fields(report: ParityReport) -> dict[str, Any]:
    """Return the report as JSON has it; `dumps` writes NaN and infinity as null."""
    first = report.first
    return {
        "format": FORMAT,
        "version": VERSION,
        "passed": report.passed,
        "verdict": report.verdict,
        "unproven": report.unproven,
        "first_difference": {"input": first[0].name, "blob": first[1].blob} if first else None,
        **asdict(report, dict_factory=_without_pictures),
    }


def _without_pictures(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value for key, value in items if key != "pictures"}


def write_json(report: ParityReport, path: Path) -> None:
    """Write the report for programs."""
    write_text(path, dumps(fields(report)) + "\n")


def write_markdown(report: ParityReport, path: Path) -> None:
    """Write the report for a pull request."""
    write_text(path, "\n".join(_markdown(report)) + "\n")


def _markdown(report: ParityReport) -> Iterator[str]:
    yield f"# Parity: {text(report.subject)}"
    yield ""
    yield f"**{text(report.verdict)}**"
    yield ""
    if report.diagnosis:
        yield text(report.diagnosis.sentence)
        yield ""
    yield f"Reference engine: {report.engine}. Tolerance: {report.tolerance.name}. Files:"
    yield ""
    for name, digest in report.files.items():
        yield f"- {text(name)} sha256 `{digest}`"
    for note in report.notes:
        yield f"- note: {text(note)}"
    if report.uncompared:
        yield f"- not compared: {text(', '.join(report.uncompared))}"
    if report.weights and report.weights.differences:
        yield ""
        yield "| tensor | not equal |"
        yield "|---|---|"
        for one in report.weights.differences:
            apart = f", by {one.max_abs:.1e} at most" if one.max_abs is not None else ""
            yield row(one.name, f"{one.reason}{apart}")
    for case in report.cases:
        failed = case.failures(report.tolerance)
        yield ""
        yield f"## {text(case.name)}"
        yield ""
        yield (
            "| blob | shape | relative L2 | max abs | mean abs | cosine | worst at | same argmax "
            "| ours, exact | reference, exact | |"
        )
        yield "|---|---|---:|---:|---:|---:|---|---:|---:|---:|---|"
        for blob in case.comparisons:
            yield row(
                blob.blob, shape_of(blob), f"{blob.relative_l2:.1e}", f"{blob.max_abs:.1e}",
                f"{blob.mean_abs:.1e}", f"{blob.cosine:.8f}", ", ".join(map(str, blob.worst)),
                share(blob.agreement), exactness(blob.ours_exact), exactness(blob.reference_exact),
                "FAIL" if blob in failed else "ok",
            )  # fmt: skip


def shape_of(one: Comparison) -> str:
    """Write a blob's shape, and ours where it is another."""
    shape = "x".join(map(str, one.shape))
    return (
        shape
        if one.shape == one.our_shape
        else f"{shape}, ours {'x'.join(map(str, one.our_shape))}"
    )


def exactness(distance: float | None) -> str:
    """Write a distance from exact arithmetic, where it is known."""
    return "" if distance is None else f"{distance:.1e}"


def share(agreement: float | None) -> str:
    """Write a share of pixels in per cent, where it means something."""
    return "" if agreement is None else f"{agreement:.2%}"


def table(case: Compared, blobs: Iterator[str] | None = None) -> Iterator[str]:
    """Yield the lines of a plain table for a terminal, of some blobs or all."""
    wanted = set(blobs) if blobs is not None else None
    yield (
        f"{'blob':<24} {'shape':<18} {'relative L2':>11} {'max abs':>9} {'same argmax':>12} "
        f"{'ours, exact':>12} {'reference':>10}"
    )
    for one in case.comparisons:
        if wanted is None or one.blob in wanted:
            yield (
                f"{one.blob:<24} {'x'.join(map(str, one.shape)):<18} {one.relative_l2:>11.1e} "
                f"{one.max_abs:>9.1e} {share(one.agreement):>12} {exactness(one.ours_exact):>12} "
                f"{exactness(one.reference_exact):>10}"
            )

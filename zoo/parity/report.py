"""A parity report: the verdict, what was compared with what, every blob's distance.

Written as JSON (for programs; ``format`` and ``version`` at the top) and as Markdown.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ...converters.files import replacing
from .comparison import TOLERANCE, Comparison

FORMAT = "deeplab-zoo parity report"
VERSION = 1


@dataclass(frozen=True, slots=True)
class ParityReport:
    """What was compared, and how it came out.

    Attributes
    ----------
    subject
        What the weights are, in words.
    engine
        The reference engine with its version.
    files
        Name of each source file to its sha256.
    weights
        Tensors compared with the source, and how many are equal to the bit.
    comparisons
        One per blob, in the network's order.

    """

    subject: str
    engine: str
    files: Mapping[str, str]
    weights: tuple[int, int]
    comparisons: tuple[Comparison, ...]

    @property
    def passed(self) -> bool:
        """Whether every tensor is equal and every blob is within the tolerance."""
        return self.weights[0] == self.weights[1] and all(c.passed for c in self.comparisons)

    @property
    def worst(self) -> Comparison:
        """The blob with the largest relative distance."""
        return max(self.comparisons, key=lambda one: one.relative_l2)

    @property
    def verdict(self) -> str:
        """The outcome in one line."""
        compared, equal = self.weights
        agree = sum(one.passed for one in self.comparisons)
        return (
            f"{'PASS' if self.passed else 'FAIL'}: {equal} of {compared} tensors bit-exact, "
            f"{agree} of {len(self.comparisons)} blobs within {TOLERANCE:g} of {self.engine}; "
            f"worst {self.worst.blob} at {self.worst.relative_l2:.1e}"
        )


def write(report: ParityReport, folder: Path) -> tuple[Path, Path]:
    """Write ``report.json`` and ``report.md`` into a folder; return their paths."""
    fields = {
        "format": FORMAT,
        "version": VERSION,
        "passed": report.passed,
        "verdict": report.verdict,
        "tolerance_relative_l2": TOLERANCE,
        **asdict(report),
    }
    as_json, as_markdown = folder / "report.json", folder / "report.md"
    with replacing(as_json) as temporary:
        temporary.write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")
    with replacing(as_markdown) as temporary:
        temporary.write_text("\n".join(_markdown(report)) + "\n", encoding="utf-8")
    return as_json, as_markdown


def _markdown(report: ParityReport) -> Iterator[str]:
    yield f"# Parity: {report.subject}"
    yield ""
    yield f"**{report.verdict}**"
    yield ""
    yield f"Reference engine: {report.engine}. Sources:"
    yield ""
    for name, digest in report.files.items():
        yield f"- `{name}` sha256 `{digest}`"
    yield ""
    yield "| blob | shape | relative L2 | max abs | mean abs | worst at | same argmax | |"
    yield "|---|---|---:|---:|---:|---|---:|---|"
    for one in report.comparisons:
        shape = " x ".join(map(str, one.shape))
        worst = ", ".join(map(str, one.worst))
        yield (
            f"| {one.blob} | {shape} | {one.relative_l2:.1e} | {one.max_abs:.1e} | "
            f"{one.mean_abs:.1e} | {worst} | {one.agreement:.2%} | "
            f"{'ok' if one.passed else 'FAIL'} |"
        )


def table(report: ParityReport, blobs: Iterator[str] | None = None) -> Iterator[str]:
    """Yield the lines of a plain table for a terminal, of some blobs or all."""
    wanted = set(blobs) if blobs is not None else None
    yield f"{'blob':<24} {'shape':<18} {'relative L2':>11} {'max abs':>9} {'same argmax':>12}"
    for one in report.comparisons:
        if wanted is None or one.blob in wanted:
            shape = "x".join(map(str, one.shape))
            yield (
                f"{one.blob:<24} {shape:<18} {one.relative_l2:>11.1e} {one.max_abs:>9.1e} "
                f"{one.agreement:>12.2%}"
            )

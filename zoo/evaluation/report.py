"""An evaluation, or the curve of several checkpoints, as JSON and as Markdown.

The JSON has ``format`` and ``version`` at the top and is described in docs/evaluation.md.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from ..markdown import row, text
from ..strict_json import finite
from .evaluate import Evaluation

FORMAT, CURVE_FORMAT = "deeplab-zoo evaluation", "deeplab-zoo evaluation curve"
VERSION = 1
CONFUSIONS = 20  # Of the list of what is taken for what.

# Name in `Scores` -> what people read.
LABELS = {
    "mean_iou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "frequency_weighted_iou": "frequency-weighted IoU",
    "trimap_iou": "trimap IoU",
    "boundary_iou": "boundary IoU",
    "image_iou": "image IoU (not mIoU)",
}


def fields(found: Evaluation) -> dict[str, Any]:
    """Return the evaluation as JSON has it; NaN is null."""
    strict: dict[str, Any] = finite(
        {"format": FORMAT, "version": VERSION, "headline": found.headline, **asdict(found)}
    )
    return strict


def curve_fields(points: Sequence[Evaluation]) -> dict[str, Any]:
    """Return several checkpoints' scores as JSON has them, in the order given."""
    rows = [
        {
            "subject": one.subject,
            "files": dict(one.files),
            "protocol": one.protocol_text,
            "numerics": one.numerics,
            "iou": one.scores.iou,
            **{name: getattr(one.scores, name) for name in LABELS},
        }
        for one in points
    ]
    first = points[0]
    strict: dict[str, Any] = finite(
        {
            "format": CURVE_FORMAT, "version": VERSION, "best": best(points).subject,
            "dataset": first.dataset, "split": first.split, "classes": first.classes,
            "points": rows,
        }
    )  # fmt: skip
    return strict


def best(points: Sequence[Evaluation]) -> Evaluation:
    """Return the checkpoint of the highest mIoU, of equal ones the first."""
    return max(
        points, key=lambda one: -1.0 if math.isnan(m := one.scores.mean_iou) else m
    )  # fmt: skip


def percent(value: float) -> str:
    """Write a ratio in per cent; what is not known is a dash."""
    return "-" if math.isnan(value) else f"{value:.2%}"


def compared(found: Evaluation) -> list[str]:
    """Say what others published, and how far from it this is."""
    lines = []
    for one in found.published:
        apart = 100 * (found.scores.mean_iou - one.mean_iou)
        remark = f"; {one.remark}, so the two do not compare" if one.remark else ""
        lines.append(
            f"{percent(one.mean_iou)} ({one.protocol}; {one.source}{remark}); here {apart:+.2f}"
        )
    return lines


def confusions(found: Evaluation) -> list[tuple[str, str, int, float]]:
    """Return what is most often taken for what: true class, given class, pixels, share of it."""
    rows = [
        (found.classes[true], found.classes[given], pixels, pixels / sum(row))
        for true, row in enumerate(found.confusion)
        for given, pixels in enumerate(row)
        if given != true and pixels
    ]
    return sorted(rows, key=lambda one: -one[2])[:CONFUSIONS]


def markdown(found: Evaluation) -> Iterator[str]:
    """Yield the lines of one evaluation."""
    yield f"# Evaluation: {text(f'{found.subject} on {found.dataset} {found.split}')}"
    yield ""
    yield f"**{found.headline}**"
    yield ""
    if found.foreign:
        yield f"The weights ran under {found.numerics}, by request; it is not their own profile."
        yield ""
    for line in compared(found):
        yield f"Published: {line}"
        yield ""
    yield "| score | value |"
    yield "|---|---:|"
    for name, label in LABELS.items():
        if not math.isnan(value := getattr(found.scores, name)):
            yield row(label, percent(value))
    yield ""
    yield "| class | IoU | accuracy | true pixels |"
    yield "|---|---:|---:|---:|"
    for name, iou, accuracy, counts in zip(
        found.classes, found.scores.iou, found.scores.accuracy, found.confusion, strict=True
    ):
        yield row(name, percent(iou), percent(accuracy), sum(counts))
    yield ""
    yield f"Images judged: {len(found.images)}. Precision: {found.precision}. Files:"
    yield ""
    for name, digest in found.files.items():
        yield f"- {text(name)} sha256 `{digest}`"
    for line in found.skipped:
        yield f"- left out: {text(line)}"


def curve_markdown(points: Sequence[Evaluation]) -> Iterator[str]:
    """Yield the lines of a curve."""
    top = best(points)
    yield f"# Evaluation of {len(points)} checkpoints on {text(f'{top.dataset} {top.split}')}"
    yield ""
    yield f"Best: **{text(top.subject)}**, mIoU {percent(top.scores.mean_iou)}"
    yield f"({top.protocol_text}; {top.numerics})."
    yield ""
    yield f"| checkpoint | {' | '.join(LABELS.values())} |"
    yield f"|---|{'---:|' * len(LABELS)}"
    for one in points:
        yield row(one.subject, *(percent(getattr(one.scores, name)) for name in LABELS))

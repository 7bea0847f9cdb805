"""Evaluations as self-contained pages: `Evaluation` enters, HTML leaves."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..data.legend import Legend
from ..page import picture, plot, render
from .evaluate import Evaluation
from .paint import overlay, palette
from .report import LABELS, best, compared, confusions, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDEST = 480  # Pictures in the page, in pixels.
LARGEST = 40  # Classes, of a confusion matrix that is shown whole.
NAMED = 14  # Checkpoints whose names fit below a plot.
MEAN, PIXEL = "#010204", "#010205"
COLOURS = {MEAN: "var(--ours)", PIXEL: "var(--theirs)"}


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """An image of the report: RGB, true and predicted class ids, and how well they agree."""

    name: str
    iou: float
    photo: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    predicted: NDArray[np.uint8]


def page(found: Evaluation, legend: Legend, shown: Sequence[Shown] = ()) -> str:
    """Return one evaluation's HTML, with the images to look at."""
    table = palette(legend.colours)
    rows = zip(
        found.classes, legend.colours, found.scores.iou, found.scores.accuracy,
        map(sum, found.confusion), strict=True,
    )  # fmt: skip
    return render(
        Path(__file__).with_name("page.html.j2"),
        found.environment,
        found=found,
        labels=LABELS,
        percent=percent,
        rows=[(name, "#{:02x}{:02x}{:02x}".format(*colour), *rest) for name, colour, *rest in rows],
        matrix=_shares(found) if len(found.classes) <= LARGEST else [],
        confusions=confusions(found),
        compared=compared(found),
        shown=[_panels(one, table) for one in shown],
    )


def _shares(found: Evaluation) -> list[tuple[str, list[tuple[int, int, bool]]]]:
    """Return the confusion matrix: by row, pixels, per cent of the row, whether right."""
    return [
        (
            found.classes[true],
            [
                (pixels, round(100 * pixels / max(1, sum(row))), given == true)
                for given, pixels in enumerate(row)
            ],
        )
        for true, row in enumerate(found.confusion)
    ]


def _panels(one: Shown, table: NDArray[np.uint8]) -> dict[str, object]:
    views = [
        ("Picture", one.photo),
        ("Truth", overlay(one.photo, one.truth, table)),
        ("Prediction", overlay(one.photo, one.predicted, table)),
    ]
    return {
        "name": one.name,
        "iou": one.iou,
        "views": [(title, picture(_shrunk(image), "JPEG")) for title, image in views],
    }


def _shrunk(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if image.shape[1] <= WIDEST:
        return image
    height = max(1, round(image.shape[0] * WIDEST / image.shape[1]))
    return np.asarray(Image.fromarray(image).resize((WIDEST, height), Image.Resampling.BOX))


def curve_page(points: Sequence[Evaluation]) -> str:
    """Return the HTML of several checkpoints' scores."""

    def draw(figure: "Figure", axes: "Axes") -> None:
        places = range(len(points))
        for label, colour, name in (
            ("mIoU", MEAN, "mean_iou"),
            ("pixel accuracy", PIXEL, "pixel_accuracy"),
        ):
            values = [100 * getattr(one.scores, name) for one in points]
            axes.plot(places, values, ".-", ms=7, lw=1.5, color=colour, label=label)
        axes.set(ylabel="%")
        named = places[:: math.ceil(len(points) / NAMED)]
        axes.set_xticks(
            named, [points[one].subject for one in named],
            rotation=30 if len(points) > 3 else 0, parse_math=False,
        )  # fmt: skip
        figure.legend(frameon=False, ncols=2, fontsize=10, loc="outside upper left")

    return render(
        Path(__file__).with_name("curve.html.j2"),
        points[-1].environment,
        points=points,
        best=best(points),
        labels=LABELS,
        percent=percent,
        plot=plot(draw, "curve", "Scores of the checkpoints, in their order", COLOURS),
    )

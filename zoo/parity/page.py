"""A parity report as one self-contained page: `ParityReport` enters, HTML leaves."""

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...converters.files import write_text
from ..data.legend import colormap
from ..page import picture
from ..page import plot as draw_plot
from ..page import render as render_page
from .report import Compared, ParityReport, Pictures, exactness, shape_of, share

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OURS, THEIRS, APART, LIMIT = "#010204", "#010205", "#010206", "#010207"
COLOURS = {
    OURS: "var(--ours)",
    THEIRS: "var(--theirs)",
    APART: "var(--apart)",
    LIMIT: "var(--fail)",
}


def write(report: ParityReport, path: Path) -> None:
    """Write the page.

    Raises
    ------
    MissingDependencyError
        Matplotlib is not installed.
    StorageError
        The disk does not let us; what was there before is untouched.

    """
    write_text(path, render(report))


def render(report: ParityReport) -> str:
    """Return the page's HTML."""
    cases = [
        {
            "case": case,
            "failed": case.failures(report.tolerance),
            "plot": plot(case, report.tolerance.relative_l2, f"plot{index}"),
            "pictures": _panels(case.pictures) if case.pictures else [],
        }
        for index, case in enumerate(report.cases)
    ]
    return render_page(
        Path(__file__).with_name("page.html.j2"),
        report.environment,
        report=report,
        cases=cases,
        shape_of=shape_of,
        exactness=exactness,
        share=share,
    )


def plot(case: Compared, limit: float, identity: str) -> str:
    """Draw every blob's distance by its place in the network, as SVG."""

    def draw(figure: "Figure", axes: "Axes") -> None:
        depth = range(1, len(case.comparisons) + 1)
        series = (
            ("apart", APART, [one.relative_l2 for one in case.comparisons]),
            ("ours, from exact", OURS, [one.ours_exact for one in case.comparisons]),
            ("reference, from exact", THEIRS, [one.reference_exact for one in case.comparisons]),
        )
        for label, colour, values in series:
            if any(value is not None for value in values):
                axes.semilogy(depth, _shown(values), ".-", ms=3, lw=1, color=colour, label=label)
        lost = [at for at, one in enumerate(case.comparisons, 1) if not isfinite(one.relative_l2)]
        if lost:
            high = [0.97] * len(lost)  # Of the axis; they have no place on it.
            place = axes.get_xaxis_transform()
            axes.plot(lost, high, "x", ms=5, color=LIMIT, label="no number", transform=place)
        drawn = [value for *_, values in series for value in values if value and isfinite(value)]
        drawn += [limit] if limit else []
        axes.set_ylim(min(drawn, default=1e-8) / 3, 3 * max(drawn, default=1.0))
        if limit:
            axes.axhline(limit, color=LIMIT, lw=1, ls="--", label=f"tolerance {limit:g}")
        axes.locator_params("x", integer=True)
        axes.set(xlabel="blob, in the network's order", ylabel="relative L2")
        figure.legend(frameon=False, ncols=5, fontsize=10, loc="outside upper left")

    title = "Distance of every blob from the reference's, by depth, on a logarithmic axis"
    return draw_plot(draw, identity, title, COLOURS)


def _shown(values: Sequence[float | None]) -> list[float]:
    return [value or np.nan for value in values]  # A logarithmic axis has no zero.


def _panels(pictures: Pictures) -> list[dict[str, str]]:
    """Return the pictures of a case with what they show."""
    colours = np.array(colormap(256), np.uint8)
    size = pictures.ours.shape if pictures.image is None else pictures.image.shape[:2]
    panels = []
    if pictures.image is not None:
        panels.append(("Input", pictures.image))
    panels.append(("Our prediction", _grown(colours[pictures.ours % 256], size)))
    if pictures.ours.shape == pictures.reference.shape:
        panels.append(
            ("The reference's prediction", _grown(colours[pictures.reference % 256], size))
        )
        differ = pictures.ours != pictures.reference
        shades = np.where(differ[..., None], (214, 39, 40), (235, 235, 235)).astype(np.uint8)
        count = int(differ.sum())
        panels.append((f"Difference: {count} of {differ.size} pixels", _grown(shades, size)))
    return [{"title": title, "address": picture(image)} for title, image in panels]


def _grown(image: NDArray[np.uint8], size: Sequence[int]) -> NDArray[np.uint8]:
    """Enlarge by nearest neighbours to about a picture's size."""
    rows, columns = (
        np.arange(target) * source // target
        for target, source in zip(size, image.shape[:2], strict=True)
    )
    grown: NDArray[np.uint8] = image[rows][:, columns]
    return grown

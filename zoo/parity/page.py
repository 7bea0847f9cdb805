"""A parity report as one self-contained page: `ParityReport` enters, HTML leaves.

The page needs no network. The plot is Matplotlib's SVG with colours that follow the page's,
light or dark; pictures are PNG inside it.
"""

import base64
import io
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...converters.files import replacing
from ...proto.errors import MissingDependencyError
from .report import Compared, ParityReport, Pictures, exactness, shape_of, share

INK, OURS, THEIRS, APART, LIMIT = "#010203", "#010204", "#010205", "#010206", "#010207"
COLOURS = {
    INK: "var(--ink)",
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
    text = render(report)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def render(report: ParityReport) -> str:
    """Return the page's HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    cases = [
        {
            "case": case,
            "failed": case.failures(report.tolerance),
            "plot": plot(case, report.tolerance.relative_l2, f"plot{index}"),
            "pictures": _panels(case.pictures) if case.pictures else [],
        }
        for index, case in enumerate(report.cases)
    ]
    return environment.get_template("page.html.j2").render(
        report=report, cases=cases, shape_of=shape_of, exactness=exactness, share=share
    )


def plot(case: Compared, limit: float, identity: str) -> str:
    """Draw every blob's distance by its place in the network, as SVG."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError(
            "Matplotlib is not installed, which the page's plots need. Install it: "
            "pip install 'deeplab-zoo[parity]'."
        ) from None
    settings: Any = {
        "svg.fonttype": "none", "svg.hashsalt": identity, "font.size": 11,
        "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK,
        "xtick.color": INK, "ytick.color": INK, "font.family": "sans-serif",
    }  # fmt: skip
    with mpl.rc_context(settings):
        figure = Figure((9, 3.4), layout="constrained")
        axes = figure.subplots()
        depth = range(len(case.comparisons))
        series = (
            ("apart", APART, [one.relative_l2 for one in case.comparisons]),
            ("ours, from exact", OURS, [one.ours_exact for one in case.comparisons]),
            ("reference, from exact", THEIRS, [one.reference_exact for one in case.comparisons]),
        )
        for label, colour, values in series:
            if any(value is not None for value in values):
                axes.semilogy(depth, _shown(values), ".-", ms=3, lw=1, color=colour, label=label)
        if limit:
            axes.axhline(limit, color=LIMIT, lw=1, ls="--", label=f"tolerance {limit:g}")
        axes.set(xlabel="blob, in the network's order", ylabel="relative L2")
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(frameon=False, ncols=4, fontsize=10, loc="outside upper left")
        figure.patch.set_alpha(0)
        axes.patch.set_alpha(0)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return _inlined(text.getvalue(), identity)


def _shown(values: Sequence[float | None]) -> list[float]:
    return [value or np.nan for value in values]  # A logarithmic axis has no zero.


def _inlined(svg: str, identity: str) -> str:
    """Return SVG for inside a page: its colours the page's, its names its own."""
    svg = re.sub(r"(?s)<metadata>.*?</metadata>", "", svg[svg.index("<svg") :])
    for colour, name in COLOURS.items():
        svg = svg.replace(colour, name)
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{identity}-", svg)
    title = "Distance of every blob from the reference's, by depth, on a logarithmic axis"
    svg = re.sub(r'width="[^"]+" height="[^"]+" ', "", svg, count=1)
    return svg.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)


def _panels(pictures: Pictures) -> list[dict[str, str]]:
    """Return the pictures of a case with what they show."""
    colours = palette()
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
    return [{"title": title, "png": _png(image)} for title, image in panels]


def _grown(image: NDArray[np.uint8], size: Sequence[int]) -> NDArray[np.uint8]:
    """Enlarge by nearest neighbours to about a picture's size."""
    rows, columns = (
        np.arange(target) * source // target
        for target, source in zip(size, image.shape[:2], strict=True)
    )
    grown: NDArray[np.uint8] = image[rows][:, columns]
    return grown


def _png(image: NDArray[np.uint8]) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


@cache
def palette() -> NDArray[np.uint8]:
    """Return PASCAL VOC's 256 colours: the bits of a class spread over red, green and blue."""
    colours = np.zeros((256, 3), np.uint8)
    for index in range(256):
        for bit in range(8):
            for channel in range(3):
                colours[index, channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
    return colours

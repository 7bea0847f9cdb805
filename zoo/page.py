"""Templates and what they show become one self-contained page, for every report.

A page needs no network. Plots are Matplotlib's SVG with colours that follow the page's, light
or dark; pictures are inside it.
"""

import base64
import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..proto.errors import MissingDependencyError

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

INK = "#010203"  # What a plot's text and axes are drawn in.


def render(template: Path, environment: Mapping[str, str], **shown: Any) -> str:
    """Fill a template, of a report one that extends ``base.html.j2``; everything is escaped.

    ``environment`` is the versions of what took part in a report.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loaded = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return loaded.get_template(template.name).render(environment=environment, **shown)


def demand_matplotlib() -> None:
    """Raise `MissingDependencyError` where plots cannot be drawn; to be told before long work."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingDependencyError(
            "Matplotlib is not installed, which the page's plots need. Install it: "
            "pip install 'deeplab-zoo[parity]'."
        ) from None


def plot(
    draw: "Callable[[Figure, Axes], None]", identity: str, title: str, colours: Mapping[str, str]
) -> str:
    """Return what ``draw`` draws as SVG for inside a page.

    ``identity`` keeps its names apart from other plots'. ``colours`` are those that are drawn
    in, with the page's names for them.
    """
    demand_matplotlib()
    import matplotlib as mpl
    from matplotlib.figure import Figure

    settings: Any = {
        "svg.fonttype": "none", "svg.hashsalt": identity, "font.size": 11,
        "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK,
        "xtick.color": INK, "ytick.color": INK, "font.family": "sans-serif",
    }  # fmt: skip
    with mpl.rc_context(settings):
        figure = Figure((9, 3.4), layout="constrained")
        axes = figure.subplots()
        draw(figure, axes)
        axes.spines[["top", "right"]].set_visible(False)
        figure.patch.set_alpha(0)
        axes.patch.set_alpha(0)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return _inlined(text.getvalue(), identity, title, {INK: "var(--ink)", **colours})


def _inlined(svg: str, identity: str, title: str, colours: Mapping[str, str]) -> str:
    """Return SVG for inside a page: its colours the page's, its names its own."""
    svg = re.sub(r"(?s)<metadata>.*?</metadata>", "", svg[svg.index("<svg") :])
    for colour, name in colours.items():
        svg = svg.replace(colour, name)
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{identity}-", svg)
    svg = re.sub(r'width="[^"]+" height="[^"]+" ', "", svg, count=1)
    return svg.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)


def picture(image: "NDArray[np.uint8]", kind: Literal["PNG", "JPEG"] = "PNG") -> str:
    """Return a picture as the address of an image in the page; JPEG is for photos."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, optimize=True, quality=85)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"

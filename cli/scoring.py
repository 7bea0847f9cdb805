"""The options that say how images are scored, for the commands that run a network."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import click

if TYPE_CHECKING:
    from ..zoo.evaluation.evaluate import Work
    from ..zoo.evaluation.protocol import Protocol


class Scoring(TypedDict):
    """What the options of `scoring_options` pass on."""

    size: int | None
    scales: tuple[float, ...]
    flip: bool
    average: Literal["scores", "probabilities"]
    window: int
    overlap: float
    crf: bool
    crf_parameters: dict[str, float]
    precision: Literal["fp32", "bf16"] | None
    optimize: bool
    compile: bool
    batch_size: int


def _size(_: click.Context, __: click.Parameter, value: str) -> int | None:
    if value in ("profile", "original"):
        return None if value == "profile" else 0
    if not value.isdecimal():
        raise click.BadParameter(f"{value!r}, expected profile, original or a number of pixels.")
    return int(value)


def _scales(_: click.Context, __: click.Parameter, value: str) -> tuple[float, ...]:
    try:
        return tuple(float(one) for one in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r}, expected numbers such as 0.75,1,1.25.") from None


def parameters(_: click.Context, __: click.Parameter, value: str) -> dict[str, float]:
    """Read ``NAME=X,...``."""
    try:
        pairs = [one.split("=") for one in value.split(",") if one]
        read = {name.strip(): float(number) for name, number in pairs}
    except ValueError:
        raise click.BadParameter(f"{value!r}, expected NAME=X,... with numbers.") from None
    if len(read) < len(pairs):
        raise click.BadParameter(f"{value!r}, expected each name once.")
    return read


OPTIONS = (
    click.option("--size", default="profile", show_default=True, callback=_size, metavar="SIDE",
                 help="Pad images to it: profile (as the weights' authors), original, or pixels."),
    click.option("--scales", default="1", show_default=True, callback=_scales, metavar="X,Y,...",
                 help="Score the image at these, and average."),
    click.option("--flip", is_flag=True, help="Score the mirrored image too."),
    click.option("--average", type=click.Choice(["scores", "probabilities"]), default="scores",
                 show_default=True, help="What is averaged."),
    click.option("--window", type=click.IntRange(0), default=0, metavar="SIDE",
                 help="Score larger images in windows of this side."),
    click.option("--overlap", type=click.FloatRange(0, 1, max_open=True), default=1 / 3,
                 show_default="a third", help="Share of a window that the next one covers too."),
    click.option("--crf", is_flag=True, help="Refine with a fully connected CRF."),
    click.option("--crf-parameters", default="", callback=parameters, metavar="NAME=X,...",
                 help="iterations, pos_w, pos_xy, bi_w, bi_xy, bi_rgb; implies --crf."),
    click.option("--numerics", metavar="PROFILE", help="Of a file that does not record its own."),
    click.option("--evaluate-as", metavar="PROFILE",
                 help="Run the weights under another profile than their own."),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1."),
    click.option("--precision", type=click.Choice(["fp32", "bf16"]),
                 help="Of the network's arithmetic; fp32, or with --optimize the quicker one."),
    click.option("--optimize", is_flag=True, help="Fold and lay out the network for inference."),
    click.option("--compile", is_flag=True, help="And compile it: pays off over many images."),
    click.option("--batch-size", type=click.IntRange(1), default=1, show_default=True,
                 help="Neighbours of one size that are scored together."),
)  # fmt: skip


def scoring_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command, which takes those of `Scoring` as ``**scoring``."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def protocol_of(scoring: Scoring) -> "Protocol":
    """Return the protocol that the options mean."""
    from ..zoo.evaluation.protocol import Protocol, crf_of

    wanted = scoring["crf"] or scoring["crf_parameters"]
    return Protocol(
        scoring["size"],
        scoring["scales"],
        scoring["flip"],
        scoring["average"],
        scoring["window"],
        scoring["overlap"],
        crf_of(scoring["crf_parameters"]) if wanted else None,
    )


def work_of(
    scoring: Scoring, progress: Callable[[int, int], None] | None, workers: int = 0
) -> "Work":
    """Return how the options want the work done."""
    from ..zoo.evaluation.evaluate import Work

    optimize: Literal["inference", "compiled"] | None = None
    if scoring["optimize"] or scoring["compile"]:
        optimize = "compiled" if scoring["compile"] else "inference"
    return Work(scoring["precision"], scoring["batch_size"], workers, progress, optimize)

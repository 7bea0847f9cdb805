"""``deeplab-zoo parity``: is this model the same function as its original?"""

import time
from pathlib import Path

import click
from click.core import ParameterSource

from .show import as_json, sides


@click.command()
@click.argument("files", nargs=-1, metavar="MODEL SOURCE...")
@click.option(
    "-o",
    "--output",
    default="parity",
    show_default=True,
    metavar="FOLDER",
    help="Where report.html, report.md and report.json go.",
)
@click.option(
    "--engine",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="The reference: auto, pycaffe, opencv, tensorflow, float64.",
)
@click.option(
    "--recorded",
    metavar="FILE",
    help="Activations recorded elsewhere (.npz, .h5) are the reference.",
)
@click.option(
    "--size",
    "sizes",
    multiple=True,
    metavar="HxW",
    help="Compare at a photo of this size; repeat for more.",
)
@click.option("--image", "images", multiple=True, metavar="FILE", help="Compare at this picture.")
@click.option("--device", default="cpu", show_default=True, help="Of our side: cpu, cuda, cuda:1.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16"]),
    default="fp32",
    show_default=True,
    help="Of our side.",
)
@click.option("--optimize", is_flag=True, help="Our side as predict --optimize runs it.")
@click.option("--tolerance", metavar="NAME", help="exact, fp32, bf16; default: the precision's.")
@click.option("--exact/--no-exact", default=True, help="Each side's own error, by float64.")
@click.option(
    "--solver",
    metavar="FOLDER",
    help="Do the updates again that Caffe's solver did there, in place of a forward pass.",
)
@click.option("--diagnose", is_flag=True, help="Find the convention that explains a difference.")
@click.option("--numerics", metavar="PROFILE", help="Of files that do not record theirs.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the drawn inputs."
)
@click.option("--json", "json_", is_flag=True, help="Print the report as JSON.")
@click.pass_context
def parity(
    ctx: click.Context,
    files: tuple[str, ...],
    output: str,
    engine: str,
    recorded: str | None,
    sizes: tuple[str, ...],
    images: tuple[str, ...],
    device: str,
    precision: str,
    optimize: bool,
    tolerance: str | None,
    exact: bool,
    solver: str | None,
    diagnose: bool,
    numerics: str | None,
    seed: int,
    json_: bool,
) -> None:
    """Compare every blob of a converted model with what its source computes.

    MODEL is what a conversion wrote; SOURCE what it was made of: [PROTOTXT] CAFFEMODEL, a
    TensorFlow checkpoint, another program's file, or an .onnx. A prototxt and a caffemodel
    alone check the generic graph engine. Exit code 9 if the two differ.

    \b
    deeplab-zoo parity x.safetensors deploy.prototxt x.caffemodel --diagnose
    deeplab-zoo parity x.safetensors model.ckpt-20000
    deeplab-zoo parity x.safetensors --recorded activations.npz
    deeplab-zoo parity --solver train_step/msc --device cuda
    """
    from ..converters.files import folder_for
    from ..proto.errors import ParityError

    if bool(files) == bool(solver):
        raise click.UsageError("expected MODEL SOURCE... or --solver FOLDER.")
    if solver:
        _demand_only(ctx, "solver", "output", "device")
    wanted = [sides(size) for size in sizes]
    folder = folder_for(Path(output))
    started = time.monotonic()

    def progress(text: str) -> None:
        click.echo(f"[{time.monotonic() - started:6.1f} s] {text}", err=True)

    progress("loading PyTorch")
    if solver:
        _replay(Path(solver), folder, device)
        return
    from ..zoo.page import demand_matplotlib
    from ..zoo.parity import page, report
    from ..zoo.parity.job import parity as run

    demand_matplotlib()
    found = run(
        *files,
        recorded_blobs=recorded,
        engine=engine,
        sizes=wanted,
        images=images,
        device=device,
        precision=precision,
        optimize=optimize,
        tolerance=tolerance,
        exact=exact,
        diagnose=diagnose,
        numerics=numerics,
        seed=seed,
        progress=progress,
    )
    progress("writing the report")
    page.write(found, folder / "report.html")  # The largest first, should the disk be full.
    report.write_markdown(found, folder / "report.md")
    report.write_json(found, folder / "report.json")
    if json_:
        click.echo(as_json(report.fields(found)))
    else:
        for note in found.notes:
            click.echo(f"note: {note}", err=True)
        click.echo(click.style(found.verdict, fg="green" if found.passed else "red", bold=True))
        if found.diagnosis:
            click.echo(found.diagnosis.sentence)
        click.echo(f"Report: {folder / 'report.html'}")
    if not found.passed:
        raise ParityError("the model is not shown to be the function that the reference computes.")


def _demand_only(ctx: click.Context, *names: str) -> None:
    """Raise `UsageError` for options besides these."""
    given = [
        one.opts[-1]
        for one in ctx.command.params
        if one.name not in names
        and ctx.get_parameter_source(str(one.name)) is ParameterSource.COMMANDLINE
    ]
    if given:
        raise click.UsageError(f"{', '.join(given)}: not with --{names[0]}.")


def _replay(source: Path, folder: Path, device: str) -> None:
    """Compare updates of the weights with Caffe's."""
    from ..proto.errors import ParityError
    from ..zoo.training.replay import replay, write_report

    steps = replay(source, device)
    write_report(steps, source, folder)
    for one in steps:
        click.echo(
            f"update {one.number}: losses differ by {one.loss_error:.1e}, "
            f"weights by {one.weight_error:.1e}"
        )
    click.echo(f"Report: {folder / 'solver.md'}")
    if not all(one.passed for one in steps):
        raise ParityError("these are not the updates that Caffe's solver does.")

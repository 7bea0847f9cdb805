"""``deeplab-zoo demo``: the main job on built-in input."""

import time
from pathlib import Path

import click

# What the table shows; the report has every blob.
LANDMARKS = (
    "conv1", "pool1", "res2c", "res3b3", "res4b22", "res5c", "res5c_res075", "res5c_res05",
    "fc1_voc12", "fc1_voc12_res075", "fc1_voc12_res05", "fc_fusion", "fc1_interp",
)  # fmt: skip


@click.command()
@click.option(
    "-o",
    "--output",
    default="deeplab-zoo-demo",
    show_default=True,
    metavar="FOLDER",
    help="Where the files and the report go.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Of the weights and the picture.",
)
def demo(output: str, seed: int) -> None:
    """Make a narrow DeepLab-ResNet-101 caffemodel, convert it, prove it unchanged, and train it.

    Every blob of the converted model is compared with OpenCV's own Caffe engine reading the
    same files; then it is fine-tuned with ce+lovasz on drawn shapes. Needs no network; exit code
    9 if the two disagree.
    """
    from ..converters.files import folder_for
    from ..proto.errors import ParityError

    folder = folder_for(Path(output))
    started = time.monotonic()
    click.echo("loading PyTorch and OpenCV ...", err=True)
    from ..zoo import demo as job
    from ..zoo.parity.report import table

    report = None
    for step in job.run(folder, seed):
        click.echo(f"[{time.monotonic() - started:5.1f} s] {step.text}: {step.path}", err=True)
        report = step.report or report
    if report is None:
        raise ParityError("the demo ended without a report.")
    click.echo("")
    for line in table(report.cases[0], iter(LANDMARKS)):
        click.echo(line)
    click.echo("")
    click.echo(click.style(report.verdict, fg="green" if report.passed else "red", bold=True))
    click.echo(f"Every blob: {folder / 'report.html'}")
    click.echo(f"Use it:     deeplab_zoo.load({str(folder / 'narrow.safetensors')!r})")
    if not report.passed:
        raise ParityError("the converted model is not the function that OpenCV computes.")

"""``deeplab-zoo evaluate``: how good is this model on these images?"""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Unpack

import click

from .dataset import Given, dataset_options, open_given
from .scoring import Scoring, protocol_of, scoring_options, work_of
from .show import as_json, counter


class Options(Given, Scoring):
    """What comes from the shared options."""


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--data", required=True, metavar="PATH", help="The dataset: a folder or a list.")
@click.option("--split", default="val", show_default=True, help="List; train+val joins two.")
@dataset_options
@click.option(
    "-o", "--output", default="evaluation", show_default=True, metavar="FOLDER",
    help="Where report.html, report.md and report.json go.",
)  # fmt: skip
@click.option(
    "--overwrite", is_flag=True, help="Replace the reports and the submission that are there."
)
@scoring_options
@click.option(
    "--centre-crop", type=click.IntRange(0), default=0, metavar="SIDE",
    help="Judge the middle square of this side, to which the shorter side is resized.",
)  # fmt: skip
@click.option("--binary", metavar="CLASS", help="Judge this class against the rest.")
@click.option("--by-sign", is_flag=True, help="With --binary: where its score is above 0.")
@click.option(
    "--trimap", type=click.IntRange(0), default=10, show_default=True, metavar="PIXELS",
    help="Also judge what is this near to a boundary; 0: do not.",
)  # fmt: skip
@click.option("--boundary/--no-boundary", default=True, help="Also compute boundary IoU.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Take the first N images.")
@click.option("--skip-bad", is_flag=True, help="Leave out images that cannot be read.")
@click.option("--workers", type=click.IntRange(0), default=0, show_default=True, help="Decoders.")
@click.option("--submission", metavar="FILE.tgz", help="Also write what VOC's server takes.")
@click.option(
    "--competition", type=click.Choice(["comp5", "comp6"]), default="comp6", show_default=True,
    help="comp5: trained on VOC alone.",
)  # fmt: skip
@click.option("--json", "json_", is_flag=True, help="Print the report as JSON.")
def evaluate(
    models: tuple[str, ...], data: str, split: str, output: str, overwrite: bool,
    numerics: str | None, evaluate_as: str | None, device: str, centre_crop: int,
    binary: str | None, by_sign: bool, trimap: int, boundary: bool, limit: int | None,
    skip_bad: bool, workers: int, submission: str | None, competition: str, json_: bool,
    **options: Unpack[Options],
) -> None:  # fmt: skip
    """Score every image of a dataset and report mIoU.

    MODEL is a converted weights file, or an entry of the registry; several, or a quoted glob,
    give the curve over training. One confusion matrix over the whole set, at the images'
    original size unless cropped, void left out. Under torchrun the processes share the images.

    \b
    deeplab-zoo evaluate x.safetensors --data VOCdevkit/VOC2012
    deeplab-zoo evaluate "run/iter_*.safetensors" --data camvid --split val
    deeplab-zoo evaluate x.safetensors --data VOC2012 --split test --submission results.tgz
    """
    from ..zoo.data.dataset import binarise
    from ..zoo.data.legend import class_id
    from ..zoo.data.scan import check, demand_sound, sound
    from ..zoo.evaluation import job
    from ..zoo.evaluation.evaluate import Judge
    from ..zoo.evaluation.processes import is_first, together
    from ..zoo.evaluation.report import curve_fields, fields

    files = job.checkpoints(models)
    dataset = open_given(data, split, options)
    protocol = replace(protocol_of(options), crop=centre_crop)
    judge = Judge(trimap=trimap, boundary=boundary)
    if by_sign and not binary:
        raise click.UsageError("--by-sign goes with --binary.")
    if binary:
        judge = replace(judge, wanted=class_id(dataset.legend, binary), by_sign=by_sign)
        dataset = binarise(dataset, binary)
    name = Path(data).resolve().name  # What people call it; a layout is no name.
    dataset = replace(dataset, name=name, samples=dataset.samples[:limit])
    with ExitStack() as stack:
        where = stack.enter_context(together(device))
        first = is_first()

        def say(text: str) -> None:
            if first:
                click.echo(text, err=True)

        if submission:
            archive = job.submitting(
                Path(submission), files, dataset, competition, overwrite=overwrite
            )
            judge = replace(judge, keep=stack.enter_context(archive))
        say(f"checking {len(dataset.samples)} samples")
        scanned = check(dataset, progress=counter("checked") if first else None)
        if skip_bad:
            dataset, _ = sound(scanned)
            for problem in scanned.problems:
                say(f"left out: {problem}")
        else:
            demand_sound(scanned)
        points = job.evaluate_files(
            files, dataset, Path(output), protocol, judge,
            work_of(options, counter("scored") if first else None, workers), where,
            numerics=numerics, evaluate_as=evaluate_as, overwrite=overwrite,
            skipped=scanned.problems if skip_bad else (),
            say=say,
        )  # fmt: skip
    if not first:
        return
    if submission:
        click.echo(f"Submission: {submission}", err=json_)
    if not points:
        return
    if json_:
        click.echo(as_json(fields(points[0]) if len(points) == 1 else curve_fields(points)))
        return
    for one in points:
        click.echo(f"{one.subject}: {one.headline}")
    page = "report.html" if len(points) == 1 else "curve.html"
    click.echo(f"Report: {Path(output) / page}")

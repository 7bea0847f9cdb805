"""``deeplab-zoo predict``: photos become masks."""

import sys
from pathlib import Path
from typing import Unpack

import click

from .scoring import Scoring, parameters, protocol_of, scoring_options, work_of
from .show import counter


@click.command()
@click.argument("model")
@click.argument("images", nargs=-1, required=True)
@click.option(
    "-o", "--output", default="predictions", show_default=True, metavar="FOLDER",
    help="Where the results go, under the images' names.",
)  # fmt: skip
@click.option("--mask/--no-mask", default=True, help="NAME.png: class ids, with a palette.")
@click.option("--colour", is_flag=True, help="NAME-colour.png: the classes' colours.")
@click.option("--overlay", is_flag=True, help="NAME-overlay.png: the colours over the photo.")
@click.option(
    "--probabilities", type=click.Choice(["npz", "npy"]),
    help="NAME-probabilities: float32 (classes, height, width).",
)  # fmt: skip
@click.option(
    "--heatmap", type=click.Choice(["densecrf"]),
    help="NAME-heatmap.png: where this loss pulls, class by class; NAME-gradients.npy: numbers.",
)  # fmt: skip
@click.option(
    "--heatmap-parameters", default="", callback=parameters, metavar="NAME=X,...",
    help="sigma_rgb, sigma_xy, scale; implies --heatmap densecrf.",
)  # fmt: skip
@click.option("--classes", help="Whose colours: voc, camvid, ...; or a file of names and colours.")
@scoring_options
@click.option("--overwrite", is_flag=True, help="Replace results that are there.")
@click.option("--skip-bad", is_flag=True, help="Go on after an image that cannot be read.")
def predict(
    model: str, images: tuple[str, ...], output: str, mask: bool, colour: bool, overlay: bool,
    probabilities: str | None, heatmap: str | None, heatmap_parameters: dict[str, float],
    classes: str | None, numerics: str | None,
    evaluate_as: str | None, device: str, overwrite: bool, skip_bad: bool,
    **scoring: Unpack[Scoring],
) -> None:  # fmt: skip
    """Segment IMAGES: files, folders, globs, or - for a list on standard input.

    Results have the size of their image, and a folder's results its folders. Under torchrun the
    processes share the images.

    \b
    deeplab-zoo predict x.safetensors photo.jpg
    deeplab-zoo predict x.safetensors photos/ -o masks --overlay
    find . -name "*.jpg" | deeplab-zoo predict x.safetensors - --no-mask --probabilities npz
    """
    chosen = {"mask": mask, "colour": colour, "overlay": overlay}
    kinds = [kind for kind, wanted in chosen.items() if wanted]
    kinds += [probabilities] if probabilities else []
    kinds += ["heatmap", "gradients"] if heatmap or heatmap_parameters else []
    if not kinds:
        raise click.UsageError("nothing to write: --no-mask needs another kind of result.")

    from ..zoo.evaluation import inputs
    from ..zoo.evaluation import predict as job
    from ..zoo.evaluation.heatmap import reach_of
    from ..zoo.evaluation.network import open_network
    from ..zoo.evaluation.processes import is_first, together

    reach = reach_of(heatmap_parameters)
    found = inputs.find(images, sys.stdin)
    with together(device) as where:
        first = is_first()
        work = work_of(scoring, counter("segmented") if first else None)
        network = open_network(model, where, numerics, evaluate_as, work.optimize, work.precision)
        done = job.predict(
            network, found, Path(output), protocol_of(scoring), work,
            kinds=kinds, legend=job.legend_for(network.config.classes, classes),
            reach=reach, overwrite=overwrite, skip_bad=skip_bad,
        )  # fmt: skip
    if not first:
        return
    for problem in done.skipped:
        click.echo(f"left out: {problem}", err=True)
    click.echo(f"wrote {len(done.written)} files to {output}")
    if done.skipped:
        click.echo(f"{len(done.skipped)} of {len(found)} images could not be read", err=True)

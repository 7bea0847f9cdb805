"""``deeplab-zoo labels``: are the masks what a training expects, and how to make them so."""

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from .dataset import Given, dataset_options, open_given
from .show import as_json, counter

if TYPE_CHECKING:
    from ..zoo.data.scan import Report


OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace files that are there.")


@click.group()
def labels() -> None:
    """Check and convert the masks of a dataset, or make scribbles of them."""


@labels.command()
@click.argument("path")
@click.option("--split", default="train", show_default=True, help="List; train+val joins two.")
@dataset_options
@click.option(
    "--threads", type=click.IntRange(1), default=4, show_default=True, help="That decode."
)
@click.option("--json", "json_", is_flag=True, help="Print as JSON.")
def check(path: str, split: str, threads: int, json_: bool, **given: Unpack[Given]) -> None:
    """Decode every picture and mask of the dataset at PATH and say what is in them.

    Prints the histogram of the labels. Missing files, damage, sizes that differ and labels out
    of range are listed, all of them, and the exit code is then 3.
    """
    from ..zoo.data.scan import check as scan
    from ..zoo.data.scan import demand_sound

    report = scan(open_given(path, split, given), threads, counter("checked"))
    if json_:
        click.echo(as_json(_fields(report)))
    else:
        _print(report)
    demand_sound(report)


def _fields(report: "Report") -> dict[str, object]:
    names = report.dataset.legend.names
    return {
        "layout": report.dataset.name,
        "split": report.dataset.split,
        "samples": len(report.dataset.samples),
        "pixels": dict(zip(names, report.pixels, strict=True)),
        "images": dict(zip(names, report.images(), strict=True)),
        "unjudged": report.unjudged,
        "problems": list(report.problems),
    }


def _print(report: "Report") -> None:
    dataset, total = report.dataset, sum(report.pixels)
    click.echo(f"{dataset.name} {dataset.split}: {len(dataset.samples)} samples")
    click.echo(f"  {'class':<24} {'pixels':>14} {'share':>8} {'samples':>8}")
    rows = zip(dataset.legend.names, report.pixels, report.images(), strict=True)
    for number, (name, pixels, images) in enumerate(rows):
        share = pixels / total if total else 0
        click.echo(f"  {f'{number} {name}':<24} {pixels:>14,} {share:>8.3%} {images:>8}")
    click.echo(f"  {'void':<24} {report.unjudged:>14,}")


@labels.command()
@click.argument("source")
@click.argument("target")
@click.option(
    "--classes", default="voc", show_default=True,
    help="Whose values and colours: voc, camvid, cityscapes-ids, ...; or a file of names.",
)  # fmt: skip
@click.option(
    "--from", "kind", type=click.Choice(["auto", "grey"]), default="auto", show_default=True,
    help="grey: SOURCE is a grey picture of colour masks.",
)  # fmt: skip
@OVERWRITE
def convert(source: str, target: str, classes: str, kind: str, overwrite: bool) -> None:
    """Rewrite masks as class ids, one grey byte per pixel.

    SOURCE is a mask or a folder of them: with a palette, in colours, or SBD's .mat. TARGET is the
    file or the folder to write.
    """
    from ..zoo.data.convert_masks import convert_masks
    from ..zoo.data.legend import find_legend

    written = convert_masks(
        Path(source), Path(target), find_legend(classes), grey=kind == "grey",
        overwrite=overwrite, progress=counter("converted"),
    )  # fmt: skip
    click.echo(f"wrote {len(list(written))} masks to {target}")


@labels.command()
@click.argument("source", metavar="INSTANCES.json")
@click.argument("target", metavar="FOLDER")
@click.option(
    "--classes", default="all", show_default=True,
    help="all: every category; voc: VOC's 20; or a file of names, the first of them background.",
)  # fmt: skip
@OVERWRITE
def coco(source: str, target: str, classes: str, overwrite: bool) -> None:
    """Draw COCO's instances as masks of class ids.

    FOLDER gets a mask for every picture that INSTANCES.json names, and classes.txt. Where two
    classes overlap the mask is void. Needs pycocotools (pip install 'deeplab-zoo[coco]').

    \b
    deeplab-zoo labels coco annotations/instances_train2017.json masks --classes voc
    deeplab-zoo finetune x.safetensors coco --images train2017 --labels masks \\
        --classes voc --val-split ''
    """
    from ..zoo.data.coco import convert_instances

    click.echo(f"reading {source}", err=True)
    count = convert_instances(
        Path(source), Path(target), classes, counter("drew"), overwrite=overwrite
    )
    click.echo(f"wrote {count} masks to {target}")


@labels.command()
@click.argument("masks")
@click.argument("out")
@click.option(
    "--share", type=float, default=0.03, show_default=True, help="Of the pixels to draw on, about."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the hand.")
@click.option(
    "--classes", default="voc", show_default=True,
    help="Whose values and colours: voc, camvid, cityscapes-ids, ...; or a file of names.",
)  # fmt: skip
@click.option(
    "--workers", type=click.IntRange(0), default=2, show_default=True, help="Processes that draw."
)
@OVERWRITE
def scribble(
    masks: str, out: str, share: float, seed: int, classes: str, workers: int, overwrite: bool
) -> None:
    """Make scribbles of full masks, to try weak supervision with.

    MASKS is a mask or a folder of them, OUT the file or the folder to write. Each region gets a
    stroke along its middle, of its own class; everything else is 255, unlabelled. The same seed
    and file names give the same scribbles.

    \b
    deeplab-zoo labels scribble camvid/labels camvid/scribbles --classes camvid
    deeplab-zoo finetune x.safetensors camvid --labels scribbles --val-labels labels \\
      --recipe rloss-partial --reset-head
    """
    from ..zoo.data.legend import find_legend
    from ..zoo.data.scribbles import scribble_masks

    written = scribble_masks(
        Path(masks), Path(out), find_legend(classes), share=share, seed=seed, workers=workers,
        overwrite=overwrite, progress=counter("drawn"),
    )  # fmt: skip
    click.echo(f"wrote {len(list(written))} masks to {out}")

"""``deeplab-zoo convert``: a foreign file comes home."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .show import as_json, size

if TYPE_CHECKING:
    from ..converters.native import Native


@click.group()
def convert() -> None:
    """Bring a foreign weights file home, as .safetensors, .pth or an HDF5 archive."""


@convert.command()
@click.argument("prototxt_and_caffemodel", nargs=-1, required=True, metavar="[PROTOTXT] CAFFEMODEL")
@click.option(
    "-o", "--output", required=True, metavar="OUT", help="Result: .safetensors, .pth or .h5."
)
@click.option("--hdf5", metavar="KEEP.h5", help="Keep the intermediate archive too.")
@click.option("--num-classes", type=int, metavar="N", help="Classes the head must have (or gets).")
@click.option("--reset-head", is_flag=True, help="Start the classifier afresh (gaussian 0.01).")
@click.option("--seed", type=int, default=0, show_default=True, help="Of a fresh classifier.")
@click.option(
    "--strict/--lenient",
    default=True,
    show_default=True,
    help="Refuse fields that Caffe and its known forks do not have, or list them and go on.",
)
@click.option("--json", "json_", is_flag=True, help="Print the account as JSON.")
def caffe(
    prototxt_and_caffemodel: tuple[str, ...],
    output: str,
    hdf5: str | None,
    num_classes: int | None,
    reset_head: bool,
    seed: int,
    strict: bool,
    json_: bool,
) -> None:
    """Convert a Caffe DeepLab v2 to PyTorch.

    CAFFEMODEL is a .caffemodel of any age or a .caffemodel.h5. PROTOTXT may be left out when
    the weights file carries the graph.

    \b
    deeplab-zoo convert caffe deploy.prototxt x.caffemodel -o x.safetensors
    deeplab-zoo convert caffe init.caffemodel -o init.pth --reset-head --num-classes 11
    """
    if len(prototxt_and_caffemodel) > 2:
        raise click.UsageError(
            f"{len(prototxt_and_caffemodel)} files, expected [PROTOTXT] CAFFEMODEL."
        )
    from ..converters.convert import convert_caffe

    *prototxt, caffemodel = prototxt_and_caffemodel
    native = convert_caffe(
        prototxt[0] if prototxt else None,
        caffemodel,
        output,
        keep_hdf5=hdf5,
        num_classes=num_classes,
        reset_head=reset_head,
        seed=seed,
        strict=strict,
    )
    written = [Path(output), *([Path(hdf5)] if hdf5 else [])]
    if json_:
        click.echo(as_json(_account(native, written)))
    else:
        _print(native, written)


def _account(native: "Native", written: list[Path]) -> dict[str, object]:
    return {
        "written": [str(path) for path in written],
        "config": native.weights.config.to_json(),
        "numerics": native.weights.numerics.name,
        "origin": dict(native.weights.origin.files),
        "tensors": {name: list(places) for name, places in native.conversion.sources.items()},
        "dropped": [list(pair) for pair in native.conversion.dropped],
        "fresh": list(native.fresh),
        "notes": list(native.notes),
    }


def _print(native: "Native", written: list[Path]) -> None:
    config = native.weights.config
    form = "multi-scale" if len(config.scales) > 1 else "single-scale"
    for note in native.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(
        f"DeepLab v2, blocks {config.blocks}, {config.classes} classes, {form}, "
        f"numerics {native.weights.numerics.name}"
    )
    click.echo(f"  {len(native.conversion.state):5d} tensors converted, bit-exact")
    for reason, count in Counter(reason for _, reason in native.conversion.dropped).items():
        click.echo(f"  {count:5d} left behind: {reason}")
    if native.fresh:
        click.echo(f"  {len(native.fresh):5d} started afresh: {', '.join(native.fresh)}")
    for path in written:
        click.echo(f"wrote {path} ({size(path.stat().st_size)})")

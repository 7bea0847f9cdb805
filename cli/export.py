"""``deeplab-zoo export``: our weights go abroad."""

from pathlib import Path

import click

from .show import size

LAYOUTS = ("canonical", "isht7", "kazuto1011", "advsemiseg")


@click.command()
@click.argument("file")
@click.option("--to", type=click.Choice(["pth"]), default="pth", show_default=True)
@click.option(
    "--layout",
    type=click.Choice(LAYOUTS),
    default="canonical",
    show_default=True,
    help="Whose names the tensors get.",
)
@click.option("-o", "--output", required=True, metavar="OUT.pth")
def export(file: str, to: str, layout: str, output: str) -> None:
    """Write native weights for another program.

    FILE is a .safetensors, .pth or archive of ours. The layouts are those of
    isht7/pytorch-deeplab-resnet, kazuto1011/deeplab-pytorch and hfslyc/AdvSemiSeg.
    """
    out = Path(output)
    if out.suffix != f".{to}":
        raise click.BadParameter(f"{out} does not end in .{to}", param_hint="--output")
    from ..converters.convert import export as write

    found = write(file, out, layout=layout)
    click.echo(
        f"wrote {out} ({size(out.stat().st_size)}), {len(found.state)} tensors, {layout} names"
    )

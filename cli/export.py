"""``deeplab-zoo export``: our weights go abroad."""

import click

from .show import size

LAYOUTS = ("canonical", "isht7", "kazuto1011", "advsemiseg")
TARGETS = ("pth", "safetensors", "h5", "caffe", "tf", "tf-v1", "npy")


@click.command()
@click.argument("file")
@click.option("--to", type=click.Choice(TARGETS), default="pth", show_default=True)
@click.option(
    "--layout",
    type=click.Choice(LAYOUTS),
    default="canonical",
    show_default=True,
    help="Whose names the tensors of a pth or safetensors get.",
)
@click.option(
    "-o", "--output", required=True, metavar="OUT", help="The file, or the prefix for tf."
)
@click.option(
    "--mixed-numerics",
    is_flag=True,
    help="Write a framework's file although it runs the weights under other conventions.",
)
def export(file: str, to: str, layout: str, output: str, mixed_numerics: bool) -> None:
    """Write native weights for another program.

    FILE is a .safetensors, .pth or archive of ours. The layouts are those of
    isht7/pytorch-deeplab-resnet, kazuto1011/deeplab-pytorch and hfslyc/AdvSemiSeg.

    \b
    pth, safetensors   a state dict, in any layout
    h5                 the archive
    caffe              OUT.caffemodel, with OUT.prototxt beside it
    tf, tf-v1          a checkpoint that TensorFlow reads: OUT.index and data, or one file
    npy                caffe-tensorflow's dictionary
    """
    from ..converters.export import export as write

    for path in write(file, output, to=to, layout=layout, mixed_numerics=mixed_numerics):
        click.echo(f"wrote {path} ({size(path.stat().st_size)})")

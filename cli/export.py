"""``deeplab-zoo export``: our weights go abroad."""

from pathlib import Path

import click

from ..converters.naming import deeplab_v2, deeplab_v3
from ..proto.errors import UsageError
from . import show

LAYOUTS = (*deeplab_v2.LAYOUTS, *deeplab_v3.PROGRAMS)
TARGETS = ("pth", "safetensors", "h5", "caffe", "tf", "tf-v1", "npy", "onnx")


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
@click.option(
    "--opset", type=int, metavar="N", help="Of an onnx: the operators' version. [default: 18]"
)
@click.option("--dynamic", is_flag=True, help="Of an onnx: leave batch, height and width open.")
@click.option(
    "--size",
    metavar="H,W",
    help="Of an onnx: the image's size. [default: the profile's test size, or 321,321]",
)
def export(
    file: str,
    to: str,
    layout: str,
    output: str,
    mixed_numerics: bool,
    opset: int | None,
    dynamic: bool,
    size: str | None,
) -> None:
    """Write native weights for another program.

    FILE is a .safetensors, .pth or archive of ours. The layouts are those of
    isht7/pytorch-deeplab-resnet, kazuto1011/deeplab-pytorch and hfslyc/AdvSemiSeg, and for a
    DeepLab v3 or v3+ that of the program whose net it is.

    \b
    pth, safetensors   a state dict, in any layout
    h5                 the archive
    caffe              OUT.caffemodel, with OUT.prototxt beside it
    tf, tf-v1          a checkpoint that TensorFlow reads: OUT.index and data, or one file
    npy                caffe-tensorflow's dictionary
    onnx               image to scores, run under the weights' own conventions
    """
    own = {"--opset": opset is not None, "--dynamic": dynamic, "--size": size is not None}
    others = {"--layout": layout != "canonical", "--mixed-numerics": mixed_numerics}
    wrong = [name for name, given in (others if to == "onnx" else own).items() if given]
    if wrong:
        raise UsageError(f"{', '.join(wrong)}: not for --to {to}. Leave it out.")
    if to == "onnx":
        written = [_onnx(file, output, opset, dynamic, size)]
    else:
        from ..converters.export import export as write

        written = write(file, output, to=to, layout=layout, mixed_numerics=mixed_numerics)
    for path in written:
        click.echo(f"wrote {path} ({show.size(path.stat().st_size)})")


def _onnx(file: str, output: str, opset: int | None, dynamic: bool, size: str | None) -> Path:
    from ..zoo.models.load import open_model
    from ..zoo.models.onnx import export_onnx

    sides = None if size is None else show.sides(size)
    model, origin = open_model(Path(file))
    return export_onnx(model, output, size=sides, opset=opset, dynamic=dynamic, origin=origin)

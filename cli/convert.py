"""``deeplab-zoo convert``: a foreign file comes home."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..proto.errors import UsageError
from . import show
from .show import as_json, size

if TYPE_CHECKING:
    from ..converters.native import Native

Command = Callable[..., None]

FOREIGN = "a network without a native model; kept as an archive only"


@click.group()
def convert() -> None:
    """Bring a foreign weights file home, as .safetensors, .pth or an HDF5 archive."""


def outputs(command: Command) -> Command:
    """Add the options that every conversion has."""
    for option in reversed(
        (
            click.option(
                "-o", "--output", required=True, metavar="OUT",
                help="Result: .safetensors, .pth or .h5.",
            ),
            click.option("--hdf5", metavar="KEEP.h5", help="Keep the intermediate archive too."),
            click.option(
                "--num-classes", type=int, metavar="N",
                help="Classes the head must have (or gets).",
            ),
            click.option(
                "--reset-head", is_flag=True, help="Start the classifier afresh (gaussian 0.01)."
            ),
            click.option(
                "--seed", type=int, default=0, show_default=True, help="Of a fresh classifier."
            ),
            click.option("--json", "json_", is_flag=True, help="Print the account as JSON."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


@convert.command()
@click.argument("prototxt_and_caffemodel", nargs=-1, required=True, metavar="[PROTOTXT] CAFFEMODEL")
@outputs
@click.option(
    "--strict/--lenient",
    default=True,
    show_default=True,
    help="Refuse fields that Caffe and its known forks do not have, or list them and go on.",
)
@click.option(
    "--graph",
    is_flag=True,
    help="Take any net: without a native model it becomes a graph (.safetensors, .onnx, .pt2).",
)
@click.option(
    "--size", metavar="H,W", help="Of a graph: the input's size. [default: the prototxt's]"
)
def caffe(
    prototxt_and_caffemodel: tuple[str, ...],
    output: str,
    hdf5: str | None,
    num_classes: int | None,
    reset_head: bool,
    seed: int,
    json_: bool,
    strict: bool,
    graph: bool,
    size: str | None,
) -> None:
    """Convert a Caffe DeepLab to PyTorch, or with --graph any Caffe net.

    CAFFEMODEL is a .caffemodel of any age or a .caffemodel.h5. PROTOTXT may be left out when
    the weights file carries the graph.

    \b
    deeplab-zoo convert caffe deploy.prototxt x.caffemodel -o x.safetensors
    deeplab-zoo convert caffe init.caffemodel -o init.pth --reset-head --num-classes 11
    deeplab-zoo convert caffe --graph segnet.prototxt x.caffemodel -o segnet.onnx
    """
    if len(prototxt_and_caffemodel) > 2:
        raise click.UsageError(
            f"{len(prototxt_and_caffemodel)} files, expected [PROTOTXT] CAFFEMODEL."
        )
    *prototxt, caffemodel = prototxt_and_caffemodel
    if size is not None and not graph:
        raise UsageError("--size: goes with --graph. Leave it out, or give that too.")
    if graph:
        others = {
            "--hdf5": hdf5 is not None,
            "--num-classes": num_classes is not None,
            "--reset-head": reset_head,
            "--seed": seed != 0,
        }
        if wrong := [name for name, given in others.items() if given]:
            raise UsageError(f"{', '.join(wrong)}: not for --graph. Leave it out.")
        _graph(prototxt[0] if prototxt else None, caffemodel, output, size, strict, json_=json_)
        return
    from ..converters.convert import convert_caffe

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
    _show(native, output, hdf5, json_=json_)


@convert.command()
@click.argument("checkpoint")
@outputs
@click.option(
    "--variables",
    multiple=True,
    metavar="PATTERN",
    help="Take only these (* and ?); repeat for more.",
)
@click.option("--multi-scale", is_flag=True, help="Scales 1, 0.75 and 0.5 as in evaluate_msc.py.")
def tf(
    checkpoint: str,
    output: str,
    hdf5: str | None,
    num_classes: int | None,
    reset_head: bool,
    seed: int,
    json_: bool,
    variables: tuple[str, ...],
    multi_scale: bool,
) -> None:
    """Convert TensorFlow's DeepLab (v3, v3+; DrSleep's v2) to PyTorch, without TensorFlow.

    CHECKPOINT is any name of it: model.ckpt-20000, that with .index or .data-00000-of-00001,
    a V1 file or its shards, or a folder with a checkpoint file; or a frozen graph (.pb).

    \b
    deeplab-zoo convert tf deeplab_resnet.ckpt -o deeplab.safetensors
    deeplab-zoo convert tf frozen_inference_graph.pb -o deeplab_v3plus.safetensors
    """
    from ..converters.convert import convert_tensorflow

    native = convert_tensorflow(
        checkpoint,
        output,
        keep_hdf5=hdf5,
        variables=variables,
        multi_scale=multi_scale,
        num_classes=num_classes,
        reset_head=reset_head,
        seed=seed,
    )
    _show(native, output, hdf5, json_=json_)


@convert.command()
@click.argument("file")
@outputs
@click.option("--numerics", metavar="PROFILE", help="What the weights were trained under.")
@click.option(
    "--multi-scale/--single-scale", default=None, help="Default: as the file's program did."
)
@click.option(
    "--output-stride",
    type=click.Choice(["8", "16"]),
    help="Of a DeepLab v3 or v3+. [default: as its program published it]",
)
def legacy(
    file: str,
    output: str,
    hdf5: str | None,
    num_classes: int | None,
    reset_head: bool,
    seed: int,
    json_: bool,
    numerics: str | None,
    multi_scale: bool | None,
    output_stride: str | None,
) -> None:
    """Convert another program's own file to ours.

    FILE is caffe-tensorflow's .npy, jaccardSegment's .h5, a .pth of isht7, kazuto1011 or
    AdvSemiSeg, a .pth.tar of jfzhang95 or rloss, or an archive, .safetensors or .pth of ours.
    Nothing in it is executed.

    \b
    deeplab-zoo convert legacy MS_DeepLab_resnet_trained_VOC.pth -o deeplab.safetensors
    deeplab-zoo convert legacy deeplab-mobilenet.pth.tar -o mobilenet.safetensors
    """
    from ..converters.convert import convert_legacy

    native = convert_legacy(
        file,
        output,
        numerics=numerics,
        keep_hdf5=hdf5,
        multi_scale=multi_scale,
        output_stride=int(output_stride) if output_stride else None,
        num_classes=num_classes,
        reset_head=reset_head,
        seed=seed,
    )
    _show(native, output, hdf5, json_=json_)


def _graph(
    prototxt: str | None,
    caffemodel: str,
    output: str,
    text: str | None,
    strict: bool,
    *,
    json_: bool,
) -> None:
    from ..zoo.models.graph import convert_graph

    sides = None if text is None else show.sides(text)
    done = convert_graph(prototxt, caffemodel, output, size=sides, strict=strict)
    if json_:
        click.echo(as_json({**asdict(done), "written": str(done.written)}))
        return
    for note in done.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(done.summary)
    for name, shape in done.inputs.items():
        click.echo(f"  in  {name} {list(shape) if shape else 'of any shape'}")
    for name in done.outputs:
        click.echo(f"  out {name}")
    click.echo(f"wrote {output} ({size(done.written.stat().st_size)})")


def _show(native: "Native | None", output: str, hdf5: str | None, *, json_: bool) -> None:
    """Print what was converted; None is a network that was kept without a model of it."""
    written = [Path(output), *([Path(hdf5)] if hdf5 else [])]
    if json_:
        account = {"notes": [FOREIGN]} if native is None else _account(native)
        click.echo(as_json({"written": list(map(str, written)), **account}))
        return
    if native is None:
        click.echo(f"note: {FOREIGN}", err=True)
    else:
        _print(native)
    for path in written:
        click.echo(f"wrote {path} ({size(path.stat().st_size)})")


def _account(native: "Native") -> dict[str, object]:
    return {
        "config": native.weights.config.to_json(),
        "numerics": native.weights.numerics.name,
        "origin": dict(native.weights.origin.files),
        "tensors": {name: list(places) for name, places in native.conversion.sources.items()},
        "dropped": [list(pair) for pair in native.conversion.dropped],
        "fresh": list(native.fresh),
        "notes": list(native.notes),
    }


def _print(native: "Native") -> None:
    from ..converters.families import of_config

    config = native.weights.config
    for note in native.notes:
        click.echo(f"note: {note}", err=True)
    summary = of_config(config).summary(config)
    click.echo(f"{summary}, numerics {native.weights.numerics.name}")
    click.echo(f"  {len(native.conversion.state):5d} tensors converted")
    for reason, count in Counter(reason for _, reason in native.conversion.dropped).items():
        click.echo(f"  {count:5d} left behind: {reason}")
    if native.fresh:
        click.echo(f"  {len(native.fresh):5d} started afresh: {', '.join(native.fresh)}")

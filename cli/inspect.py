"""``deeplab-zoo inspect``: what is in this file?"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .show import as_json, size

if TYPE_CHECKING:
    from ..converters.describe import Description


@click.command()
@click.argument("file")
@click.option("--json", "json_", is_flag=True, help="Print everything as JSON.")
@click.option("--all", "all_", is_flag=True, help="Print every layer and tensor, not the first 20.")
def inspect(file: str, json_: bool, all_: bool) -> None:
    """Say what is in FILE: its format, layers, tensors, statistics and digest.

    Reads prototxt, caffemodel, .caffemodel.h5, TensorFlow checkpoints (by any of their names)
    and frozen graphs, caffe-tensorflow's .npy, deepdish .h5, deeplab-zoo archives, .safetensors
    and .pth.
    """
    from ..converters.describe import describe

    found = describe(Path(file))
    if json_:
        click.echo(as_json({**asdict(found), "path": str(found.path)}))
    else:
        _print(found, None if all_ else 20)


def _print(found: "Description", limit: int | None) -> None:
    click.echo(f"{found.path}: {found.kind}, {size(found.bytes)}")
    click.echo(f"  {'content':<14} {found.content}")
    digests = {
        f"sha256 {name}" if len(found.sha256) > 1 else "sha256": digest
        for name, digest in found.sha256.items()
    }
    for name, value in {**found.facts, **digests}.items():
        click.echo(f"  {name:<14} {value}")
    for note in found.notes:
        click.echo(f"note: {note}", err=True)
    if found.layers:
        click.echo(f"\n{len(found.layers)} layers")
        for layer in found.layers[:limit]:
            flow = f"{', '.join(layer.bottoms)} -> {', '.join(layer.tops)}"
            click.echo(f"  {layer.name:<26} {layer.type:<14} {flow}")
        _more(len(found.layers), limit)
    if found.tensors:
        total = sum(_count(row.shape) for row in found.tensors)
        click.echo(f"\n{len(found.tensors)} tensors, {total:,} numbers")
        head = ("name", "shape", "dtype", "min", "max", "mean", "std")
        click.echo("  {:<42} {:<18} {:<8} {:>10} {:>10} {:>10} {:>10}".format(*head))
        for row in found.tensors[:limit]:
            shape = "x".join(map(str, row.shape)) or "scalar"
            bad = f"  {row.non_finite} not finite" if row.non_finite else ""
            click.echo(
                f"  {row.name:<42} {shape:<18} {row.dtype:<8} {row.minimum:>10.3g} "
                f"{row.maximum:>10.3g} {row.mean:>10.3g} {row.std:>10.3g}{bad}"
            )
        _more(len(found.tensors), limit)


def _more(count: int, limit: int | None) -> None:
    if limit is not None and count > limit:
        click.echo(f"  ... {count - limit} more (--all shows them)")


def _count(shape: tuple[int, ...]) -> int:
    total = 1
    for one in shape:
        total *= one
    return total

"""``deeplab-zoo registry``: keep a registry of one's own, check it, show it."""

from pathlib import Path
from shlex import quote

import click

REGISTRY = click.option(
    "--registry", multiple=True, metavar="FILE", help="A registry beside the shipped one."
)


@click.group()
def registry() -> None:
    """Keep a registry: add entries, check it, write it as a web page, hand it to pooch."""


@registry.command()
@click.argument("what", metavar="FILE_OR_URL")
@click.option(
    "--to", default="registry.yaml", show_default=True, metavar="FILE", help="Which registry."
)
@click.option("--name", required=True, help="Of the entry: a-z, 0-9, - . _ only.")
@click.option("--url", metavar="URL", help="Where FILE will be served, if not from where it is.")
@click.option(
    "--kind",
    type=click.Choice(("model", "init", "dataset")),
    help="[default: model]",
    default="model",
)
@click.option("--description", default="", metavar="TEXT")
@click.option("--license", "spdx", default="NOASSERTION", show_default=True, metavar="SPDX")
@click.option("--homepage", default="", metavar="URL")
@click.option("--dataset", default="not stated", metavar="NAME", help="What it was trained on.")
@click.option("--split", default="not stated", metavar="NAME")
@click.option("--classes", type=int, metavar="N")
@click.option("--family", default="deeplab_v2", show_default=True, metavar="NAME")
@click.option("--backbone", default="resnet101", show_default=True, metavar="NAME")
@click.option(
    "--convert",
    type=click.Choice(("native", "caffe", "tf", "legacy")),
    default="native",
    show_default=True,
    help="How it becomes a model; native: a file of ours.",
)
@click.option("--layout", metavar="NAME", help="Of a legacy .pth: isht7, kazuto1011, advsemiseg.")
@click.option("--numerics", metavar="PROFILE", help="What it was trained under.")
@click.option("--same-as", metavar="NAME", help="The entry that has the same bytes on purpose.")
def add(
    what: str,
    to: str,
    name: str,
    url: str | None,
    kind: str,
    description: str,
    spdx: str,
    homepage: str,
    dataset: str,
    split: str,
    classes: int | None,
    family: str,
    backbone: str,
    convert: str,
    layout: str | None,
    numerics: str | None,
    same_as: str | None,
) -> None:
    """Write an entry for a file, or for what an address gives, with its digest computed.

    A file below the registry's folder is named relative to it, so a folder with registry.yaml
    is a zoo that can be copied or served.

    \b
    deeplab-zoo registry add ours.safetensors --name ours --to zoo/registry.yaml
    deeplab-zoo fetch ours --registry zoo/registry.yaml
    """
    from ..zoo.weights.add import add as add_
    from ..zoo.weights.add import described, filename_of, measure
    from .reporting import lines

    target = Path(to)
    with lines() as listen:
        place, size, digest, seen = measure(what, target, listen)
    model = kind != "dataset"
    filename = filename_of(url or place)
    recipe = {"convert": convert, "weights": filename, **({"layout": layout} if layout else {})}
    entry = add_(
        target,
        described(
            name,
            url or place,
            size,
            digest,
            seen=seen,
            grade="C" if "://" in what else "A",
            same_as=same_as,
            kind=kind,
            description=description or filename,
            license={"spdx": spdx},
            homepage=homepage or "not stated",
            arch={"family": family, "backbone": backbone} if model else None,
            classes=classes,
            trained_on={"dataset": dataset, "split": split} if model else None,
            numerics=numerics,
            recipe=recipe if model else None,
        ),
    )
    click.echo(f"{target}: added {entry.name}, {entry.state}, sha256 {digest}")


@registry.command()
@click.argument("files", nargs=-1, metavar="[FILE]...")
def lint(files: tuple[str, ...]) -> None:
    """Check FILEs, or the shipped registry, for what the schema does not catch."""
    from ..proto.errors import FormatError, listing
    from ..zoo.weights.lint import problems
    from ..zoo.weights.parse import read_entries
    from ..zoo.weights.registry import SHIPPED, assemble

    for path in [Path(one) for one in files] or [SHIPPED]:
        entries = assemble(read_entries(path)).entries.values()
        found = problems(entries)
        if found:
            raise FormatError(f"{path}: {len(found)} problems:\n{listing(found, 100)}")
        click.echo(f"{path}: {len(entries)} entries, no problems")


@registry.command()
@REGISTRY
@click.option("-o", "--output", default="registry.html", show_default=True, metavar="OUT")
def html(registry: tuple[str, ...], output: str) -> None:
    """Write all entries as one web page with a search, which needs nothing else."""
    from ..converters.files import write_text
    from ..zoo.weights.page import render
    from ..zoo.weights.registry import load_registry

    write_text(Path(output), render(load_registry(registry).entries.values()))
    click.echo(f"wrote {output}")


@registry.command()
@REGISTRY
@click.option(
    "--pooch", is_flag=True, required=True, help="In pooch's format: file, hash, address."
)
def export(registry: tuple[str, ...], pooch: bool) -> None:  # noqa: ARG001 - the one format
    """Print the files that have a digest of their own, one per line, for another program."""
    from ..zoo.weights.registry import load_registry
    from ..zoo.weights.schema import LENGTHS
    from ..zoo.weights.sources import resolve

    for entry in load_registry(registry).entries.values():
        for artifact in entry.artifacts if not entry.uses else ():
            digests, places = artifact.claim.digests, artifact.places
            if digests and places:
                algorithm = min(digests, key=tuple(LENGTHS).index)
                url = resolve(places[0].url, entry.place)
                name = quote(f"{entry.name}/{artifact.filename}")  # pooch splits as a shell does.
                click.echo(f"{name} {algorithm}:{digests[algorithm]} {url}")

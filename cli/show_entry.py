"""``deeplab-zoo show``: everything about one entry, with who says so."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from .registry import REGISTRY
from .show import as_json, size

if TYPE_CHECKING:
    from ..zoo.weights.schema import Claim, Entry, Evidence


@click.command("show")
@click.argument("name")
@REGISTRY
@click.option("--json", "json_", is_flag=True, help="Print as JSON.")
def show_entry(name: str, registry: tuple[str, ...], json_: bool) -> None:
    """Say everything about NAME: its files, their digests and who says so, metrics, licence."""
    from ..zoo.weights.lock import lock_path, read_lock
    from ..zoo.weights.recipe import obstacle
    from ..zoo.weights.registry import load_registry
    from ..zoo.weights.status import is_cached, state_of

    entry = load_registry(registry).find(name)
    state = state_of(entry, read_lock(lock_path()))
    cached, problem = is_cached(entry), obstacle(entry)
    if json_:
        more = {"state": state, "cached": cached, "loadable": problem is None, "obstacle": problem}
        click.echo(as_json({**asdict(entry), **more}))
        return
    click.echo(f"{entry.name}: {entry.description}")
    _echo(_facts(entry, state, cached, problem))
    for artifact in entry.artifacts:
        click.echo(f"\n{artifact.filename}: {artifact.state}")
        _echo(_claim(artifact.claim))
        for source in artifact.sources:
            dead = f" (dead since {source.dead})" if source.dead else ""
            click.echo(f"  {'source':<14} {source.url}{dead}")
        if artifact.manual:
            click.echo(f"  {'by hand':<14} {artifact.manual}")
        if artifact.archive and not artifact.members:
            click.echo(f"  {'unpacked':<14} all of it")
        for member in artifact.members:
            click.echo(f"  {'member':<14} {member.path}")
            _echo(_claim(member.claim), "    ")


def _facts(
    entry: "Entry", state: str, cached: bool, problem: str | None
) -> Iterator[tuple[str, object]]:
    yield "kind", entry.kind
    yield "state", state
    yield "here", "yes" if cached else "no"
    loads = f"deeplab_zoo.load({entry.name!r})"
    yield "loads", loads if problem is None else f"no: {problem}"
    yield "size", size(entry.size) if entry.size else "not known"
    if entry.aliases:
        yield "aliases", ", ".join(entry.aliases)
    if entry.arch:
        yield "architecture", _fields(asdict(entry.arch))
    if entry.classes:
        yield "classes", entry.classes
    if entry.trained_on:
        before = entry.trained_on.pretrained
        told = f", after {before}" if before else ""
        yield "trained on", f"{entry.trained_on.dataset}, {entry.trained_on.split}{told}"
    if entry.numerics:
        yield "numerics", entry.numerics
    if entry.preprocessing:
        yield "preprocessing", _fields(asdict(entry.preprocessing))
    for metric in entry.metrics:
        yield (
            "mIoU",
            f"{metric.miou} on {metric.dataset} {metric.split}, {metric.protocol} "
            f"({metric.source})",
        )
    licence = entry.license
    consent = " (must be accepted)" if licence.accept_required else ""
    about = f", {licence.applies_to}" if licence.applies_to else ""
    yield "licence", f"{licence.spdx}{about}{consent} {licence.url}".rstrip()
    yield "homepage", entry.homepage
    if entry.uses:
        yield "files of", entry.uses
    if entry.recipe:
        yield "recipe", _fields(asdict(entry.recipe))
    if entry.replaced_by:
        yield "replaced by", entry.replaced_by
    yield from (("evidence", _words(one)) for one in entry.evidence)
    yield from (("note", note) for note in entry.notes)
    yield "registry", entry.place


def _fields(values: dict[str, object]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items() if value)


def _claim(claim: "Claim") -> Iterator[tuple[str, str]]:
    if claim.size is not None:
        yield "size", f"{size(claim.size)} ({claim.size})"
    yield from claim.digests.items()
    if claim.prefix:
        yield "prefix", f"{claim.prefix.algorithm} {claim.prefix.hex}..."
    yield from (("evidence", _words(one)) for one in claim.evidence)


def _words(one: "Evidence") -> str:
    says = f": {one.says}" if one.says else ""
    return f"grade {one.grade} for {', '.join(one.covers)}, {one.where}{says}"


def _echo(rows: Iterable[tuple[str, object]], indent: str = "  ") -> None:
    for key, value in rows:
        click.echo(f"{indent}{key:<14} {value}")

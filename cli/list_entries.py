"""``deeplab-zoo list``: what is in the registry?"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from .registry import REGISTRY
from .show import as_json, size

if TYPE_CHECKING:
    from ..zoo.weights.schema import Entry

STATES = ("pinned", "weak", "prefix", "unverified", "locked")


@click.command("list")
@click.argument("words", nargs=-1, metavar="[WORD]...")
@REGISTRY
@click.option("--state", type=click.Choice(STATES), help="Only entries in this state.")
@click.option("--kind", type=click.Choice(("model", "init", "dataset")), help="Only this kind.")
@click.option("--loadable", is_flag=True, help="Only what deeplab_zoo.load makes a model of.")
@click.option("--cached", is_flag=True, help="Only what has been fetched.")
@click.option("--json", "json_", is_flag=True, help="Print as JSON.")
def list_entries(
    words: tuple[str, ...],
    registry: tuple[str, ...],
    state: str | None,
    kind: str | None,
    loadable: bool,
    cached: bool,
    json_: bool,
) -> None:
    """List entries: how well their bytes are known, their size, whether they are here.

    WORDs filter: each must occur in the name, description, dataset or architecture.

    \b
    deeplab-zoo list resnet101 voc
    deeplab-zoo list --state pinned
    """
    from ..zoo.weights.lock import lock_path, read_lock
    from ..zoo.weights.recipe import obstacle
    from ..zoo.weights.registry import load_registry
    from ..zoo.weights.status import is_cached, matches, state_of

    lock = read_lock(lock_path())
    rows = []
    for entry in load_registry(registry).entries.values():
        row = _Row(entry, state_of(entry, lock), is_cached(entry), obstacle(entry) is None)
        wanted = (
            matches(entry, words)
            and state in (None, row.state)
            and kind in (None, entry.kind)
            and (row.loadable or not loadable)
            and (row.cached or not cached)
        )
        rows += [row] if wanted else []
    if json_:
        click.echo(as_json([row.as_dict() for row in rows]))
        return
    width = max((len(row.entry.name) for row in rows), default=4)
    click.echo(f"{'name':<{width}}  {'state':<10}  {'size':>9}  {'here':<4}  {'loads':<5}  what")
    for row in rows:
        known = size(row.entry.size) if row.entry.size else "?"
        here, loads = ("yes" if one else "" for one in (row.cached, row.loadable))
        click.echo(
            f"{row.entry.name:<{width}}  {row.state:<10}  {known:>9}  {here:<4}  {loads:<5}  "
            f"{row.entry.description}"
        )
    click.echo(f"{len(rows)} entries", err=True)


@dataclass(frozen=True, slots=True)
class _Row:
    """An entry, and what is true of it here and now."""

    entry: "Entry"
    state: str
    cached: bool
    loadable: bool

    def as_dict(self) -> dict[str, object]:
        """Return it for JSON."""
        return {
            "name": self.entry.name,
            "kind": self.entry.kind,
            "description": self.entry.description,
            "state": self.state,
            "size": self.entry.size,
            "cached": self.cached,
            "loadable": self.loadable,
        }

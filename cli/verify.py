"""``deeplab-zoo verify``: are the fetched files still what they were?"""

import click

from .registry import REGISTRY
from .show import as_json


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@REGISTRY
@click.option("--all", "all_", is_flag=True, help="Everything that has been fetched.")
@click.option("--json", "json_", is_flag=True, help="Print as JSON.")
def verify(names: tuple[str, ...], registry: tuple[str, ...], all_: bool, json_: bool) -> None:
    """Hash fetched files again, and hold them against the registry and the lock.

    Exit code 3 if one is not what it should be; it is put into quarantine, so that the next
    fetch brings it anew.
    """
    if all_ == bool(names):
        raise click.UsageError("Name entries, or say --all.")
    from ..proto.errors import IntegrityError, listing
    from ..zoo.weights.registry import load_registry
    from ..zoo.weights.verify import verify_entry

    known = load_registry(registry)
    entries = list(known.entries.values()) if all_ else [known.find(name) for name in names]
    rows = [row for entry in entries if not entry.uses or names for row in verify_entry(entry)]
    if json_:
        click.echo(as_json([row._asdict() for row in rows]))
    else:
        for row in rows:
            click.echo(f"{row.file}: {row.words}")
    if names and not rows:
        click.echo("nothing of that has been fetched", err=True)
    bad = [f"{row.file}: {row.words}" for row in rows if row.state == "mismatch"]
    if bad:
        raise IntegrityError(
            f"{len(bad)} files are not what they should be:\n{listing(bad)}\nFetch them again."
        )

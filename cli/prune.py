"""``deeplab-zoo prune``: give disk space back."""

import click

from .registry import REGISTRY
from .show import size


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@REGISTRY
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
def prune(names: tuple[str, ...], registry: tuple[str, ...], dry_run: bool) -> None:
    """Remove leftovers: broken-off downloads, quarantine, bytes without a name.

    With NAMEs, remove those entries' files and converted models instead. The lock keeps what it
    knows of them.
    """
    from ..zoo.weights.prune import entry_files, freed, leftovers, remove
    from ..zoo.weights.registry import load_registry

    known = load_registry(registry) if names else None
    paths = (
        # Once each: an entry may be named twice, or use another's files.
        dict.fromkeys(path for name in names for path in entry_files(known.find(name)))
        if known
        else list(leftovers())
    )
    room = size(freed(paths))
    for path in paths:
        if not dry_run:
            remove(path)
        click.echo(path)
    click.echo(f"{'would free' if dry_run else 'freed'} {room}", err=True)

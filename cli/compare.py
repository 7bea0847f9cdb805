"""``deeplab-zoo compare``: do two files hold the same weights?"""

from dataclasses import asdict

import click

from .show import as_json


@click.command()
@click.argument("first")
@click.argument("second")
@click.option("--json", "json_", is_flag=True, help="Print as JSON.")
@click.option("--all", "all_", is_flag=True, help="List every difference, not the first 20.")
def compare(first: str, second: str, json_: bool, all_: bool) -> None:
    """Say whether FIRST and SECOND hold the same weights, whatever their formats.

    Tensors are matched through the naming tables. Exit code 0 only when every tensor is in
    both and equal to the bit, else 9.
    """
    from ..converters.compare import compare as run
    from ..proto.errors import ParityError

    found = run(first, second)
    shown = found.differences if all_ else found.differences[:20]
    if json_:
        click.echo(as_json({**asdict(found), "equal": found.equal}))
    else:
        for one in shown:
            distance = "" if one.max_abs is None else f", max abs {one.max_abs:.3g}"
            click.echo(f"{one.name}: {one.reason}{distance}")
        if len(shown) < len(found.differences):
            click.echo(f"... {len(found.differences) - len(shown)} more (--all shows them)")
        if found.numerics[0] != found.numerics[1]:
            click.echo(f"note: numerics {' against '.join(found.numerics)}", err=True)
        if found.equal:
            click.echo(f"equal: {found.tensors} tensors, to the bit")
    if not found.equal:
        raise ParityError(
            f"{len(found.differences)} of {found.tensors} tensors differ: {first}, {second}."
        )

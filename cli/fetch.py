"""``deeplab-zoo fetch``: weights that are what they claim to be."""

import signal
import sys

import click

from .registry import REGISTRY


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@REGISTRY
@click.option(
    "--dest", metavar="DIR", help="Put copies there (converted: NAME.safetensors); print that path."
)
@click.option("--from-file", metavar="PATH", help="Take the file from PATH, and check it.")
@click.option("--offline", is_flag=True, default=None, help="Open no connection.")
@click.option("--mirror", multiple=True, metavar="URL", help="Try URL/NAME/FILE first.")
@click.option(
    "--trust-on-first-use",
    is_flag=True,
    help="Take what has no published digest, and record its own in deeplab-zoo.lock.",
)
@click.option("--locked", is_flag=True, help="Take only what is in deeplab-zoo.lock.")
@click.option("--accept-license", is_flag=True, help="Accept a licence that asks for it.")
@click.option("--convert", is_flag=True, help="Convert to a native model, and print that file.")
@click.option("--retries", type=click.IntRange(0), default=5, show_default=True, metavar="N")
@click.option(
    "--timeout", type=click.FloatRange(1, 86400), default=30.0, show_default=True,
    metavar="SECONDS", help="Without data, after which a connection counts as lost.",
)  # fmt: skip
@click.option("--json", "json_", is_flag=True, help="Print what happens as JSON lines.")
@click.option("--no-progress", is_flag=True, help="Show no progress on a terminal either.")
def fetch(
    names: tuple[str, ...],
    registry: tuple[str, ...],
    dest: str | None,
    from_file: str | None,
    offline: bool | None,
    mirror: tuple[str, ...],
    trust_on_first_use: bool,
    locked: bool,
    accept_license: bool,
    convert: bool,
    retries: int,
    timeout: float,
    json_: bool,
    no_progress: bool,
) -> None:
    """Fetch entries of the registry, verify them, and print the path of each.

    Nothing else goes to standard output. "verified" is said only of a full sha256 or sha384.
    A file that nobody ever published a digest of is refused (exit code 4) until it is trusted
    once.

    \b
    deeplab-zoo fetch advsemiseg-deeplabv2-resnet101-coco-init
    deeplab-zoo fetch deeplabv2-resnet101-voc --trust-on-first-use --convert
    """
    if from_file and len(names) > 1:
        raise click.UsageError("--from-file takes one NAME.")
    from ..zoo.weights.events import Event
    from ..zoo.weights.fetch import fetch as fetch_
    from .reporting import bars, json_lines, lines

    # An ordinary kill ends as Ctrl-C does: what has arrived is kept for the next time.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    shown = json_lines if json_ else lines
    if not json_ and not no_progress and sys.stderr.isatty():
        shown = bars
    for name in names:
        with shown() as listen:
            path = fetch_(
                name,
                registry=registry,
                dest=dest,
                from_file=from_file,
                offline=offline,
                mirrors=mirror,
                trust_on_first_use=trust_on_first_use,
                locked=locked,
                accept_license=accept_license,
                convert=convert,
                retries=retries,
                timeout=timeout,
                on_event=listen,
            )
            if json_:
                listen(Event("result", name, {"path": str(path)}))
        if not json_:
            click.echo(path)

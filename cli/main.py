"""``deeplab-zoo``: the group of commands, and what an error becomes."""

import signal
import sys
from difflib import get_close_matches
from importlib import import_module
from io import TextIOWrapper

import click

from .. import __version__
from ..proto.errors import StorageError, ZooError

INTERRUPTED = 130
TERMINATED = 143

# Command -> the module that has it (a command of the same name), and its line in the help.
# The line stands here so that the help imports no command.
COMMANDS = {
    "convert": "Bring a foreign weights file home: Caffe, TensorFlow, other programs'.",
    "export": "Send native weights abroad, in another program's layout.",
    "finetune": "Train weights on your data, by a published recipe or your own.",
    "parity": "Prove that a converted model computes what its original does.",
    "compare": "Say whether two weights files hold the same values.",
    "inspect": "Say what is in a file: format, layers, tensors, statistics.",
    "evaluate": "Score a model on a dataset: mIoU, per class, a report.",
    "predict": "Segment photos: masks, colours, overlays, probabilities.",
    "labels": "Check the masks of a dataset, or convert them.",
    "list": "List the weights and datasets of the registry.",
    "show": "Say everything about an entry: files, digests and who says so, metrics.",
    "fetch": "Fetch weights that are what they claim to be; print their path.",
    "verify": "Hash fetched files again.",
    "prune": "Remove leftovers, or fetched entries.",
    "registry": "Keep a registry: add, lint, html, export.",
    "demo": "Do the main job on built-in input, offline, in seconds.",
    "doctor": "Show versions, devices, the cache folder and optional parts.",
}

# Modules whose command has another name, since `list` is Python's and `show` is how we print.
MODULES = {"list": "list_entries", "show": "show_entry"}


class Commands(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Name the commands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        home = MODULES.get(cmd_name, cmd_name)
        command: click.Command = getattr(import_module(f".{home}", __package__), home)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or suggest the nearest one."""
        near = get_close_matches(args[0], COMMANDS, n=1)
        if args[0] not in COMMANDS and not args[0].startswith("-") and near:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="deeplab-zoo")
def cli() -> None:
    """Bring old DeepLab weights to PyTorch, provably unchanged.

    \b
    Try it:     deeplab-zoo demo
    Convert:    deeplab-zoo convert caffe deploy.prototxt x.caffemodel -o x.safetensors
    Fetch:      deeplab-zoo list; deeplab-zoo fetch NAME
    In Python:  model = deeplab_zoo.load("x.safetensors"), or load(NAME)
    """
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # Names in files need not be printable.


def _terminated(*_: object) -> None:
    raise SystemExit(TERMINATED)


def main() -> None:
    """Run the command line; a user's error becomes one message and an exit code."""
    signal.signal(signal.SIGTERM, _terminated)  # So that what is half-written is removed.
    try:
        code = cli.main(prog_name="deeplab-zoo", standalone_mode=False)
    except ZooError as error:
        click.echo(f"deeplab-zoo: {error}", err=True)
        code = error.exit_code
    except OSError as error:
        if error.filename is None:
            raise
        # A place that cannot even be looked at: no permission, a name too long.
        click.echo(f"deeplab-zoo: {error.filename}: {error.strerror}.", err=True)
        code = StorageError.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort:
        click.echo("deeplab-zoo: interrupted; nothing half-written remains.", err=True)
        code = INTERRUPTED
    sys.exit(code if isinstance(code, int) else 0)

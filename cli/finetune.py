"""``deeplab-zoo finetune``: train weights on a dataset."""

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from ..zoo.training.config import (
    KEYS,
    TYPES,
    from_mapping,
    recipe,
    recipe_names,
    refuse_idle,
    typed,
)
from .show import counter

STOPPED = 130  # As after Ctrl-C elsewhere, but with a checkpoint to go on from.

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class Grouped(click.Command):
    """A command whose help has its options under headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, those of a config by its groups."""
        sections: dict[str, list[tuple[str, str]]] = {"Run": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            key = KEYS.get(parameter.name or "")
            if record is not None and isinstance(parameter, click.Option):
                sections.setdefault(key.metadata["group"] if key else "Run", []).append(record)
        for heading, rows in sections.items():
            with formatter.section(heading):
                formatter.write_dl(rows)


def _config_options(function: Decorated) -> Decorated:
    """Add a flag for every key of a config."""
    for name, key in reversed(KEYS.items()):
        if name == "data":
            continue
        flag, kind = f"--{name.replace('_', '-')}", TYPES[name]
        text, default = key.metadata["help"], key.default
        if kind is bool:
            option = click.option(f"{flag}/--no-{flag[2:]}", name, default=default, help=text)
        else:
            choices = key.metadata["choices"]
            shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
            option = click.option(
                flag,
                name,
                type=click.Choice(choices) if choices else kind if kind in (int, float) else str,
                default=shown,
                show_default=shown != "",
                help=text,
            )
        function = option(function)
    return function


@click.command(cls=Grouped)
@click.argument("weights")
@click.argument("data", required=False, default="")
@click.option(
    "-o", "--output", default="run", show_default=True, metavar="FOLDER",
    help="Where the weights, checkpoints and logs go.",
)  # fmt: skip
@click.option(
    "--recipe", "recipes", multiple=True, metavar="NAME|FILE",
    help=f"Values to begin with: {', '.join(recipe_names())}; or a YAML file. Repeat to add.",
)  # fmt: skip
@click.option(
    "--resume", default="", metavar="auto|FILE",
    help="Go on from the newest checkpoint of the folder, if there is one, or from a .pt.",
)  # fmt: skip
@click.option("--numerics", metavar="PROFILE", help="Of weights that do not record theirs.")
@_config_options
@click.pass_context
def finetune(
    ctx: click.Context,
    /,
    weights: str,
    data: str,
    output: str,
    recipes: tuple[str, ...],
    resume: str,
    numerics: str | None,
    **values: Any,
) -> None:
    """Train WEIGHTS on DATA: DeepLab v2's own recipe, unless told otherwise.

    WEIGHTS is what a conversion or another run wrote, or scratch, which draws those of --arch;
    DATA a dataset's folder or list (docs/data.md). A recipe's values go before the defaults, flags
    before both. The folder gets model.safetensors, best.safetensors (by mIoU), config.yaml and
    log.csv.

    \b
    deeplab-zoo finetune x.safetensors VOC2012 --loss ce+lovasz --lr 1e-4 --steps 5000
    deeplab-zoo finetune x.safetensors camvid --reset-head --batch-size 4 --accumulate 1
    deeplab-zoo finetune x.safetensors VOC2012 --recipe rloss-densecrf --resume auto
    """
    given = _given(ctx, {**values, "data": data})
    config = from_mapping({**_first(recipes), **given})
    refuse_idle(config, given)
    click.echo("loading PyTorch", err=True)
    from ..zoo.evaluation.processes import is_first, leave
    from ..zoo.training.job import finetune as run

    result = run(
        weights,
        config,
        output,
        resume=resume,
        numerics=numerics,
        show=lambda text: click.echo(text, err=True),
        progress=counter("scanned"),
        bar=sys.stderr.isatty(),
    )
    first = is_first()
    leave()
    if not first:
        return  # One process speaks; Lightning kills all if another one ends with a code.
    if result.path is None:
        click.echo(f"Continue: the same command with --resume auto (at {result.step}).", err=True)
        ctx.exit(STOPPED)
    scored = "" if result.miou != result.miou else f", mIoU {result.miou:.4f}"
    click.echo(f"{result.path}: after {result.step} updates{scored}")


def _first(recipes: tuple[str, ...]) -> dict[str, Any]:
    """Return the recipes' values, a later one's over the others'."""
    merged: dict[str, Any] = {}
    for name in recipes:
        merged.update(typed(recipe(name), name))
    return merged


def _given(ctx: click.Context, values: dict[str, Any]) -> dict[str, Any]:
    """Return the values that were given as flags."""
    return {
        name: value
        for name, value in values.items()
        if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT and value is not None
    }

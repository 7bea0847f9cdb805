"""Fine-tuning from end to end: a weights file and a dataset enter, a weights file leaves."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from ...converters.files import folder_for, write_text
from ...converters.weights import Weights
from ...proto.errors import UsageError, listing
from ..data.loader import loader
from . import checkpoints
from .checkpoints import Saved
from .config import TrainConfig, differences, from_mapping, to_yaml
from .data import Data, opened, prepared, scanned, way
from .engine import Engine, make_engine, precision_state
from .groups import parameter_groups
from .log import Log
from .loop import Run, updates
from .model import RunningMean, begun, fitted, make_model
from .objective import class_weights, make_objective
from .solver import make_solver
from .validate import kept, validate

RESULT = "model.safetensors"
BEST = "best.safetensors"


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended.

    Attributes
    ----------
    path
        The weights, where the run was finished.
    step
        Updates done; fewer than the config's if the run was told to stop.
    miou, best
        Of the last and of the best validation; NaN without any.

    """

    path: Path | None
    step: int
    miou: float
    best: float


def finetune(
    weights: str | Path,
    config: TrainConfig,
    output: str | Path,
    *,
    resume: str = "",
    numerics: str | None = None,
    show: Callable[[str], None] = lambda _: None,
    bar: bool = False,
) -> Result:
    """Train, and write ``model.safetensors``, ``best.safetensors``, ``config.yaml``, ``log.csv``.

    Parameters
    ----------
    weights
        Where training starts: ``.safetensors``, ``.pth``, an archive, or a registry's name;
        ``scratch`` draws the weights of ``config.arch``.
    config
        Everything else that matters.
    output
        The run's folder; it must be new unless resumed.
    resume
        ``auto``: the newest checkpoint in ``output``, or none yet; or a checkpoint's ``.pt``.
    numerics
        The profile of a file that does not record one.
    show, bar
        Prints a line; whether a bar is drawn on the terminal below the lines.

    Raises
    ------
    ZooError
        Whatever the user can mend: data, weights, settings, a full disk, a loss that is
        not a number.

    """
    folder = folder_for(Path(output))
    saved = _resumed(folder, config, resume)
    engine = make_engine(config)
    first = engine.global_rank == 0
    show = show if first else lambda _: None
    given = begun(weights, config, numerics)
    train, val = opened(config)
    show(f"scanning {len(train.samples)} samples" + (f" and {len(val.samples)}" if val else ""))
    data = prepared(config, engine.broadcast(scanned(config, train, val) if first else None))
    start, told = fitted(given, config, data.names)
    for note in (*data.notes, told):
        if note:
            show(note)
    run = _run(config, engine, start, data, saved)
    with (
        _output(folder, config, first=first),
        Log(
            folder if first else None, run.objective.names, config.steps, run.step, show, bar=bar,
            tensorboard=config.tensorboard,
        ) as log,
    ):  # fmt: skip
        return _trained(run, data, start, folder, log, first=first)


@contextmanager
def _output(folder: Path, config: TrainConfig, *, first: bool) -> Iterator[None]:
    """Own the run's folder, and leave the config in it; the first process does."""
    if not first:
        yield
        return
    with checkpoints.owned(folder):
        write_text(folder / "config.yaml", to_yaml(config))
        yield


def _resumed(folder: Path, config: TrainConfig, resume: str) -> Saved | None:
    """Return the checkpoint to go on from; raise `UsageError` if its config was another."""
    found = checkpoints.steps(folder)
    if not resume:
        if (folder / "config.yaml").exists() or found:
            raise UsageError(
                f"{folder}: holds a run already. Continue it (--resume auto), or name another "
                "folder (-o)."
            )
        return None
    if resume != "auto":
        path = Path(resume)
    elif found:
        path = folder / f"step-{found[-1]:08d}.pt"
    else:
        return None
    import yaml

    saved = checkpoints.read(path)
    before = from_mapping(yaml.safe_load(saved.config), str(path))
    if changed := differences(before, config):
        raise UsageError(
            f"{path}: was saved under another config:\n{listing(changed)}\n"
            "Say the same again, or begin a new run from its weights."
        )
    return saved


def _run(
    config: TrainConfig, engine: Engine, start: Weights, data: Data, saved: Saved | None
) -> Run:
    model = make_model(start, config, engine.world_size)
    classes = start.config.classes
    channel = None
    if data.chosen is not None:
        channel = 0 if classes == 1 else data.chosen
    objective = make_objective(
        config,
        start.numerics,
        len(data.train.legend.names),
        channel=channel,
        class_weights=class_weights(config.class_weights, data.pixels),
        world=engine.world_size,
        total=lambda one: cast(Tensor, engine.all_reduce(one, reduce_op="sum")),
    ).to(engine.device)
    groups = parameter_groups(model.named_parameters(), config.groups, config.weight_decay)
    if saved is not None:
        model.load_state_dict(dict(saved.model), strict=False)
    # The solver first sees the parameters, which a move to another device keeps.
    bare = make_solver(config.solver, groups, config.lr, config.momentum, nesterov=config.nesterov)
    module, solver = engine.setup(model, bare)
    mean = RunningMean(model, config.ema) if config.ema else None
    run = Run(config, engine, model, module, solver, objective, mean)
    if saved is not None:
        solver.load_state_dict(saved.solver)
        precision_state(engine, saved.precision)
        if mean is not None:
            for name, one in mean.state.items():
                one.copy_(saved.mean[name])
        run.step, run.best = saved.step, saved.best
    return run


def _trained(
    run: Run, data: Data, start: Weights, folder: Path, log: Log, *, first: bool
) -> Result:
    config, engine = run.config, run.engine
    batches = loader(
        data.train,
        way(config),
        start.numerics,
        data.order,
        config.batch_size,
        step=run.step * config.accumulate,
        rank=engine.global_rank,
        world=engine.world_size,
        workers=config.workers,
    )
    miou = math.nan
    if config.val_start and run.step == 0:
        miou = _judge(run, data, start, folder, log)
    for update in updates(run, iter(cast(Any, batches))):
        step, last = update.step, update.step == config.steps
        if first and (last or step % config.log_every == 0):
            log.update(step, update.terms, update.rate, update.images_per_second)
        if last or (config.val_every and step % config.val_every == 0):
            miou = _judge(run, data, start, folder, log)
        if first and (last or step % config.save_every == 0):
            _save(run, start, folder)
    done = run.step == config.steps
    if first and not done:
        log.say(f"stopped after {run.step} updates: {_save(run, start, folder).name}")
    if first and done:
        checkpoints.write_weights(start, kept(run), folder / RESULT)
    engine.barrier()
    best = run.best if run.best >= 0 else math.nan
    return Result(folder / RESULT if done else None, run.step, miou, best)


def _save(run: Run, start: Weights, folder: Path) -> Path:
    saved = Saved(
        run.step,
        run.model.state_dict(),
        run.solver.state_dict(),
        to_yaml(run.config),
        run.mean.state if run.mean is not None else {},
        run.best,
        precision_state(run.engine),
    )
    return checkpoints.save(folder, saved, start, run.config.keep)


def _judge(run: Run, data: Data, start: Weights, folder: Path, log: Log) -> float:
    """Validate, tell, and keep the weights if they are the best so far."""
    if data.val is None:
        return math.nan
    found = validate(run, data.val, log)
    if run.engine.global_rank == 0:
        told = dict(zip(data.val.legend.names, found.iou, strict=True))
        log.score(run.step, found.mean_iou, told)
        if found.mean_iou > run.best:
            checkpoints.write_weights(start, kept(run), folder / BEST)
    run.best = max(run.best, found.mean_iou)
    return found.mean_iou

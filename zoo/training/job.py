"""Fine-tuning from end to end: a weights file and a dataset enter, a weights file leaves."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from torch import Tensor

from ...converters.files import folder_for, write_text
from ...converters.weights import Weights
from ...proto.errors import UsageError, ZooError, listing
from ..data.loader import loader
from . import checkpoints
from .checkpoints import Saved
from .config import TrainConfig, differences, from_mapping, to_yaml
from .data import Data, opened, prepared, scanned, way
from .engine import Engine, make_engine, precision_state
from .groups import parameter_groups
from .log import Log
from .loop import Run, stopping, updates
from .model import RunningMean, begun, demand_statistics, fitted, make_model
from .objective import class_weights, make_objective
from .sharding import part, restore_solver, solver_state, whole
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
    progress: Callable[[int, int], None] | None = None,
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
    show, progress, bar
        Prints a line; is told how many samples of how many were scanned; whether a bar is
        drawn on the terminal below the lines.

    Raises
    ------
    ZooError
        Whatever the user can mend: data, weights, settings, a full disk, a loss that is
        not a number.

    """
    folder = folder_for(Path(output))
    saved = _resumed(folder, config, resume)
    engine = make_engine(config)
    _demand_shared(engine, folder, saved)
    first = engine.global_rank == 0
    show = show if first else lambda _: None
    given = begun(weights, config, numerics)
    _demand_known(config, given)
    train, val = opened(config)
    start, told = fitted(given, config, train.legend.names)
    class_weights(config.class_weights, [1] * len(train.legend.names))  # Whether they are as many.
    demand_statistics(start, config, engine.world_size)
    if saved is not None:
        checkpoints.demand_same_net(saved, start)
    show(f"scanning {len(train.samples)} samples" + (f" and {len(val.samples)}" if val else ""))
    reports = scanned(config, train, val, progress) if first else None
    data = prepared(config, engine.broadcast(reports))
    for note in filter(None, (*data.notes, told)):
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


def _demand_known(config: TrainConfig, given: Weights) -> None:
    """Raise what a name that does not exist raises, before minutes of scanning."""
    way(config)
    make_objective(
        config, given.numerics, 2, channel=0 if config.binary else None,
        class_weights=[1.0, 1.0] if config.class_weights else None,
    )  # fmt: skip


def _demand_shared(engine: Engine, folder: Path, saved: Saved | None) -> None:
    """Raise `UsageError` if the machines do not see the same checkpoint."""
    own = saved.step if saved else 0
    if own != (theirs := engine.broadcast(own)):
        raise UsageError(
            f"{folder}: this machine has the checkpoint of update {own}, the first one that of "
            f"{theirs}. Name a folder that all machines share (-o)."
        )


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
    if saved is not None:
        model.load_state_dict(dict(saved.model), strict=False)
    module = engine.setup_module(model)
    # Only now: a module that is spread over processes has new parameters.
    groups = parameter_groups(model.named_parameters(), config.groups, config.weight_decay)
    solver = make_solver(
        config.solver, groups, config.lr, config.momentum, nesterov=config.nesterov
    )
    solver = engine.setup_optimizers(solver)
    mean = RunningMean(model, config.ema) if config.ema else None
    run = Run(config, engine, model, module, solver, objective, mean)
    if saved is not None:
        restore_solver(solver, saved.solver)
        precision_state(engine, saved.precision)
        if mean is not None:
            for name, one in mean.state.items():
                one.copy_(part(saved.mean[name], one))
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
    miou: float | None = math.nan
    with stopping() as stopped:
        if _begins_with_validation(run, folder):
            miou = _judge(run, data, start, folder, log, stopped)
        for update in updates(run, iter(batches), stopped):
            step, last = update.step, update.step == config.steps
            if first and (last or step % config.log_every == 0):
                log.update(step, update.terms, update.rate, update.images_per_second)
            if first and update.skipped:
                log.say(f"step {step}: skipped, its gradients overflow in half precision")
            if last or (config.val_every and step % config.val_every == 0):
                miou = _judge(run, data, start, folder, log, stopped)
            if last or step % config.save_every == 0:
                _save(run, start, folder)
    done = run.step == config.steps and miou is not None
    if done:
        _write_kept(run, start, folder / RESULT)
    else:
        _save(run, start, folder)
        if first:
            log.say(f"stopped after {run.step} updates, and saved")
    engine.barrier()
    best = run.best if run.best >= 0 else math.nan
    return Result(
        folder / RESULT if done else None, run.step, math.nan if miou is None else miou, best
    )


def _begins_with_validation(run: Run, folder: Path) -> bool:
    """Say whether a validation comes before any update: by request, or the last one was cut."""
    if run.step == run.config.steps:
        return not (folder / RESULT).exists()
    return run.config.val_start and run.step == 0


def _save(run: Run, start: Weights, folder: Path) -> None:
    """Save a checkpoint: all processes bring what they hold, the first one writes."""
    saved = Saved(
        run.step,
        whole(run.model.state_dict()),
        solver_state(run.solver),
        to_yaml(run.config),
        whole(run.mean.state) if run.mean is not None else {},
        run.best,
        precision_state(run.engine),
    )
    _written(run.engine, lambda: checkpoints.save(folder, saved, start, run.config.keep))


def _write_kept(run: Run, start: Weights, path: Path) -> None:
    state = kept(run)
    _written(run.engine, lambda: checkpoints.write_weights(start, state, path))


def _written(engine: Engine, write: Callable[[], object]) -> None:
    """Have the first process write; what stops it stops them all, which else would wait for it."""
    problem = None
    if engine.global_rank == 0:
        try:
            write()
        except ZooError as error:
            problem = error
    if (problem := engine.broadcast(problem)) is not None:
        raise problem


def _judge(
    run: Run, data: Data, start: Weights, folder: Path, log: Log, stopped: Callable[[], bool]
) -> float | None:
    """Validate, tell, and keep the weights if they are the best so far; None if it was stopped."""
    if data.val is None:
        return math.nan
    found = validate(run, start, data.val, log, stopped)
    if found is None:
        return None
    if run.engine.global_rank == 0:
        told = dict(zip(data.val.legend.names, found.iou, strict=True))
        log.score(run.step, found.mean_iou, told)
    if found.mean_iou > run.best:
        run.best = found.mean_iou
        _write_kept(run, start, folder / BEST)
    return found.mean_iou

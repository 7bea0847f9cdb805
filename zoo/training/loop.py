"""The loop: batches enter a net, terms of the loss come out, the solver moves the weights."""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ...proto.errors import ZooError
from ..data.loader import Batch
from ..models.load import Native
from .config import TrainConfig
from .engine import Engine, precision_state
from .model import RunningMean
from .objective import Objective, settle
from .schedule import Schedule, rate
from .solver import set_rate


@dataclass(slots=True)
class Run:
    """A run in progress.

    ``module`` is the model as the engine wraps it; ``step`` counts the updates done.
    """

    config: TrainConfig
    engine: Engine
    model: Native
    module: nn.Module
    solver: Optimizer
    objective: Objective
    mean: RunningMean | None = None
    step: int = 0
    best: float = -1.0


@dataclass(frozen=True, slots=True)
class Update:
    """What an update did: the terms of its loss, its rate, its speed.

    ``skipped`` is an update that fp16's gradients overflowed in: the weights stay, and the loss
    is scaled less from then on.
    """

    step: int
    terms: dict[str, float]
    rate: float
    images_per_second: float
    skipped: bool = False


def schedule(config: TrainConfig) -> Schedule:
    """Return the schedule that a config comes to."""
    return Schedule(
        config.schedule, config.lr, config.steps, config.power, config.step_size, config.gamma,
        config.schedule_every,
    )  # fmt: skip


def updates(
    run: Run, batches: Iterator[Batch], stopped: Callable[[], bool] = lambda: False
) -> Iterator[Update]:
    """Train until the last step, yielding after each update; ends early once ``stopped``.

    Raises
    ------
    ZooError
        The loss is not a number; nothing was done with it.

    """
    config, engine = run.config, run.engine
    way = schedule(config)
    while run.step < config.steps:
        began = time.monotonic()
        # Random numbers (dropout) are a function of the step, as the data are.
        torch.manual_seed(((config.seed << 40) + (run.step << 12) + engine.global_rank) % 2**63)
        settle(run.objective, config, run.step)
        now = rate(way, run.step)
        set_rate(run.solver, now)
        names: list[str] = []
        sums: Tensor = torch.zeros((), device=engine.device)
        seen: list[str] = []
        for batch in range(config.accumulate):
            terms, ids = _backward(run, next(batches), last=batch == config.accumulate - 1)
            names, sums = list(terms), sums + torch.stack(list(terms.values()))
            seen += ids
        sent = torch.cat([sums / config.accumulate, sums.new_tensor([float(stopped())])])
        *values, stop = engine.all_reduce(sent, reduce_op="mean").tolist()
        told = dict(zip(names, values, strict=True))
        _demand_numbers(told, run.step, now, seen)
        if config.clip:
            engine.clip_gradients(
                run.module, run.solver, max_norm=config.clip, error_if_nonfinite=False
            )
        scale = precision_state(engine).get("scale", 0.0)
        run.solver.step()
        run.solver.zero_grad()
        skipped = precision_state(engine).get("scale", 0.0) < scale
        if run.mean is not None:
            run.mean.update(run.model)
        run.step += 1
        count = config.accumulate * config.batch_size * engine.world_size
        speed = count / (time.monotonic() - began)
        yield Update(run.step, told, now, speed, skipped)
        if stop:
            return


def _backward(run: Run, batch: Batch, *, last: bool) -> tuple[dict[str, Tensor], list[str]]:
    """Add the gradients of one batch; processes exchange them after the last."""
    engine = run.engine
    held: Any = {
        key: one.to(engine.device, non_blocking=True) if isinstance(one, Tensor) else one
        for key, one in batch.items()
    }
    apart = not last and engine.world_size > 1
    with engine.no_backward_sync(run.module, enabled=apart):
        terms = run.objective(run.module(held["image"]), held)
        engine.backward(sum(terms.values(), torch.zeros(())) / run.config.accumulate)
    return {name: one.detach() for name, one in terms.items()}, batch["id"]


def _demand_numbers(terms: dict[str, float], step: int, rate: float, seen: list[str]) -> None:
    if all(math.isfinite(one) for one in terms.values()):
        return
    parts = ", ".join(f"{name} {value:g}" for name, value in terms.items())
    raise ZooError(
        f"update {step + 1}: the loss is not a number ({parts}), at a rate of {rate:g}, after "
        f"the samples {', '.join(seen[:20])}. The weights before it are in the last checkpoint. "
        "Lower the rate (--lr), clip the gradients (--clip 1), or look at these samples."
    )


@contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Notice SIGTERM and Ctrl-C instead of dying of them; a second one is obeyed at once."""
    asked = False

    def notice(number: int, _: object) -> None:
        nonlocal asked
        asked = True
        signal.signal(number, before[number])

    before: dict[int, Any] = {}
    try:
        for one in (signal.SIGTERM, signal.SIGINT):
            before[one] = signal.signal(one, notice)
    except ValueError:  # Not the main thread: whoever has that has the signals.
        before = {}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""mIoU while training: a run's weights as they are kept, judged as ``evaluate`` does."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ...converters.weights import Weights
from ..data.dataset import Dataset
from ..data.images import read_mask, read_photo
from ..evaluation.evaluate import Judge, Work, count_dataset
from ..evaluation.metrics import Scores, scores
from ..evaluation.paint import palette
from ..models.load import Native, build
from .log import Log
from .loop import Run
from .sharding import whole

Ids = NDArray[np.uint8]


def kept(run: Run) -> dict[str, Tensor]:
    """Return the weights that a run is after: their running mean, where there is one.

    All processes take part.
    """
    return whole(run.mean.state if run.mean is not None else run.model.state_dict())


def validate(
    run: Run, start: Weights, dataset: Dataset, log: Log, stopped: Callable[[], bool]
) -> Scores | None:
    """Score the weights on all processes, and show the first samples in TensorBoard.

    ``start`` is what the run's model was built of. None if a process was ``stopped`` on the way.
    """
    wanted = run.objective.channel
    shown = {one.id: one for one in dataset.samples[: run.config.panels]}
    predicted: dict[str, Ids] = {}

    def keep(name: str, ids: Ids) -> None:
        if name in shown:
            predicted[name] = ids

    judge = Judge(wanted, by_sign=wanted is not None, trimap=0, boundary=False, keep=keep)
    work = Work(workers=run.config.workers, progress=log.judging, stopped=stopped)
    counts = count_dataset(_copied(run, start), dataset, judge=judge, work=work)
    if len(counts.images) < sum(one.label is not None for one in dataset.samples):
        return None
    if log.board is not None:
        colours = palette(dataset.legend.colours)
        for name, ids in predicted.items():
            sample = shown[name]
            truth = read_mask(sample.label, dataset.legend) if sample.label else ids
            sides = [read_photo(sample.image), colours[truth], colours[ids]]
            log.panel(run.step, name, np.concatenate(sides, 1))
    return scores(counts)


def _copied(run: Run, start: Weights) -> Native:
    """Return a net of the weights that are kept, whole and not compiled, on each process.

    Each process has its own BatchNorm statistics; the first one's are those that are saved.
    """
    model = build(start)
    model.load_state_dict(kept(run), strict=False)
    if run.engine.world_size > 1:
        own = list(model.buffers())
        for one, held in zip(own, run.engine.broadcast(own), strict=True):
            one.copy_(held)
    return model.to(run.engine.device)

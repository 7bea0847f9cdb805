"""mIoU while training: a run's weights as they are kept, judged as ``evaluate`` does."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..data.dataset import Dataset
from ..data.images import read_mask, read_photo
from ..evaluation.evaluate import Judge, Work, count_dataset
from ..evaluation.metrics import Scores, scores
from ..evaluation.paint import palette
from .log import Log
from .loop import Run

Ids = NDArray[np.uint8]


def kept(run: Run) -> dict[str, Tensor]:
    """Return the weights that a run is after: their running mean, where there is one."""
    return run.mean.state if run.mean is not None else run.model.state_dict()


def validate(run: Run, dataset: Dataset, log: Log) -> Scores:
    """Score the weights on all processes, and show the first samples in TensorBoard."""
    wanted = run.objective.channel
    shown = {one.id: one for one in dataset.samples[: run.config.panels]}
    predicted: dict[str, Ids] = {}

    def keep(name: str, ids: Ids) -> None:
        if name in shown:
            predicted[name] = ids

    _share_statistics(run)
    judge = Judge(wanted, by_sign=wanted is not None, trimap=0, boundary=False, keep=keep)
    with _as_kept(run):
        counts = count_dataset(
            run.model, dataset, judge=judge, work=Work(workers=run.config.workers)
        )
    if log.board is not None:
        colours = palette(dataset.legend.colours)
        for name, ids in predicted.items():
            sample = shown[name]
            truth = read_mask(sample.label, dataset.legend) if sample.label else ids
            sides = [read_photo(sample.image), colours[truth], colours[ids]]
            log.panel(run.step, name, np.concatenate(sides, 1))
    return scores(counts)


def _share_statistics(run: Run) -> None:
    """Give every process the first one's BatchNorm statistics, which are those that are saved."""
    if run.engine.world_size > 1:
        own = list(run.model.buffers())
        for one, held in zip(own, run.engine.broadcast(own), strict=True):
            one.copy_(held)


@contextmanager
def _as_kept(run: Run) -> Iterator[None]:
    """Put the running mean in the weights' place for a while."""
    if run.mean is None:
        yield
        return
    own = {name: one.clone() for name, one in run.model.state_dict().items()}
    run.model.load_state_dict(run.mean.state, strict=False)
    try:
        yield
    finally:
        run.model.load_state_dict(own)

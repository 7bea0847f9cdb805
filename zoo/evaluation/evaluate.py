"""A model and a dataset become an `Evaluation`: one confusion matrix over the whole set.

Every image is judged at its original size, or on its centre crop. Under ``torch.distributed``
the processes share the images and add up their counts, so each gets what one alone would.
"""

import math
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from ... import __version__
from ...proto.errors import MismatchError, UsageError, listing
from ..data.dataset import Dataset
from ..data.loader import Batch, evaluation_loader
from ..models.inference import Network, scoring
from ..models.optimize import Optimize, Precision
from .metrics import Counts, Scores, count, gather, scores, total
from .processes import place
from .protocol import Protocol, decide, describe, score
from .published import Published

TRIMAP = 10  # Pixels around a boundary.


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was evaluated, how, and what came out.

    Attributes
    ----------
    subject
        The model, in words.
    files
        Name of each weights file to its sha256.
    dataset, split, classes
        What it was judged on; the classes' names by id.
    numerics
        The profile that the weights ran under.
    foreign
        Whether that is another than the weights' own, by request.
    protocol, protocol_text
        How images were scored, as data and in a line.
    precision, trimap
        Of the arithmetic; how many pixels around a boundary the trimap is wide, 0 for none.
    scores
        The ratios.
    confusion
        Pixels of the row's true class given the column's.
    images
        IoU of each image by its id.
    published
        What others measured of these weights on this dataset.
    skipped
        What was left out, and why.
    environment
        Versions of what took part.

    """

    subject: str
    files: Mapping[str, str]
    dataset: str
    split: str
    classes: tuple[str, ...]
    numerics: str
    foreign: bool
    protocol: Protocol
    protocol_text: str
    precision: Precision
    trimap: int
    scores: Scores
    confusion: tuple[tuple[int, ...], ...]
    images: Mapping[str, float]
    published: tuple[Published, ...] = ()
    skipped: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def headline(self) -> str:
        """The outcome in one line."""
        return (
            f"mIoU {self.scores.mean_iou:.2%} on {len(self.images)} images of {self.dataset} "
            f"{self.split} ({self.protocol_text}; {self.numerics})"
        )

    def worst(self, number: int) -> list[str]:
        """Return the ids of the images with the lowest IoU, the lowest first.

        An image that is void all over has none, and is not among them.
        """
        known = [name for name, iou in self.images.items() if not math.isnan(iou)]
        return sorted(known, key=lambda name: (self.images[name], name))[:number]


@dataclass(frozen=True, slots=True)
class Judge:
    """What is done with each image's scores.

    Attributes
    ----------
    wanted, by_sign
        See `protocol.decide`: for a dataset of one class against the rest.
    trimap, boundary
        See `metrics.count`.
    keep
        Is given each image's id and predicted class ids (height, width).

    """

    wanted: int | None = None
    by_sign: bool = False
    trimap: int = TRIMAP
    boundary: bool = True
    keep: Callable[[str, NDArray[np.uint8]], None] | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """How the work is done; of these only ``precision`` is meant to change a result.

    Attributes
    ----------
    precision
        Of the network's arithmetic; None is fp32, or the quicker one of an optimised network.
    batch_size
        Images of equal size that follow each other are scored together, up to so many.
    workers
        Processes that decode; 0 decodes in this one.
    progress
        Is told how many images of how many this process has done.
    optimize
        See `load`; for who opens the network.
    stopped
        Is asked before each group of images; those that follow a yes are not scored.

    """

    precision: Precision | None = None
    batch_size: int = 1
    workers: int = 0
    progress: Callable[[int, int], None] | None = None
    optimize: Optimize | None = None
    stopped: Callable[[], bool] = lambda: False


def count_dataset(
    model: Network,
    dataset: Dataset,
    protocol: Protocol | None = None,
    judge: Judge | None = None,
    work: Work | None = None,
) -> Counts:
    """Score every image of a dataset and count, on all processes together.

    The model stays on its device, which does the work, and in its mode; its profile is obeyed.
    Samples without masks are predicted and not counted.

    Raises
    ------
    MismatchError
        The model's classes are not the dataset's, or it has no samples.

    """
    protocol, judge, work = protocol or Protocol(), judge or Judge(), work or Work()
    classes = len(dataset.legend.names)
    _demand_fit(model, dataset, judge)
    if judge.by_sign and protocol.gives_probabilities:
        raise UsageError("by sign: needs scores, and this protocol gives probabilities.")
    if judge.keep and protocol.crop:
        raise UsageError("centre crop: is to judge on; predictions to keep are of whole images.")
    rank, world = place()
    batches = evaluation_loader(
        dataset, model.numerics, crop=protocol.crop, rank=rank, world=world, workers=work.workers
    )
    masked = {sample.id for sample in dataset.samples if sample.label is not None}
    done = 0

    def counts() -> Iterator[Counts]:
        nonlocal done
        for group in alike(batches, work.batch_size):
            if work.stopped():
                return
            # Each from its own page-locked memory, where there is a GPU; a joint one is not.
            images = torch.cat([one["image"].to(device, non_blocking=True) for one in group])
            found = score(model, images, protocol)
            for ids, one in zip(
                decide(found, judge.wanted, by_sign=judge.by_sign), group, strict=True
            ):
                name = one["id"][0]
                if judge.keep:
                    judge.keep(name, ids.cpu().numpy())
                if name in masked:
                    truth = one["label"][0].to(device)
                    yield count(
                        ids, truth, name, classes, trimap=judge.trimap, boundary=judge.boundary
                    )
            done += len(group)
            if work.progress:
                work.progress(done, len(batches))

    with scoring(model, work.precision) as device:
        mine = total(counts(), classes)
    return gather(mine)


def alike(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Group neighbours of equal size, up to ``size`` of them."""
    group: list[Batch] = []
    for batch in batches:
        if group and (len(group) == size or batch["image"].shape != group[0]["image"].shape):
            yield group
            group = []
        group.append(batch)
    if group:
        yield group


def evaluate(
    model: Network,
    dataset: Dataset,
    protocol: Protocol | None = None,
    judge: Judge | None = None,
    work: Work | None = None,
) -> Evaluation:
    """Evaluate a model on a dataset, at the images' original size by default, void left out.

    Raises
    ------
    MismatchError
        The model's classes are not the dataset's, or samples have no mask.

    """
    protocol, judge, work = protocol or Protocol(), judge or Judge(), work or Work()
    bare = [str(sample.image) for sample in dataset.samples if sample.label is None]
    if bare:
        raise MismatchError(
            f"{dataset.name} {dataset.split}: {len(bare)} samples have no mask to judge by:\n"
            f"{listing(bare, 5)}\nPredict them (--submission, or deeplab-zoo predict)."
        )
    counts = count_dataset(model, dataset, protocol, judge, work)
    return Evaluation(
        subject=type(model).__name__,
        files={},
        dataset=dataset.name,
        split=dataset.split,
        classes=dataset.legend.names,
        numerics=model.numerics.name,
        foreign=False,
        protocol=protocol,
        protocol_text=describe(protocol, model.numerics, getattr(model.config, "scales", (1.0,))),
        precision=getattr(model, "precision", work.precision or "fp32"),
        trimap=judge.trimap,
        scores=scores(counts),
        confusion=tuple(map(tuple, counts.confusion.tolist())),
        images=dict(sorted(counts.images.items())),
        environment={
            "deeplab-zoo": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "device": str(next(model.parameters()).device),
        },
    )


def _demand_fit(model: Network, dataset: Dataset, judge: Judge) -> None:
    if not dataset.samples:
        raise MismatchError(f"{dataset.name} {dataset.split}: has no samples.")
    own, names = model.config.classes, dataset.legend.names
    if judge.wanted is None and own != len(names):
        raise MismatchError(
            f"model: has {own} classes, {dataset.name} {dataset.split} has {len(names)} "
            f"({', '.join(names[:3])}, ...). Name the dataset's classes (--classes), judge one "
            "class against the rest (--binary), or fine-tune with another head."
        )
    if judge.wanted is not None and not judge.wanted < own:
        raise UsageError(f"class {judge.wanted}: the model has {own} classes.")

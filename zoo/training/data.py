"""The samples that a run trains and is judged on: opened, scanned, filtered."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...proto.errors import UsageError
from ..data.augment import Augmentation, augmentation
from ..data.dataset import Dataset, binarise, demand_apart, only, without
from ..data.layouts import fuse_voc_sbd, open_dataset
from ..data.legend import class_id
from ..data.samplers import Sampling, sampling
from ..data.scan import Report, check, demand_sound, sound
from .config import TrainConfig


@dataclass(frozen=True, slots=True)
class Data:
    """What a run reads.

    Attributes
    ----------
    train, val
        Samples; ``val`` is None where nothing is validated. With ``binary`` they have two
        classes.
    chosen
        The class that is trained against the rest, by its id; None for all classes.
    pixels
        Of each class, in the training samples before they were filtered.
    order
        How the training samples are drawn.
    notes
        What the user should know.

    """

    train: Dataset
    val: Dataset | None
    chosen: int | None
    pixels: tuple[int, ...]
    order: Sampling
    notes: tuple[str, ...]


def opened(config: TrainConfig) -> tuple[Dataset, Dataset | None]:
    """Open the samples to train on and those to judge on.

    Raises
    ------
    UsageError
        No layout fits, no such split, no such class.
    MismatchError
        Samples are in both.

    """
    if not config.data:
        raise UsageError("data: no folder or list to train on was given.")
    train = _open(config, config.data, config.split, config.labels)
    for name in filter(None, (config.binary, config.only, config.without)):
        class_id(train.legend, name)
    place = config.val_data or config.data
    judged = config.val_split and (config.val_data or Path(place).is_dir())
    masks = config.val_labels or config.labels
    val = _open(config, place, config.val_split, masks) if judged else None
    if val is not None:
        if val.samples == train.samples:
            raise UsageError(
                f"val_split: {place} has one list of samples, which is trained on. Name another "
                "place (--val-data), or none (--val-split '')."
            )
        demand_apart(train, val)
        if config.val_samples:
            val = replace(val, samples=val.samples[: config.val_samples])
    return train, val


def _open(config: TrainConfig, path: str, split: str, labels: str) -> Dataset:
    if config.sbd:
        return fuse_voc_sbd(path, config.sbd, split)
    return open_dataset(
        path,
        split,
        layout=config.layout or None,
        images=config.images or None,
        labels=labels or None,
        classes=config.classes or None,
    )


def scanned(
    config: TrainConfig,
    train: Dataset,
    val: Dataset | None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Report]:
    """Decode everything once; problems are in the reports."""
    return [check(one, config.threads, progress) for one in (train, val) if one is not None]


def prepared(config: TrainConfig, reports: Sequence[Report]) -> Data:
    """Filter what was scanned, as the config says.

    Raises
    ------
    ZooError
        Samples that cannot be used, unless they may be left out; nothing is left.

    """
    notes = []
    parts = []
    for report in reports:
        if config.skip_bad and report.bad:
            where = f"{report.dataset.name} {report.dataset.split}"
            notes.append(f"{where}: left out {len(report.bad)} bad samples")
            report = sound(report)[1]
        demand_sound(report)
        parts.append(report)
    dataset, present = parts[0].dataset, parts[0].present
    shown = dict(zip((one.id for one in dataset.samples), present, strict=True))
    for name, narrowed in ((config.only, only), (config.without, without)):
        if name:
            dataset = narrowed(dataset, [shown[one.id] for one in dataset.samples], name)
    if not dataset.samples:
        raise UsageError(f"{dataset.name} {dataset.split}: no sample is left by the filters.")
    chosen = class_id(dataset.legend, config.binary) if config.binary else None
    order = sampling(
        config.sampling,
        len(dataset.samples),
        config.seed,
        [shown[one.id] for one in dataset.samples],
        0 if chosen is None else chosen,
    )
    val = parts[1].dataset if len(parts) > 1 else None
    if config.binary:
        dataset = binarise(dataset, config.binary)
        val = None if val is None else binarise(val, config.binary)
    return Data(dataset, val, chosen, parts[0].pixels, order, tuple(notes))


def way(config: TrainConfig) -> Augmentation:
    """Return the augmentation that a config comes to."""
    found = augmentation(config.augmentation)
    if config.crop:
        squash = config.crop if found.squash else 0
        found = replace(found, crop=0 if squash else config.crop, squash=squash)
    if not config.random_scale:
        found = replace(found, scale=(1.0, 1.0), scales=())
    return replace(found, mirror=found.mirror and config.random_mirror)

"""Datasets: lists of samples with a legend, and the algebra on such lists."""

from collections import defaultdict
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from ...proto.errors import MismatchError, listing
from .legend import Legend, class_id, one_against_rest


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture and its mask; a picture of a test set has none."""

    id: str
    image: Path
    label: Path | None


@dataclass(frozen=True, slots=True)
class Dataset:
    """Samples in the order of their list, and what their masks mean."""

    name: str
    split: str
    samples: tuple[Sample, ...]
    legend: Legend


def union(*parts: Dataset) -> Dataset:
    """Return the samples of all parts, of each id the first that is met.

    Raises
    ------
    MismatchError
        The parts have different classes, or masks that mean them by different values.

    """
    if any(part.legend != parts[0].legend for part in parts):
        counts = ", ".join(f"{part.name}: {len(part.legend.names)} classes" for part in parts)
        raise MismatchError(f"datasets whose masks have other values cannot be joined ({counts}).")
    samples: dict[str, Sample] = {}
    for part in parts:
        for sample in part.samples:
            samples.setdefault(sample.id, sample)
    names = "+".join(dict.fromkeys(part.name for part in parts))
    splits = "+".join(dict.fromkeys(part.split for part in parts))
    return Dataset(names, splits, tuple(samples.values()), parts[0].legend)


def demand_one_image_each(parts: Sequence[Dataset]) -> None:
    """Raise `MismatchError`, naming them, if an id has several images: `union` would keep one."""
    images: dict[str, set[Path]] = defaultdict(set)
    for sample in (one for part in parts for one in part.samples):
        images[sample.id].add(sample.image)
    if shared := [
        f"{one}: {', '.join(map(str, sorted(of)))}" for one, of in images.items() if len(of) > 1
    ]:
        splits = "+".join(part.split for part in parts)
        raise MismatchError(
            f"{parts[0].name} {splits}: images have the same name:\n{listing(shared)}"
        )


def minus(dataset: Dataset, *others: Dataset) -> Dataset:
    """Return the samples whose ids are in none of the others."""
    gone = {sample.id for other in others for sample in other.samples}
    kept = tuple(sample for sample in dataset.samples if sample.id not in gone)
    return replace(dataset, samples=kept)


# Layouts of anybody's files, whose ids may mean another picture in another folder.
ANYBODYS = {"folders", "list"}


def demand_apart(train: Dataset, held_out: Dataset) -> None:
    """Raise `MismatchError`, naming them, if samples to be judged on are also trained on."""
    trained = {sample.id: sample.image for sample in train.samples}
    shared = [one for one in held_out.samples if one.id in trained]
    if {train.name, held_out.name} <= ANYBODYS:
        shared = [one for one in shared if one.image.resolve() == trained[one.id].resolve()]
    if shared:
        raise MismatchError(
            f"{len(shared)} samples are in {train.name} {train.split} and in {held_out.name} "
            f"{held_out.split}:\n{listing((one.id for one in shared), 5)}\n"
            "Train on minus(train, held_out)."
        )


def binarise(dataset: Dataset, name: str) -> Dataset:
    """Return the dataset with two classes, ``name`` and the rest; void stays void."""
    return replace(dataset, legend=one_against_rest(dataset.legend, name))


def only(dataset: Dataset, present: Sequence[Set[int]], name: str) -> Dataset:
    """Return the samples that show the class ``name``.

    ``present`` has the classes of each sample, as `scan.check` reports them.
    """
    wanted = class_id(dataset.legend, name)
    kept = (s for s, seen in zip(dataset.samples, present, strict=True) if wanted in seen)
    return replace(dataset, samples=tuple(kept))


def without(dataset: Dataset, present: Sequence[Set[int]], name: str) -> Dataset:
    """Return the samples that do not show the class ``name``; ``present`` as in `only`."""
    shown = {sample.id for sample in only(dataset, present, name).samples}
    kept = tuple(sample for sample in dataset.samples if sample.id not in shown)
    return replace(dataset, samples=kept)

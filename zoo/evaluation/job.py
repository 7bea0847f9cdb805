"""Weights files and a dataset become evaluations and their reports in a folder."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ...converters.files import folder_for, sha256, write_text
from ...proto.errors import StorageError, UsageError
from ..data.dataset import Dataset
from ..data.legend import Legend
from ..data.loader import evaluation_loader
from ..models.inference import Network, photos, scoring
from ..models.load import file_of
from ..strict_json import dumps
from .evaluate import Evaluation, Judge, Work, count_dataset, evaluate
from .inputs import is_glob, matching
from .network import open_network
from .page import Shown, curve_page, page
from .paint import palette
from .processes import is_first
from .protocol import Protocol, decide, score
from .published import published
from .report import curve_fields, curve_markdown, fields, markdown
from .submission import submission

WORST = 8  # Images that the page shows.


def checkpoints(given: Sequence[str]) -> dict[Path, str | None]:
    """Return the files that are meant, in order, each with the entry of the registry it is.

    Globs are sorted, numbers in them as numbers. An entry is fetched.

    Raises
    ------
    UsageError
        Something does not exist, or a glob finds nothing.

    """
    found: dict[Path, str | None] = {}
    for text in given:
        many = is_glob(text) and not Path(text).exists()
        paths = sorted(matching(text)[1], key=_in_order) if many else [file_of(text)]
        if not paths:
            raise UsageError(f"{text}: no file fits.")
        entry = text if paths != [Path(text)] and not many else None
        found.update(dict.fromkeys(paths, entry))
    return found


def _in_order(path: Path) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", str(path))
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def evaluate_files(
    files: Mapping[Path, str | None],
    dataset: Dataset,
    folder: Path,
    protocol: Protocol,
    judge: Judge,
    work: Work,
    device: torch.device,
    *,
    numerics: str | None = None,
    evaluate_as: str | None = None,
    skipped: Sequence[str] = (),
    overwrite: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> list[Evaluation]:
    """Evaluate weights files one after the other and write a report of each.

    Several files' reports go to folders of their names, and their curve to ``folder``. Of
    several processes the first one writes.

    Parameters
    ----------
    files, device
        What `checkpoints` returned, and where it runs.
    dataset, protocol, judge, work
        See `evaluate`. With ``judge.wanted`` the dataset has two classes, that one and the rest.
    folder, overwrite
        Where the reports go, and whether older ones may be replaced.
    numerics, evaluate_as
        The profile of files that name none; another than their own, by request.
    skipped
        What was left out of the dataset, for the report.
    say
        Is told what is being done.

    """
    first = is_first()
    places = _folders(folder, files)
    # A test set has no masks: it is predicted for who keeps it, and not judged.
    judging = judge.keep is None or any(sample.label for sample in dataset.samples)
    if first and judging:
        _demand_free(folder, places, overwrite=overwrite)
    points = []
    for number, ((path, entry), own) in enumerate(zip(files.items(), places, strict=True), 1):
        say(f"{path}" + (f" ({number} of {len(files)})" if len(files) > 1 else ""))
        model = open_network(
            str(path), device, numerics, evaluate_as, work.optimize, work.precision
        )
        fitted = fitting(judge, model.config.classes)
        if not judging:
            count_dataset(model, dataset, protocol, fitted, work)
            continue
        found = replace(
            evaluate(model, dataset, protocol, fitted, work),
            subject=_subject(path, entry),
            files={path.name: sha256(path)},
            foreign=evaluate_as is not None,
            published=published(entry, dataset) if entry else (),
            skipped=tuple(skipped),
        )
        points.append(found)
        if first:
            _write(found, dataset.legend, _worst(model, dataset, found, fitted), own)
    if first and len(points) > 1:
        write_text(folder / "curve.json", dumps(curve_fields(points)) + "\n")
        write_text(folder / "curve.md", "\n".join(curve_markdown(points)) + "\n")
        write_text(folder / "curve.html", curve_page(points))
    return points


def submitting(
    path: Path,
    files: Mapping[Path, str | None],
    dataset: Dataset,
    competition: str,
    *,
    overwrite: bool,
) -> AbstractContextManager[Callable[[str, NDArray[np.uint8]], None]]:
    """Open a submission of one model's predictions, see `submission`."""
    if len(files) > 1:
        raise UsageError(f"--submission: is of one model, {len(files)} are given.")
    table = palette(dataset.legend.colours)
    return submission(path, dataset.split, table, competition, overwrite=overwrite)


def fitting(judge: Judge, classes: int) -> Judge:
    """Return the judge of one class against the rest for a network with so many outputs.

    Two outputs are the rest and the class, one is the class's alone.
    """
    if judge.wanted is None or classes > 2:
        return judge
    return replace(judge, wanted=None if classes == 2 else 0, by_sign=classes == 1)


def _demand_free(folder: Path, places: Sequence[Path], *, overwrite: bool) -> None:
    """Raise `StorageError` if the folder cannot take the reports, or holds some already."""
    results = [one / "report.json" for one in places] + [folder / "curve.json"]
    there = [str(one) for one in results if one.exists()]
    if there and not overwrite:
        raise StorageError(
            f"{there[0]}: is there already. Choose another folder (-o), or --overwrite."
        )
    folder_for(folder)


def _subject(path: Path, entry: str | None) -> str:
    """Return what a model is called: as it was asked for, since a converted file is a digest."""
    return entry or path.stem


def _folders(folder: Path, files: Mapping[Path, str | None]) -> list[Path]:
    """Return each file's folder of reports: one file's is the folder itself."""
    if len(files) == 1:
        return [folder]
    names = [_subject(*one) for one in files.items()]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"checkpoints of the same name: {', '.join(twice)}.")
    return [folder / name for name in names]


def _write(found: Evaluation, legend: Legend, shown: Sequence[Shown], folder: Path) -> None:
    folder_for(folder)
    write_text(folder / "report.json", dumps(fields(found)) + "\n")
    write_text(folder / "report.md", "\n".join(markdown(found)) + "\n")
    write_text(folder / "report.html", page(found, legend, shown))


def _worst(model: Network, dataset: Dataset, found: Evaluation, judge: Judge) -> list[Shown]:
    """Predict the worst images once more, to be looked at."""
    samples = {sample.id: sample for sample in dataset.samples}
    worst = replace(dataset, samples=tuple(samples[name] for name in found.worst(WORST)))
    shown = []
    with scoring(model, found.precision) as device:
        for batch in evaluation_loader(worst, model.numerics, crop=found.protocol.crop):
            image, name = batch["image"], batch["id"][0]
            scores = score(model, image.to(device), found.protocol)
            given = decide(scores, judge.wanted, by_sign=judge.by_sign)
            photo = photos(image, model.numerics)[0].byte().permute(1, 2, 0)
            views = (photo, batch["label"][0].byte(), given[0].cpu())
            shown.append(Shown(name, found.images[name], *(one.numpy() for one in views)))
    return shown

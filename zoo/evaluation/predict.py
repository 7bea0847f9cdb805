"""A model and pictures become masks, colours, overlays and probabilities on the disk."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ...converters.files import folder_for, replacing
from ...proto.errors import FormatError, UsageError, ZooError, listing
from ..data.images import read_photo
from ..data.legend import Legend, find_legend
from ..models.inference import Network, prepare, scoring
from .evaluate import Work
from .heatmap import Reach, gradients, sheet
from .inputs import Input
from .paint import indexed, overlay, palette, png
from .processes import everyones, place
from .protocol import Protocol, decide, score

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
AHEAD = 8  # Pictures that are decoded while the network works.

# What each kind of result adds to the picture's name.
ENDINGS = {
    "mask": ".png",
    "colour": "-colour.png",
    "overlay": "-overlay.png",
    "npz": "-probabilities.npz",
    "npy": "-probabilities.npy",
    "heatmap": "-heatmap.png",
    "gradients": "-gradients.npy",
}


@dataclass(frozen=True, slots=True)
class Predicted:
    """What all processes did: files written, and pictures that could not be read, with reasons."""

    written: tuple[Path, ...]
    skipped: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Made:
    """What came of a picture: scores, and what follows from them, computed when it is wanted."""

    photo: Bytes
    scores: Tensor
    protocol: Protocol
    reach: Reach

    @cached_property
    def ids(self) -> Bytes:
        """Class ids (height, width)."""
        ids: Bytes = decide(self.scores[None])[0].cpu().numpy()
        return ids

    @cached_property
    def shares(self) -> Tensor:
        """Probabilities (classes, height, width)."""
        if self.protocol.gives_probabilities:
            return self.scores
        return self.scores.sigmoid() if len(self.scores) == 1 else self.scores.softmax(0)

    @cached_property
    def gradients(self) -> Floats:
        """The DenseCRF loss's gradients in the probabilities."""
        return gradients(self.shares, self.photo, self.reach)


def segment(
    model: Network, photos: Iterable[Bytes], protocol: Protocol | None = None, batch_size: int = 1
) -> Iterator[Tensor]:
    """Yield the scores (classes, height, width) of RGB photos (height, width, 3), in order.

    Neighbours of one size are scored together, up to ``batch_size``. Call it within
    `inference.scoring`.
    """
    device = next(model.parameters()).device
    protocol = protocol or Protocol()
    waiting: list[Tensor] = []

    def scored() -> Iterator[Tensor]:
        yield from score(model, torch.cat(waiting).to(device), protocol)
        waiting.clear()

    for photo in photos:
        image = prepare(photo, model.numerics)
        if waiting and (len(waiting) == batch_size or image.shape != waiting[0].shape):
            yield from scored()
        waiting.append(image)
    if waiting:
        yield from scored()


def legend_for(classes: int, given: str | None = None) -> Legend:
    """Return whose colours to paint in; by default those of the dataset with so many classes.

    Raises
    ------
    UsageError
        The legend given has another number of classes.

    """
    usual = {21: "voc", 19: "cityscapes", 11: "camvid"}.get(classes, classes)
    legend = find_legend(usual if given is None else given)
    if len(legend.names) != classes:
        raise UsageError(f"classes: {given} has {len(legend.names)}, the model {classes}.")
    return legend


def predict(
    model: Network,
    inputs: Sequence[Input],
    folder: Path,
    protocol: Protocol | None = None,
    work: Work | None = None,
    *,
    kinds: Sequence[str] = ("mask",),
    legend: Legend | None = None,
    reach: Reach | None = None,
    overwrite: bool = False,
    skip_bad: bool = False,
) -> Predicted:
    """Segment pictures and write the results under their names; sizes are the pictures'.

    Under ``torch.distributed`` the processes share the pictures.

    Parameters
    ----------
    model
        On the device to use.
    inputs
        What `inputs.find` found.
    folder
        Where results go; folders within are made as needed.
    protocol, work
        How images are scored, and how the work is done.
    kinds
        What to write: ``mask`` (class ids, with a palette), ``colour``, ``overlay``;
        probabilities (classes, height, width) in float32 as ``npz`` or ``npy``; where the
        DenseCRF loss pulls, as a ``heatmap`` of each class on one sheet, or as its
        ``gradients`` in the probabilities (classes, height, width), ``npy``.
    legend
        Whose names and colours.
    reach
        Of the DenseCRF loss.
    overwrite
        Replace results that are there.
    skip_bad
        Go on after a picture that cannot be read.

    Raises
    ------
    UsageError
        A result exists, or would overwrite a picture or another result; or a centre crop.
    FormatError
        A picture cannot be read; those before it are done.

    """
    protocol, work = protocol or Protocol(), work or Work()
    if protocol.crop:
        raise UsageError("centre crop: is to judge on; predictions are of whole pictures.")
    legend = legend or legend_for(model.config.classes)
    table = palette(legend.colours)
    targets = _targets(inputs, folder, kinds, overwrite=overwrite)
    everyones(None)  # All have looked before one writes.
    folder_for(folder)
    rank, world = place()
    mine = inputs[rank::world]
    skipped: list[str] = []
    written: list[Path] = []
    sound: list[tuple[Input, Bytes]] = []

    def photos() -> Iterator[Bytes]:
        for one, photo in _decoded(mine):
            if isinstance(photo, ZooError):
                if not skip_bad:
                    raise photo
                skipped.append(str(photo))
                continue
            sound.append((one, photo))
            yield photo

    with scoring(model, work.precision):
        for scores in segment(model, photos(), protocol, work.batch_size):
            one, photo = sound.pop(0)
            made = Made(photo, scores, protocol, reach or Reach())
            for kind, path in targets[one].items():
                folder_for(path.parent)
                with replacing(path) as temporary, temporary.open("wb") as file:
                    _write(kind, made, table, legend, file)
                written.append(path)
            if work.progress:
                work.progress(len(written) // len(kinds) + len(skipped), len(mine))
    parts = everyones(Predicted(tuple(written), tuple(skipped)))
    done = Predicted(
        tuple(path for part in parts for path in part.written),
        tuple(why for part in parts for why in part.skipped),
    )
    if not done.written:
        raise FormatError(
            f"not one of {len(inputs)} pictures could be read:\n{listing(done.skipped)}"
        )
    return done


def _targets(
    inputs: Sequence[Input], folder: Path, kinds: Sequence[str], *, overwrite: bool
) -> dict[Input, dict[str, Path]]:
    """Return where everything goes; raise `UsageError` where something would be lost."""
    unknown = [kind for kind in kinds if kind not in ENDINGS]
    if unknown or not kinds:
        raise UsageError(f"kinds: {list(kinds)}, expected some of {', '.join(ENDINGS)}.")
    targets = {
        one: {kind: folder / f"{one.name}{ENDINGS[kind]}" for kind in kinds} for one in inputs
    }
    pictures = {one.path.resolve() for one in inputs}
    taken: dict[Path, Path] = {}
    problems = []
    for one, paths in targets.items():
        for path in paths.values():
            other = taken.setdefault(path, one.path)
            if other != one.path:
                problems.append(f"{path}: of {other} and of {one.path}")
            elif path.resolve() in pictures:
                problems.append(f"{path}: is a picture to segment")
            elif path.exists() and not overwrite:
                problems.append(f"{path}: exists (--overwrite replaces it)")
    if problems:
        raise UsageError(
            f"{len(problems)} results would overwrite something:\n{listing(problems)}\n"
            "Choose another folder."
        )
    return targets


def _decoded(inputs: Sequence[Input]) -> Iterator[tuple[Input, Bytes | ZooError]]:
    """Yield each picture, or why it cannot be read, while others are being decoded."""

    def read(one: Input) -> Bytes | ZooError:
        try:
            return read_photo(one.path)
        except FormatError as error:
            return error

    rest = iter(inputs)
    with ThreadPoolExecutor(2) as pool:
        waiting = [(one, pool.submit(read, one)) for one in islice(rest, AHEAD)]
        while waiting:
            one, photo = waiting.pop(0)
            yield one, photo.result()
            waiting += [(more, pool.submit(read, more)) for more in islice(rest, 1)]


def _write(kind: str, made: Made, table: Bytes, legend: Legend, file: BinaryIO) -> None:
    """Write one kind of result."""
    if kind == "mask":
        file.write(indexed(made.ids, table))
    elif kind == "npy":
        np.save(file, made.shares.cpu().numpy())
    elif kind == "npz":
        np.savez_compressed(file, probabilities=made.shares.cpu().numpy())
    elif kind == "colour":
        file.write(png(Image.fromarray(table[made.ids])))
    elif kind == "overlay":
        file.write(png(Image.fromarray(overlay(made.photo, made.ids, table))))
    elif kind == "gradients":
        np.save(file, made.gradients)
    else:
        file.write(png(sheet(made.photo, made.gradients, legend.names)))

"""Files and folders become samples: lists of ids, lists of pairs, two folders."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path

from ...proto.errors import FormatError, MismatchError, StorageError, listing
from ...proto.source import read_text
from .dataset import Sample

PHOTOS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
MASKS = (".png", ".mat", ".bmp", ".tif", ".tiff")


def read_list(path: Path) -> list[list[str]]:
    """Return the words of each line that has any.

    In a line with a tab, tabs part the words, so that names may have spaces.

    Raises
    ------
    FormatError
        The file is not text, names nothing, repeats itself, or has lines of three words, or
        of one and others of two.
    ZooError
        The file is missing or cannot be read.

    """
    lines = read_text(path, "a list of images (text)").splitlines()
    split = [line.split("\t") if "\t" in line else line.split() for line in lines]
    rows = [words for row in split if (words := [word.strip() for word in row if word.strip()])]
    if not rows:
        raise FormatError(f"{path}: names no image.")
    if odd := [" ".join(row) for row in rows if len(row) > 2 or len(row) != len(rows[0])]:
        raise FormatError(
            f"{path}: lines that are neither all 'image' nor all 'image label':\n{listing(odd)}\n"
            "Names that have spaces need a tab after them."
        )
    if repeated := [
        f"{name}: {n} times" for name, n in Counter(r[0] for r in rows).items() if n > 1
    ]:
        raise FormatError(f"{path}: names images more than once:\n{listing(repeated)}")
    return rows


def by_stem(folder: Path, suffixes: Iterable[str], ending: str = "") -> dict[str, Path]:
    """Return the folder's pictures by name without suffix, sorted; hidden files are passed over.

    ``ending`` is what every stem must end with and loses (``_labelIds``).

    Raises
    ------
    StorageError
        There is no such folder, or it cannot be read.
    MismatchError
        Two files have the same name but for the suffix.

    """
    try:
        paths = sorted(folder.iterdir())
    except FileNotFoundError:
        raise StorageError(f"{folder}: no such folder.") from None
    except OSError as error:
        raise StorageError(f"{folder}: cannot be read ({error.strerror}).") from None
    wanted = tuple(suffixes)
    found: dict[str, Path] = {}
    twice = []
    for path in paths:
        if path.suffix.lower() not in wanted or path.name.startswith("."):
            continue
        if path.stem.endswith(ending):
            other = found.setdefault(path.stem.removesuffix(ending), path)
            twice += [f"{other.name} and {path.name}"] if other != path else []
    if twice:
        raise MismatchError(f"{folder}: has files of the same name:\n{listing(twice)}")
    return found


def from_ids(ids: Iterable[str], images: Path, labels: Path | None) -> tuple[Sample, ...]:
    """Find each id's picture and mask; one that is missing keeps the usual name.

    An id may lie in a folder of its own (``bonn/1``). `scan.check` then reports all that is
    missing at once.
    """
    photo = _finder(images, PHOTOS, ".jpg")
    mask = _finder(labels, MASKS, ".png") if labels else None
    return tuple(Sample(one, photo(one), mask(one) if mask else None) for one in ids)


def _finder(root: Path, suffixes: Sequence[str], usual: str) -> Callable[[str], Path]:
    """Return what finds an id's file; each folder is read once."""
    inside = cache(lambda folder: by_stem(folder, suffixes))

    def find(one: str) -> Path:
        there = root / f"{one}{usual}"
        return inside(there.parent).get(there.name.removesuffix(usual), there)

    return find


def from_pairs(rows: Sequence[list[str]], root: Path) -> tuple[Sample, ...]:
    """Take the rows of a list (``image label``, or only ``image``), relative to ``root``.

    A leading slash does not make a path absolute where it leads nowhere: DrSleep's lists
    begin every path with one. The id is the file's name, or its path where names recur.
    """
    stems = [Path(row[0]).stem for row in rows]
    if len(set(stems)) < len(stems):
        stems = [str(Path(row[0].lstrip("/")).with_suffix("")) for row in rows]
    return tuple(
        Sample(stem, _under(root, row[0]), _under(root, row[1]) if row[1:] else None)
        for stem, row in zip(stems, rows, strict=True)
    )


def _under(root: Path, name: str) -> Path:
    if name.startswith("/") and Path(name).exists():
        return Path(name)
    return root / name.lstrip("/")


def two_folders(images: Path, labels: Path) -> tuple[Sample, ...]:
    """Pair pictures and masks of the same name.

    Raises
    ------
    MismatchError
        Some have no counterpart; all are named.

    """
    photos, masks = by_stem(images, PHOTOS), by_stem(labels, MASKS)
    lonely = [f"{photos[one]}: no mask {labels / one}.png" for one in photos if one not in masks]
    lonely += [f"{masks[one]}: no picture {images / one}.jpg" for one in masks if one not in photos]
    if lonely:
        raise MismatchError(f"{len(lonely)} files have no counterpart:\n{listing(lonely)}")
    if not photos:
        raise FormatError(f"{images}: holds no pictures.")
    return tuple(Sample(one, photos[one], masks[one]) for one in photos)

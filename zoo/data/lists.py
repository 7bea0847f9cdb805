"""Files and folders become samples: lists of ids, lists of pairs, two folders."""

from collections.abc import Iterable
from pathlib import Path

from ...proto.errors import FormatError, MismatchError, StorageError, listing
from .dataset import Sample

PHOTOS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
MASKS = (".png", ".mat", ".bmp", ".tif", ".tiff")


def read_list(path: Path) -> list[list[str]]:
    """Return the words of each line that has any.

    Raises
    ------
    FormatError
        The file is missing, is not text, names nothing, or repeats itself.

    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise FormatError(f"{path}: no such list.") from None
    except UnicodeDecodeError:
        raise FormatError(f"{path}: is not a text file, expected a list of images.") from None
    rows = [words for line in lines if (words := line.split())]
    if not rows:
        raise FormatError(f"{path}: names no image.")
    seen: dict[str, int] = {}
    for words in rows:
        seen[words[0]] = seen.get(words[0], 0) + 1
    if repeated := [f"{name}: {count} times" for name, count in seen.items() if count > 1]:
        raise FormatError(f"{path}: names images more than once:\n{listing(repeated)}")
    return rows


def by_stem(folder: Path, suffixes: Iterable[str], ending: str = "") -> dict[str, Path]:
    """Return the folder's pictures by name without suffix, sorted; hidden files are passed over.

    ``ending`` is what every stem must end with and loses (``_labelIds``).

    Raises
    ------
    StorageError
        There is no such folder.
    MismatchError
        Two files have the same name but for the suffix.

    """
    if not folder.is_dir():
        raise StorageError(f"{folder}: no such folder.")
    wanted = tuple(suffixes)
    found: dict[str, Path] = {}
    twice = []
    for path in sorted(folder.iterdir()):
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

    ``scan.check`` then reports all that is missing at once.
    """
    photos = by_stem(images, PHOTOS)
    masks = by_stem(labels, MASKS) if labels else {}
    return tuple(
        Sample(
            one,
            photos.get(one, images / f"{one}.jpg"),
            masks.get(one, labels / f"{one}.png") if labels else None,
        )
        for one in ids
    )


def from_pairs(rows: Iterable[list[str]], root: Path) -> tuple[Sample, ...]:
    """Read lines ``image label`` (or only ``image``) relative to ``root``.

    A leading slash does not make a path absolute where it leads nowhere: DrSleep's lists
    begin every path with one. The id is the file's name, or its path where names recur.

    Raises
    ------
    FormatError
        A line has three words or more, or not as many as the first.

    """
    rows = list(rows)
    odd = [" ".join(row) for row in rows if len(row) > 2 or len(row) != len(rows[0])]
    if odd:
        raise FormatError(
            "list: lines that are neither all 'image' nor all 'image label':\n" + listing(odd)
        )
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

"""A folder or list becomes a `Dataset`: the layouts people keep their data in.

A layout is a test of the folder and a function that lists a split. The first whose test
passes is taken, unless the caller names one.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...proto.errors import UsageError
from .dataset import Dataset, Sample, demand_one_image_each, minus, union
from .legend import (
    CAMVID,
    CITYSCAPES,
    CITYSCAPES_IDS,
    COCO_STUFF,
    SCRIBBLE,
    VOC,
    Classes,
    Legend,
    find_legend,
)
from .lists import PHOTOS, by_stem, from_ids, from_pairs, read_list, two_folders

# What a CamVid frame's name begins with: the day's sequences and dusk.
CAMVID_FRAME = re.compile(r"(0001TP|0006R0|0016E5|Seq05VD)_")


@dataclass(frozen=True, slots=True)
class Request:
    """What to open: a place, a split, and folders for pictures and masks if not the usual."""

    path: Path
    split: str
    images: Path | None = None
    labels: Path | None = None


Found = tuple[tuple[Sample, ...], Legend | None]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a kind of dataset lies on the disk."""

    fits: Callable[[Path], bool]
    samples: Callable[[Request], Found]


def open_dataset(
    path: str | Path,
    split: str = "train",
    *,
    layout: str | None = None,
    images: str | Path | None = None,
    labels: str | Path | None = None,
    classes: Classes | None = None,
) -> Dataset:
    """Open a dataset from its folder or list.

    Parameters
    ----------
    path
        A folder in one of the layouts of `LAYOUTS`, or a list file.
    split
        Name of the list; ``train+val`` joins two.
    layout
        Name of a layout, to override recognition.
    images, labels
        Folders, absolute or under the dataset's own, in place of the layout's usual ones.
    classes
        A legend's name (``voc``), a number, the names, or a file of names; only needed where the
        layout does not tell.

    Raises
    ------
    UsageError
        No layout fits, or the classes are not known.
    FormatError
        A list is empty or malformed.
    MismatchError
        Files do not pair up, or several images have one name.
    ZooError
        A list or a folder is missing or cannot be read.

    """
    path = Path(path)
    name = layout or ("folders" if images and labels and path.is_dir() else recognise(path))
    if name not in LAYOUTS:
        raise UsageError(f"layout {name!r} is unknown, expected one of {', '.join(LAYOUTS)}.")
    parts = []
    for one in split.split("+"):
        request = Request(path, one, _folder(path, images), _folder(path, labels))
        samples, told = LAYOUTS[name].samples(request)
        legend = told if classes is None else find_legend(classes)
        if legend is None:
            raise UsageError(
                f"{path}: which classes? Give their number, their names, a file of names, or the "
                "name of a known dataset (--classes)."
            )
        parts.append(Dataset(name, one, samples, legend))
    demand_one_image_each(parts)
    return replace(union(*parts), split=split)


def recognise(path: Path) -> str:
    """Return the name of the layout that fits; raise `UsageError` if none does."""
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder.")
    for name, layout in LAYOUTS.items():
        if layout.fits(path):
            return name
    held = ", ".join(sorted(one.name for one in path.iterdir())[:8]) if path.is_dir() else "a file"
    raise UsageError(
        f"{path}: is none of the layouts {', '.join(LAYOUTS)} (it holds {held or 'nothing'}). "
        "Name two folders (--images, --labels) or a list file."
    )


def fuse_voc_sbd(voc: str | Path, sbd: str | Path, split: str = "train") -> Dataset:
    """Join PASCAL VOC 2012 with SBD, whose validation set holds VOC's training images.

    ``train`` is VOC train with SBD train and SBD val, less VOC val: 10582 images. ``val`` is
    VOC's own. Where both have a mask, VOC's is taken.
    """
    held_out = open_dataset(voc, "val", layout="voc")
    if split == "val":
        return held_out
    if split != "train":
        raise UsageError(f"split {split!r} of VOC with SBD: expected train or val.")
    own = open_dataset(voc, "train", layout="voc")
    more = open_dataset(sbd, "train+val", layout="sbd")
    return replace(minus(union(own, more), held_out), split="train")


def _folder(path: Path, given: str | Path | None) -> Path | None:
    if given is None:
        return None
    inside = (path if path.is_dir() else path.parent) / given
    return inside if inside.is_dir() else Path(given)


def _voc_root(path: Path) -> Path | None:
    for root in (path, path / "VOC2012", path / "VOCdevkit" / "VOC2012"):
        if (root / "JPEGImages").is_dir():
            return root
    return None


def _voc(request: Request) -> Found:
    root = _voc_root(request.path) or request.path
    lists = root / "ImageSets" / "Segmentation"
    rows = read_list(_list(lists, request.split))
    if request.labels:
        labels = request.labels
    else:
        augmented = root / "SegmentationClassAug"
        usual = root / "SegmentationClass"
        labels = augmented if "aug" in request.split or not usual.is_dir() else usual
    if len(rows[0]) > 1:
        return from_pairs(rows, root), VOC
    legend = SCRIBBLE if "scribble" in labels.name else VOC
    hidden = request.split == "test"
    images = request.images or root / "JPEGImages"
    return from_ids((row[0] for row in rows), images, None if hidden else labels), legend


def _sbd_root(path: Path) -> Path | None:
    for root in (path, path / "dataset", path / "benchmark_RELEASE" / "dataset"):
        if (root / "cls").is_dir() and (root / "img").is_dir():
            return root
    return None


def _sbd(request: Request) -> Found:
    root = _sbd_root(request.path) or request.path
    rows = read_list(_list(root, request.split))
    images, labels = request.images or root / "img", request.labels or root / "cls"
    return from_ids((row[0] for row in rows), images, labels), VOC


def _cityscapes(request: Request) -> Found:
    photos = request.images or request.path / "leftImg8bit"
    masks = request.labels or request.path / "gtFine"
    if not (photos / request.split).is_dir():
        raise UsageError(_no_split(photos, request.split))
    samples: list[Sample] = []
    kinds = {one.stem.rpartition("_")[2] for one in (masks / request.split).glob("*/*.png")}
    by_train_id = "labelTrainIds" in kinds and "labelIds" not in kinds
    kind = "labelTrainIds" if by_train_id else "labelIds"
    for city in sorted(one for one in (photos / request.split).iterdir() if one.is_dir()):
        found = by_stem(city, PHOTOS, "_leftImg8bit")
        there = masks / request.split / city.name
        samples += (
            Sample(one, photo, there / f"{one}_{masks.name}_{kind}.png")
            for one, photo in found.items()
        )
    return tuple(samples), CITYSCAPES if by_train_id else CITYSCAPES_IDS


# With the year: images/train and annotations/train are anybody's.
_COCO_SPLITS = ("train2017", "val2017", "train2014", "val2014")


def _coco_folders(path: Path, split: str) -> tuple[Path, Path] | None:
    for images in (path / "images", path):
        for labels in ("stuffthingmaps", "annotations"):
            for name in (split, f"{split}2017", f"{split}2014"):
                pair = images / name, path / labels / name
                if pair[0].is_dir() and pair[1].is_dir():
                    return pair
    return None


def _coco(request: Request) -> Found:
    found = _coco_folders(request.path, request.split)
    if found is None:
        inside = request.path / "images"
        raise UsageError(_no_split(inside if inside.is_dir() else request.path, request.split))
    images, labels = request.images or found[0], request.labels or found[1]
    return two_folders(images, labels), COCO_STUFF


def _coco_10k(request: Request) -> Found:
    rows = read_list(_list(request.path / "imageLists", request.split))
    images = request.images or request.path / "images"
    labels = request.labels or request.path / "annotations"
    return tuple(
        replace(one, label=labels / f"{one.id}.mat")
        for one in from_ids((row[0] for row in rows), images, None)
    ), COCO_STUFF


def _plain(request: Request) -> Found:
    """``images/`` and ``labels/``: by lists, by a folder per split inside, or all there is."""
    root = request.path
    images, labels = request.images or root / "images", request.labels or root / "labels"
    names = root / "classes.txt"
    legend = find_legend(names) if names.is_file() else None
    lists = sorted(one.stem for one in root.glob("*.txt") if one.name != "classes.txt")
    inside = images / request.split, labels / request.split
    if request.split in lists:
        rows = read_list(root / f"{request.split}.txt")
        samples = _from_list(rows, request.images or root, images, labels)
    elif inside[0] != images and inside[0].is_dir():
        samples = two_folders(*inside)
    elif lists:  # All pictures would mix what the lists keep apart.
        raise UsageError(
            f"{_no_split(root, request.split, lists)} A .txt that is no list belongs elsewhere."
        )
    else:
        samples = two_folders(images, labels)
    if legend is None and CAMVID_FRAME.match(samples[0].id):
        legend = CAMVID
    return samples, legend


def _list_file(request: Request) -> Found:
    """Ids or pairs; DrSleep's and isht7's lists are of VOC unless told otherwise."""
    rows, folder = read_list(request.path), request.path.parent
    samples = _from_list(rows, request.images or folder, request.images, request.labels)
    voc = _voc_root(folder) or any("SegmentationClass" in word for word in rows[0])
    return samples, VOC if voc else None


def _from_list(
    rows: list[list[str]], root: Path, images: Path | None, labels: Path | None
) -> tuple[Sample, ...]:
    """Read pairs and paths of pictures relative to ``root``, ids and names by the folders."""
    named = Path(rows[0][0]).suffix.lower() in PHOTOS
    if len(rows[0]) > 1 or (named and labels is None):
        return from_pairs(rows, root)
    if images is None:
        raise UsageError("a list of ids needs the folder of the pictures (--images, --labels).")
    if not named:
        return from_ids((row[0] for row in rows), images, labels)
    paths = [Path(row[0].lstrip("/")) for row in rows]
    below = (images / paths[0]).is_file()  # Else the list's folders are not these pictures'.
    return from_ids((str(p.with_suffix("")) if below else p.stem for p in paths), images, labels)


def _list(folder: Path, split: str) -> Path:
    if folder.is_dir() and not (folder / f"{split}.txt").is_file():
        raise UsageError(_no_split(folder, split, sorted(p.stem for p in folder.glob("*.txt"))))
    return folder / f"{split}.txt"


def _no_split(folder: Path, split: str, there: Sequence[str] | None = None) -> str:
    if there is None:
        there = sorted(one.name for one in folder.glob("*") if one.is_dir())
    return f"{folder}: has no split {split!r}, expected one of {', '.join(there) or 'none'}."


# In the order in which they are tried.
LAYOUTS = {
    "voc": Layout(lambda path: _voc_root(path) is not None, _voc),
    "sbd": Layout(lambda path: _sbd_root(path) is not None, _sbd),
    "cityscapes": Layout(lambda path: (path / "leftImg8bit").is_dir(), _cityscapes),
    "coco-stuff-10k": Layout(lambda path: (path / "imageLists").is_dir(), _coco_10k),
    "coco-stuff": Layout(
        lambda path: any(_coco_folders(path, split) for split in _COCO_SPLITS), _coco
    ),
    "folders": Layout(
        lambda path: (path / "images").is_dir() and (path / "labels").is_dir(), _plain
    ),
    "list": Layout(lambda path: path.is_file(), _list_file),
}

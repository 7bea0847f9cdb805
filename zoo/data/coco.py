"""COCO's instance annotations (JSON) become masks of class ids, one PNG for each picture.

Polygons and run lengths are rasterised by pycocotools, so that masks are COCO's own.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...converters.files import folder_for, replacing, write_text
from ...proto.errors import FormatError, MissingDependencyError, StorageError, UsageError, listing
from ..evaluation.paint import png
from .images import Bytes
from .legend import VOID, find_legend, legend
from .rewrite import demand_free

BACKGROUND = "background"
LARGEST = 65535  # Sides of a JPEG.

# COCO's name -> VOC's, where they differ.
VOC_NAMES = {
    "airplane": "aeroplane",
    "couch": "sofa",
    "dining table": "diningtable",
    "motorcycle": "motorbike",
    "potted plant": "pottedplant",
    "tv": "tvmonitor",
}

Shape = list[list[float]] | dict[str, Any]  # Polygons, or run lengths.


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of the annotations, and what is in it: category and shape of each instance."""

    name: str
    height: int
    width: int
    instances: tuple[tuple[int, Shape], ...]


@dataclass(frozen=True, slots=True)
class Annotations:
    """What a file of instances says; categories by their id."""

    pictures: tuple[Picture, ...]
    categories: Mapping[int, str]


def read_instances(path: Path) -> Annotations:
    """Read ``instances_*.json``.

    Raises
    ------
    FormatError
        It is no such file, or some of its annotations cannot be drawn; all are named.

    """
    try:
        content = json.loads(path.read_bytes())
        # A name is a line of classes.txt.
        categories = {
            int(one["id"]): " ".join(str(one["name"]).split()) for one in content["categories"]
        }
        sizes = {one["id"]: _sized(one) for one in content["images"]}
        held: dict[Any, list[tuple[int, Shape]]] = defaultdict(list)
        problems = []
        for one in content["annotations"]:
            shape = one.get("segmentation")
            if problem := _complaint(one, shape, sizes, categories):
                problems.append(f"annotation {one.get('id')}: {problem}")
            else:
                held[one["image_id"]].append((one["category_id"], shape))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file.") from None
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror}).") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(
            f"{path}: is no JSON of COCO's instances ({type(error).__name__}: {error}). "
            "Expected images, categories and annotations."
        ) from None
    if problems:
        raise FormatError(
            f"{path}: {len(problems)} of {len(content['annotations'])} annotations cannot be "
            f"drawn:\n{listing(problems)}"
        )
    return Annotations(
        tuple(Picture(*size, tuple(held[key])) for key, size in sizes.items()), categories
    )


def _sized(image: Mapping[str, Any]) -> tuple[str, int, int]:
    """Return a picture's name, height and width."""
    name, height, width = str(image["file_name"]), int(image["height"]), int(image["width"])
    if not 0 < min(height, width) <= max(height, width) <= LARGEST:
        raise ValueError(f"{name} is {height}x{width}")
    return name, height, width


def _complaint(
    one: Mapping[str, Any],
    shape: Any,
    sizes: Mapping[Any, tuple[str, int, int]],
    categories: Mapping[int, str],
) -> str:
    """Say why an annotation cannot be drawn; nothing if it can."""
    if one["image_id"] not in sizes:
        return f"of image {one['image_id']}, which is not among the images"
    if one["category_id"] not in categories:
        return f"of category {one['category_id']}, which is not among the categories"
    _, height, width = sizes[one["image_id"]]
    if isinstance(shape, list):
        # Four numbers are a box to pycocotools.
        if not shape or any(len(part) < 6 or len(part) % 2 for part in shape):
            return "no polygon of three points or more"
        reach = 2 * max(height, width)  # Farther away, drawing takes all memory.
        return "" if np.abs(np.concatenate(shape)).max() <= reach else "points far away"
    if not isinstance(shape, dict):
        return "no segmentation"
    if list(shape["size"]) != [height, width]:
        return f"a mask of {shape['size']}, its picture is {height}x{width}"
    counts = shape["counts"]
    whole = not isinstance(counts, list) or (min(counts) >= 0 and sum(counts) == height * width)
    return "" if whole else "run lengths that do not fill the picture"


def class_names(found: Annotations, classes: str) -> tuple[str, ...]:
    """Return the classes of the masks: ``all`` categories after the background, or a legend's.

    Raises
    ------
    UsageError
        A class of the legend is no category, or its first one is not the background.

    """
    own = [found.categories[one] for one in sorted(found.categories)]
    if classes == "all":
        return legend([BACKGROUND, *own]).names
    names = find_legend(classes).names
    if names[0] != BACKGROUND:
        raise UsageError(f"classes {classes!r}: {names[0]!r} is first, expected {BACKGROUND!r}.")
    known = {*own, *(VOC_NAMES.get(one, one) for one in own), BACKGROUND}
    if strange := [one for one in names if one not in known]:
        raise UsageError(
            f"classes {classes!r}: {', '.join(strange[:5])} are no categories of the annotations, "
            f"which are {', '.join(own[:5])}, ..."
        )
    return names


def draw(picture: Picture, values: Mapping[int, int]) -> Bytes:
    """Draw a picture's mask (height, width): the value of each category, else background.

    Where instances of two classes overlap, nobody knows which is in front: that is void.
    """
    rasterise = _rasteriser()
    ids = np.zeros((picture.height, picture.width), np.uint8)
    for category, shape in picture.instances:
        if category not in values:
            continue
        inside = rasterise(shape, picture.height, picture.width)
        taken = inside & (ids != 0) & (ids != values[category])
        ids[inside] = values[category]
        ids[taken] = VOID
    return ids


def _rasteriser() -> Callable[[Shape, int, int], NDArray[np.bool_]]:
    try:
        from pycocotools import mask
    except ImportError:
        raise MissingDependencyError(
            "drawing COCO's annotations needs pycocotools: pip install 'deeplab-zoo[coco]'."
        ) from None

    def rasterise(shape: Shape, height: int, width: int) -> NDArray[np.bool_]:
        packed = mask.frPyObjects(shape, height, width) if _unpacked(shape) else shape
        whole = mask.merge(packed) if isinstance(packed, list) else packed
        return np.asarray(mask.decode(whole), bool)

    return rasterise


def _unpacked(shape: Shape) -> bool:
    return isinstance(shape, list) or isinstance(shape["counts"], list)


def convert_instances(
    source: Path,
    target: Path,
    classes: str = "all",
    progress: Callable[[int, int], None] | None = None,
    *,
    overwrite: bool = False,
) -> int:
    """Write a mask for every picture of a file of instances, and ``classes.txt``.

    ``classes`` is ``all`` or what `find_legend` takes; ``progress`` is told how many pictures of
    how many are done; ``overwrite`` replaces files that are there. Returns their number.

    Raises
    ------
    FormatError
        See `read_instances`; or run lengths that pycocotools cannot read.
    UsageError
        A file would be replaced unasked.

    """
    found = read_instances(source)
    names = class_names(found, classes)
    places = {name: place for place, name in enumerate(names) if name != BACKGROUND}
    values = {
        key: places[name]
        for key, own in found.categories.items()
        for name in (own, VOC_NAMES.get(own, own))
        if name in places
    }
    stems = [Path(one.name).stem for one in found.pictures]
    if len(set(stems)) < len(stems):
        raise FormatError(f"{source}: has pictures of the same name, whose masks would be one.")
    if not overwrite:
        demand_free(target, [target / "classes.txt", *(target / f"{stem}.png" for stem in stems)])
    folder_for(target)
    write_text(target / "classes.txt", "".join(f"{name}\n" for name in names))
    for number, (stem, picture) in enumerate(zip(stems, found.pictures, strict=True), 1):
        try:
            ids = draw(picture, values)
        except ValueError as error:
            raise FormatError(f"{source}: {picture.name}: {error}.") from None
        with replacing(target / f"{stem}.png") as temporary:
            temporary.write_bytes(png(Image.fromarray(ids)))
        if progress:
            progress(number, len(stems))
    return len(stems)

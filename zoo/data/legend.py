"""Legends: what the values and colours of a mask mean, and what each class is called.

A mask's bytes become class ids by a table of 256 entries. Three ids are no classes:
`VOID` is not judged, `PADDING` lies outside the picture, `REFUSED` is a value that the
legend does not know.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from ...proto.errors import FormatError, UsageError
from ...proto.source import read_text
from .coco_names import COCO_STUFF_NAMES

VOID = 255
PADDING = 254
REFUSED = 253

Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Legend:
    """The classes of a dataset.

    Attributes
    ----------
    names
        By class id.
    colours
        RGB, by class id: predictions are painted in them.
    values
        256 bytes: the class id of every value that a mask may hold.
    ink
        The value that each RGB colour of a mask in colours stands for; none for a colour that
        several classes have.

    """

    names: tuple[str, ...]
    colours: tuple[Colour, ...]
    values: bytes
    ink: tuple[tuple[Colour, int], ...]


def colormap(count: int) -> tuple[Colour, ...]:
    """Return the first colours of PASCAL VOC's palette.

    The bits of an id, from the lowest, are dealt to red, green and blue in turn, and fill each
    from its highest bit down (VOC development kit, VOClabelcolormap).
    """
    return tuple((_spread(one), _spread(one >> 1), _spread(one >> 2)) for one in range(count))


def _spread(bits: int) -> int:
    return sum((bits >> 3 * place & 1) << 7 - place for place in range(3))


def legend(
    names: Sequence[str],
    colours: Sequence[Colour] | None = None,
    values: Mapping[int, int] | None = None,
    void_colours: Iterable[Colour] = (),
) -> Legend:
    """Return a legend.

    Parameters
    ----------
    names, colours
        By class id; the colours are VOC's unless given.
    values
        The class id of each value of the masks; by default a value is the id. 255 is void.
    void_colours
        Colours that mean void in a mask in colours.

    """
    count = len(names)
    if not 0 < count <= REFUSED:
        raise UsageError(f"classes: {count}, expected 1 to {REFUSED}.")
    if repeated := sorted(name for name, times in Counter(names).items() if times > 1):
        raise UsageError(f"classes: {', '.join(repeated)} named more than once.")
    colours = tuple(colours or colormap(count))
    if len(colours) != count:
        raise UsageError(f"classes: {len(colours)} colours for {count}.")
    painted = Counter(colours)
    values = {VOID: VOID, **(values or {one: one for one in range(count)})}
    first = {one: value for value, one in sorted(values.items(), reverse=True)}
    return Legend(
        tuple(names),
        colours,
        bytes(values.get(value, REFUSED) for value in range(256)),
        (
            *((colour, first[one]) for one, colour in enumerate(colours) if painted[colour] == 1),
            *((colour, VOID) for colour in void_colours),
        ),
    )


def class_id(known: Legend, name: str) -> int:
    """Return the id of a class given by name or by number; raise `UsageError` for none."""
    folded = {one.casefold(): place for place, one in enumerate(known.names)}
    if name.casefold() in folded:
        return folded[name.casefold()]
    if name.isdecimal() and int(name) < len(known.names):
        return int(name)
    near = get_close_matches(name.casefold(), folded, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Expected one of {', '.join(known.names)}."
    raise UsageError(f"class {name!r} is unknown. {hint}")


def one_against_rest(known: Legend, name: str) -> Legend:
    """Return the legend in which ``name`` is class 1, every other is 0, and void stays void."""
    chosen = class_id(known, name)
    count = len(known.names)
    table = bytes(int(one == chosen) if one < count else one for one in range(256))
    colour = known.colours[chosen] if any(known.colours[chosen]) else (255, 255, 255)
    return replace(
        known,
        names=(f"not {known.names[chosen]}", known.names[chosen]),
        colours=((0, 0, 0), colour),
        values=known.values.translate(table),
    )


VOC = legend(
    (
        "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat",
        "chair", "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant",
        "sheep", "sofa", "train", "tvmonitor",
    ),
    void_colours=((224, 224, 192),),
)  # fmt: skip

# Scribbles over VOC (Lin et al., CVPR 2016): what nobody drew on is 255; rloss marks 254 what
# its cropping put around the picture, and its densecrf loss leaves that out.
SCRIBBLE = replace(
    VOC, values=VOC.values[:PADDING] + bytes([PADDING, VOID])
)  # fmt: skip

# The eleven classes of Brostow et al. as SegNet numbers and paints them; its masks have 11, which
# its nets ignore, where others have 255.
CAMVID = legend(
    (
        "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car",
        "pedestrian", "bicyclist",
    ),
    (
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222),
        (128, 128, 0), (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ),
    {**{one: one for one in range(11)}, 11: VOID},
    void_colours=((0, 0, 0),),
)  # fmt: skip

# cityscapesScripts, helpers/labels.py: value in *_labelIds.png, name, colour; the order is
# that of the trainIds. Every other value up to 33 is not evaluated.
_CITYSCAPES = (
    (7, "road", (128, 64, 128)),
    (8, "sidewalk", (244, 35, 232)),
    (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)),
    (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)),
    (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)),
    (24, "person", (220, 20, 60)),
    (25, "rider", (255, 0, 0)),
    (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)),
    (28, "bus", (0, 60, 100)),
    (31, "train", (0, 80, 100)),
    (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)),
)
_NAMES = tuple(name for _, name, _ in _CITYSCAPES)
_COLOURS = tuple(colour for _, _, colour in _CITYSCAPES)
CITYSCAPES_IDS = legend(
    _NAMES,
    _COLOURS,
    {**dict.fromkeys(range(34), VOID), **{row[0]: one for one, row in enumerate(_CITYSCAPES)}},
    # The colours of the classes that are not evaluated.
    (
        (0, 0, 0), (111, 74, 0), (81, 0, 81), (250, 170, 160), (230, 150, 140), (180, 165, 180),
        (150, 100, 100), (150, 120, 90), (0, 0, 90), (0, 0, 110),
    ),
)  # fmt: skip
CITYSCAPES = legend(_NAMES, _COLOURS)

# stuffthingmaps: the id less one; unlabelled is 255.
COCO_STUFF = legend(COCO_STUFF_NAMES)

LEGENDS = {
    "voc": VOC,
    "scribble": SCRIBBLE,
    "camvid": CAMVID,
    "cityscapes": CITYSCAPES,
    "cityscapes-ids": CITYSCAPES_IDS,
    "coco-stuff": COCO_STUFF,
}


Classes = str | Path | int | Sequence[str] | Legend


def find_legend(given: Classes) -> Legend:
    """Return a legend from its name, a number of classes, their names, or a file of names.

    A file has one class per line: its name and, if wanted, its colour as three numbers after
    a tab.
    """
    if isinstance(given, Legend):
        return given
    if isinstance(given, int) or (isinstance(given, str) and given.isdecimal()):
        return legend([f"class {one}" for one in range(int(given))])
    if not isinstance(given, str | Path):
        return legend(given)
    if str(given) in LEGENDS:
        return LEGENDS[str(given)]
    if not Path(given).is_file():
        raise UsageError(
            f"classes {str(given)!r}: expected one of {', '.join(LEGENDS)}, a number, or a "
            "file with one name per line."
        )
    return _read(Path(given))


def _read(path: Path) -> Legend:
    names: list[str] = []
    colours: list[Colour] = []
    for number, line in enumerate(read_text(path, "a list of classes (text)").splitlines(), 1):
        if not line.strip():
            continue
        name, _, colour = line.partition("\t")
        words = colour.split()
        values = [int(one) for one in words if one.isdecimal() and int(one) < 256]
        if not name.strip() or len(words) != len(values) or len(values) not in (0, 3):
            raise FormatError(
                f"{path}, line {number}: {name!r} and {colour!r}, expected a name and, if wanted, "
                "its colour as three numbers 0..255 after a tab."
            )
        names.append(name.strip())
        colours += [(values[0], values[1], values[2])] if values else []
    if not names:
        raise FormatError(f"{path}: names no class.")
    if colours and len(colours) != len(names):
        raise FormatError(f"{path}: {len(colours)} of {len(names)} classes have a colour.")
    return legend(names, colours)

"""How an entry's files become a model, and whether they can: computed from its recipe."""

from pathlib import Path

from ...converters.naming import deeplab_v2, deeplab_v3, largefov
from ...proto.errors import MismatchError
from .schema import Entry

# What a state dict's layout may be. The tables of names are light; the families import numpy.
LAYOUTS = frozenset(
    layout for family in (deeplab_v2, deeplab_v3, largefov) for layout in family.NAMING.layouts
)

# Networks that are native models here. An issue that adds one adds its row.
NATIVE = (
    ("deeplab_v2", "resnet101"),
    ("deeplab_v2", "vgg16"),
    ("deeplab_largefov", "vgg16"),
    ("deeplab_msc_largefov", "vgg16"),
    ("deeplab_v3", "resnet50"),
    ("deeplab_v3", "resnet101"),
    ("deeplab_v3", "mobilenet_v2"),
    ("deeplab_v3", "mobilenet_v3_large"),
    ("deeplab_v3", "resnetd50b"),
    ("deeplab_v3", "resnetd101b"),
    ("deeplab_v3", "resnetd152b"),
    ("deeplab_v3plus", "resnet50"),
    ("deeplab_v3plus", "resnet101"),
    ("deeplab_v3plus", "mobilenet_v2"),
    ("deeplab_v3plus", "drn_d_54"),
    ("deeplab_v3plus", "xception65"),
)


def obstacle(entry: Entry) -> str | None:
    """Say why an entry cannot be loaded; None where it can."""
    recipe, arch = entry.recipe, entry.arch
    if entry.kind == "dataset":
        return "a dataset is not a model"
    if recipe is None or arch is None:
        return "the registry has no recipe for it"
    if (arch.family, arch.backbone) not in NATIVE:
        return f"no native model of {arch.family} {arch.backbone} yet"
    if recipe.convert == "legacy" and recipe.layout not in LAYOUTS:
        return f"no naming table of layout {recipe.layout!r} yet"
    if entry.numerics is None and recipe.convert != "native":
        return "the registry names no numerics profile for it"
    return None


def convert(entry: Entry, folder: Path, out: Path) -> None:
    """Convert an entry's files, which lie in ``folder``, to the weights file ``out``.

    Raises
    ------
    MismatchError
        There is no native model of it, or the files are not what the recipe says.

    """
    reason = obstacle(entry)
    recipe = entry.recipe
    if reason or recipe is None:
        raise MismatchError(f"{entry.name}: cannot be loaded: {reason}.")
    from ...converters import convert as converters
    from ...converters.export import open_weights
    from ...converters.weights import write

    weights = folder / recipe.weights
    classes, reset = recipe.num_classes, recipe.reset_head
    if recipe.convert == "caffe":
        prototxt = folder / recipe.prototxt if recipe.prototxt else None
        converters.convert_caffe(prototxt, weights, out, num_classes=classes, reset_head=reset)
    elif recipe.convert == "tf":
        converters.convert_tensorflow(
            weights,
            out,
            num_classes=classes,
            reset_head=reset,
            multi_scale=bool(recipe.multi_scale),
        )
    elif recipe.convert == "legacy":
        converters.convert_legacy(
            weights,
            out,
            numerics=entry.numerics,
            multi_scale=recipe.multi_scale,
            num_classes=classes,
            reset_head=reset,
        )
    else:
        write(open_weights(weights, numerics=entry.numerics), out)

"""The families that have a native model, and which of them a name or a file is of."""

from collections.abc import Iterable
from itertools import product
from typing import Any

from ..proto.errors import FormatError
from . import deeplab_v2, deeplab_v3, largefov, write_caffe, write_largefov
from .family import CaffeNet, Config, Family
from .naming import deeplab_v2 as deeplab_v2_names
from .naming import deeplab_v3 as deeplab_v3_names
from .naming import largefov as largefov_names
from .naming.families import foreign

DEEPLAB_V2 = Family(
    name="deeplab_v2",
    title="DeepLab v2 ResNet",
    config=deeplab_v2.DeepLabV2Config,
    naming=deeplab_v2_names.NAMING,
    parameters=deeplab_v2.parameters,
    infer=deeplab_v2.infer_config,
    told_by_layout=lambda _: {},
    told_by_settings=deeplab_v2.told_by_settings,
    settings=deeplab_v2.settings_of,
    layouts=lambda _: deeplab_v2_names.LAYOUTS,
    summary=deeplab_v2.summary,
    model=("deeplab_v2", "DeepLabV2"),
    caffe=CaffeNet(
        network=deeplab_v2.network,
        told_by_graph=deeplab_v2.told_by_graph,
        context=lambda config: deeplab_v2_names.context_of(config.blocks),
        deploy=write_caffe.deploy_net,
    ),
)

LARGEFOV = Family(
    name="largefov",
    title="DeepLab LargeFOV (VGG16)",
    config=largefov.LargeFOVConfig,
    naming=largefov_names.NAMING,
    parameters=largefov.parameters,
    infer=largefov.infer_config,
    told_by_layout=lambda _: {},
    told_by_settings=largefov.told_by_settings,
    settings=largefov.settings_of,
    layouts=lambda _: largefov_names.NAMING.layouts,
    summary=largefov.summary,
    model=("largefov", "LargeFOV"),
    caffe=CaffeNet(
        network=largefov.network,
        told_by_graph=largefov.told_by_graph,
        context=lambda config: largefov_names.context_of(len(config.rates)),
        deploy=write_largefov.deploy_net,
    ),
)

DEEPLAB_V3 = Family(
    name="deeplab_v3",
    title="DeepLab v3 or v3+",
    config=deeplab_v3.DeepLabV3Config,
    naming=deeplab_v3_names.NAMING,
    parameters=deeplab_v3.parameters,
    infer=deeplab_v3.infer_config,
    told_by_layout=deeplab_v3.told_by_layout,
    told_by_settings=deeplab_v3.told_by_settings,
    settings=deeplab_v3.settings_of,
    layouts=deeplab_v3.layouts_of,
    summary=deeplab_v3.summary,
    model=("deeplab_v3", "DeepLabV3"),
)

FAMILIES = (DEEPLAB_V2, LARGEFOV, DEEPLAB_V3)
LAYOUTS = tuple(dict.fromkeys(one for family in FAMILIES for one in family.naming.layouts))

# Schemes of layers and variables: Caffe's, which DrSleep's variables took, and TensorFlow's own.
SOURCES = ("caffe", "tensorflow")


def source_of(config: Config) -> str | None:
    """Return the scheme of `SOURCES` that has names for a config's layers, None where none has."""
    if of_config(config).caffe:
        return "caffe"
    return next((one for one in SOURCES if one == getattr(config, "style", "")), None)


def of_config(config: Config) -> Family:
    """Return the family of a config."""
    return next(family for family in FAMILIES if isinstance(config, family.config))


def named(name: Any, place: str) -> Family:
    """Return the family that a file names; raise `FormatError` for one we do not have."""
    for family in FAMILIES:
        if family.name == name:
            return family
    known = ", ".join(family.name for family in FAMILIES)
    raise FormatError(
        f"{place}: family {name!r}, expected one of {known}. Is it from a newer deeplab-zoo?"
    )


def of_layers(layers: Iterable[str], *, fresh_head: bool = False) -> tuple[Family, str] | None:
    """Return the family that has layers of these names, and their scheme; None where none has.

    Where the head starts afresh, a file without one will do.
    """
    names = list(layers)
    for family, scheme in product(FAMILIES, SOURCES):
        if any(family.naming.tells(scheme, name, fresh_head=fresh_head) for name in names):
            return family, scheme
    return None


def of_state(names: Iterable[str]) -> tuple[Family, str] | None:
    """Return the family and layout that most of a state dict's names are of, None without any."""
    found = list(names)
    if foreign(found):
        return None
    modules = {name.rpartition(".")[0] for name in found}
    pairs = [(family, layout) for family in FAMILIES for layout in family.naming.layouts]
    known = [family.naming.known(layout, modules) for family, layout in pairs]
    return pairs[known.index(max(known))] if any(known) else None


def of_names(names: Iterable[str]) -> tuple[Family, str] | None:
    """Return the family and scheme that most names are of, whatever they are names of.

    None where no name is one that only one family has.
    """
    found = list(names)
    pairs = [
        (family, scheme)
        for family in FAMILIES
        for scheme in (*SOURCES, *family.naming.layouts)
        if any(family.naming.tells(scheme, name) for name in found)
    ]
    return max(pairs, key=lambda pair: pair[0].naming.known(pair[1], found), default=None)

"""The families that have a native model, and which of them a name or a file is of."""

from collections.abc import Iterable
from typing import Any

from ..proto.errors import FormatError
from . import deeplab_v2, largefov, write_caffe, write_largefov
from .family import Config, Family
from .naming import deeplab_v2 as deeplab_v2_names
from .naming import largefov as largefov_names

DEEPLAB_V2 = Family(
    name="deeplab_v2",
    title="DeepLab v2 ResNet",
    config=deeplab_v2.DeepLabV2Config,
    naming=deeplab_v2_names.NAMING,
    parameters=deeplab_v2.parameters,
    network=deeplab_v2.network,
    infer=deeplab_v2.infer_config,
    told_by_graph=deeplab_v2.told_by_graph,
    told_by_settings=deeplab_v2.told_by_settings,
    settings=deeplab_v2.settings_of,
    context=lambda config: deeplab_v2_names.context_of(config.blocks),
    deploy=write_caffe.deploy_net,
    summary=deeplab_v2.summary,
    model=("deeplab_v2", "DeepLabV2"),
)

LARGEFOV = Family(
    name="largefov",
    title="DeepLab LargeFOV (VGG16)",
    config=largefov.LargeFOVConfig,
    naming=largefov_names.NAMING,
    parameters=largefov.parameters,
    network=largefov.network,
    infer=largefov.infer_config,
    told_by_graph=largefov.told_by_graph,
    told_by_settings=largefov.told_by_settings,
    settings=largefov.settings_of,
    context=lambda config: largefov_names.context_of(len(config.rates)),
    deploy=write_largefov.deploy_net,
    summary=largefov.summary,
    model=("largefov", "LargeFOV"),
)

FAMILIES = (DEEPLAB_V2, LARGEFOV)
LAYOUTS = tuple(dict.fromkeys(one for family in FAMILIES for one in family.naming.layouts))


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


def of_layers(layers: Iterable[str], *, fresh_head: bool = False) -> Family | None:
    """Return the family that has layers of these Caffe names, None where none has.

    TensorFlow's DeepLabs took their layers' names from Caffe. Where the head starts afresh,
    a file without one will do.
    """
    names = list(layers)
    for family in FAMILIES:
        if any(family.naming.tells("caffe", name, fresh_head=fresh_head) for name in names):
            return family
    return None


def of_state(names: Iterable[str]) -> tuple[Family, str] | None:
    """Return the family and layout of a state dict's names, None where it is none of ours."""
    found = list(names)
    for family in FAMILIES:
        layout = family.naming.layout_of(found)
        if layout is not None:
            return family, layout
    return None

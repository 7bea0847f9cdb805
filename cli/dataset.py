"""The options that say which dataset is meant, for every command that takes one."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypedDict

import click

from ..proto.errors import UsageError

if TYPE_CHECKING:
    from ..zoo.data.dataset import Dataset


class Given(TypedDict):
    """What the options of `dataset_options` pass on."""

    layout: str | None
    images: str | None
    masks: str | None
    classes: str | None
    sbd: str | None


OPTIONS = (
    click.option("--layout", help="voc, sbd, cityscapes, ...; recognised unless given."),
    click.option("--images", help="Folder of the pictures, where it is not the layout's."),
    click.option("--labels", "masks", help="Folder of the masks, where it is not the layout's."),
    click.option("--classes", help="voc, camvid, ...; a number; or a file with a name per line."),
    click.option("--sbd", help="Join VOC with SBD in this folder, without VOC val."),
)


def dataset_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command, which takes them as ``**given``."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def open_given(path: str, split: str, given: Given) -> "Dataset":
    """Open the dataset that the options mean; raise `UsageError` for some that exclude others."""
    from ..zoo.data.layouts import fuse_voc_sbd, open_dataset

    if not given["sbd"]:
        return open_dataset(
            path,
            split,
            layout=given["layout"],
            images=given["images"],
            labels=given["masks"],
            classes=given["classes"],
        )
    if given["layout"] or given["images"] or given["masks"] or given["classes"]:
        raise UsageError(
            "--sbd joins two known layouts, expected no --layout, --images, --labels or --classes."
        )
    return fuse_voc_sbd(path, given["sbd"], split)

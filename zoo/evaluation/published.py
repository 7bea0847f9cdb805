"""An evaluation against what was published of the same weights on the same dataset."""

from dataclasses import dataclass

from ..data.dataset import Dataset
from ..data.legend import CITYSCAPES, COCO_STUFF, VOC
from ..weights.registry import load_registry

# The registry's name of a dataset -> its classes; images by split, where a list is usual.
DATASETS = {
    "VOC 2012": (VOC, {"val": 1449}),
    "Cityscapes": (CITYSCAPES, {"val": 500}),
    "COCO-Stuff 10k": (COCO_STUFF, {"test": 1000}),
    "COCO-Stuff 164k": (COCO_STUFF, {"val": 5000, "val2017": 5000}),
}


@dataclass(frozen=True, slots=True)
class Published:
    """A number that somebody published, as the registry has it.

    ``mean_iou`` is in 0..1. ``remark`` says why the two do not compare, where that is known.
    """

    entry: str
    mean_iou: float
    protocol: str
    source: str
    remark: str = ""


def published(entry: str, dataset: Dataset) -> tuple[Published, ...]:
    """Return what the registry says of an entry on this dataset and split.

    Raises
    ------
    UsageError
        There is no such entry.

    """
    known = load_registry().find(entry)
    found = []
    for one in known.metrics:
        if one.dataset not in DATASETS or one.split != dataset.split:
            continue
        legend, images = DATASETS[one.dataset]
        if legend.names != dataset.legend.names:
            continue
        count, usual = len(dataset.samples), images.get(one.split)
        remark = f"of {usual} images, here {count}" if usual not in (None, count) else ""
        found.append(Published(known.name, one.miou / 100, one.protocol, one.source, remark))
    return tuple(found)

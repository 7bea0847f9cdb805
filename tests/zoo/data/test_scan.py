from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deeplab_zoo.proto.errors import FormatError, MismatchError, ZooError
from deeplab_zoo.zoo.data.dataset import Dataset
from deeplab_zoo.zoo.data.layouts import open_dataset
from deeplab_zoo.zoo.data.legend import VOC
from deeplab_zoo.zoo.data.scan import check, demand_sound, sound

Put = Callable[..., None]


def spoil(voc: Path, put: Put) -> None:
    """Give every training sample but a2 a different ailment, and more samples with others."""
    photo = voc / "JPEGImages" / "a1.jpg"
    photo.write_bytes(photo.read_bytes()[:-100])
    (voc / "SegmentationClass" / "a3.png").unlink()
    put("VOC2012/SegmentationClass/a4.png", np.zeros((7, 8), np.uint8))
    put("VOC2012/JPEGImages/c1.jpg")
    put("VOC2012/SegmentationClass/c1.png", np.full((5, 7), 77, np.uint8))
    put("VOC2012/JPEGImages/c2.jpg")
    put("VOC2012/SegmentationClass/c2.png", np.full((5, 7), 113, np.uint8))
    lists = voc / "ImageSets" / "Segmentation" / "train.txt"
    lists.write_text(lists.read_text() + "c1\nc2\n")


def test_all_problems_are_in_one_report_in_the_lists_order(voc: Path, put: Put) -> None:
    spoil(voc, put)
    report = check(open_dataset(voc, "train"), threads=3)
    expected = (
        "a1.jpg: is damaged",
        "a3.png: no such file",
        "a4.png: the mask is 7x8, its picture 8x7 (turned by 90 degrees?)",
        "c1.png: has the labels 77, expected 21 classes (0..20) and 255 for void",
        "c2.png: is a grey picture of a colour mask",
    )
    assert len(report.problems) == len(expected)
    for problem, words in zip(report.problems, expected, strict=True):
        assert words in problem
    assert report.bad == {"a1", "a3", "a4", "c1", "c2"}
    assert report.present == (set(), {0, 15}, set(), set(), set(), set())
    with pytest.raises(FormatError, match="voc train: 5 of 6 samples cannot be used"):
        demand_sound(report)


def test_bad_samples_are_left_out_and_counted(voc: Path, put: Put) -> None:
    spoil(voc, put)
    report = check(open_dataset(voc, "train"))
    kept, after = sound(report)
    assert [sample.id for sample in kept.samples] == ["a2"]
    assert len(report.bad) == 5
    assert after.problems == ()
    assert after.present == check(kept).present
    demand_sound(after)


def test_the_histogram_is_a_sum_over_the_masks(voc: Path) -> None:
    report = check(open_dataset(voc, "train+val"))
    demand_sound(report)
    # Row 0 of samples 0, 2, 4 has classes 1, 3, 5; rows 0 and 1 of the others 15 and void.
    shown = {one: count for one, count in enumerate(report.pixels) if count}
    assert shown == {0: 7 * (4 + 4 + 6 + 6 + 8 + 8), 1: 7, 3: 7, 5: 7, 15: 21}
    assert report.unjudged == 21
    assert report.images()[15] == 3
    assert report.images()[2] == 0


def test_more_samples_than_wait_for_a_thread_keep_their_order(voc: Path) -> None:
    few = open_dataset(voc, "train+val")
    many = Dataset(few.name, few.split, few.samples * 30, few.legend)
    assert check(many).present == check(few).present * 30


def test_no_samples_are_a_problem() -> None:
    report = check(Dataset("list", "train", (), VOC))
    with pytest.raises(MismatchError, match="list train: has no samples"):
        demand_sound(report)
    with pytest.raises(ZooError, match="not one sample can be used"):
        sound(report)

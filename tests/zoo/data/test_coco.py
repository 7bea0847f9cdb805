"""COCO's instances as masks: where they lie, which class wins, what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deeplab_zoo.proto.errors import FormatError, StorageError, UsageError, ZooError
from deeplab_zoo.zoo.data.coco import convert_instances
from deeplab_zoo.zoo.data.layouts import open_dataset

mask = pytest.importorskip("pycocotools.mask")
# pycocotools 2.0.11 is not yet written for numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

HEIGHT, WIDTH = 6, 9
CATEGORIES = [{"id": 7, "name": "train"}, {"id": 3, "name": "car"}, {"id": 5, "name": "airplane"}]
Write = Callable[..., Path]


def box(left: int, top: int, right: int, bottom: int) -> list[float]:
    return [left, top, right, top, right, bottom, left, bottom]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file of instances of two pictures, the second of which has none."""

    def make(*annotations: dict[str, Any], **changes: object) -> Path:
        images = [
            {"id": 10 + one, "file_name": f"train/{name}.jpg", "height": HEIGHT, "width": WIDTH}
            for one, name in enumerate(("a", "b"))
        ]
        content = {
            "images": images,
            "categories": CATEGORIES,
            "annotations": [{"id": n, "image_id": 10, **one} for n, one in enumerate(annotations)],
        }
        (tmp_path / "instances.json").write_text(json.dumps({**content, **changes}))
        return tmp_path / "instances.json"

    return make


def drawn(path: Path, target: Path, **options: Any) -> np.ndarray:
    assert convert_instances(path, target, **options) == 2
    return np.asarray(Image.open(target / "a.png"))


def test_polygons_and_run_lengths_lie_where_coco_puts_them(write: Write, tmp_path: Path) -> None:
    spots = np.zeros((HEIGHT, WIDTH), np.uint8)
    spots[4:, 6:] = 1
    packed = mask.encode(np.asfortranarray(spots))
    path = write(
        {"category_id": 3, "segmentation": [box(1, 1, 3, 3), box(5, 0, 6, 1)]},
        {"category_id": 7, "segmentation": {"size": [6, 9], "counts": packed["counts"].decode()}},
        # Run lengths go down the columns: two pixels of the first.
        {"category_id": 5, "segmentation": {"size": [6, 9], "counts": [3, 2, 49]}, "iscrowd": 1},
    )
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[1:3, 1:3] = expected[0, 5] = 1  # Categories in the order of their ids.
    expected[3:5, 0] = 2
    expected[4:, 6:] = 3
    np.testing.assert_array_equal(drawn(path, tmp_path / "masks"), expected)
    assert not np.asarray(Image.open(tmp_path / "masks" / "b.png")).any()
    for name in ("a", "b"):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "photos" / f"{name}.jpg")
    dataset = open_dataset(
        tmp_path, images="photos", labels="masks", classes=str(tmp_path / "masks" / "classes.txt")
    )
    assert dataset.legend.names == ("background", "car", "airplane", "train")
    assert [one.id for one in dataset.samples] == ["a", "b"]


def test_where_two_classes_overlap_the_mask_is_void(write: Write, tmp_path: Path) -> None:
    path = write(
        {"category_id": 3, "segmentation": [box(0, 0, 4, 4)]},
        {"category_id": 3, "segmentation": [box(3, 0, 6, 2)]},
        {"category_id": 7, "segmentation": [box(2, 2, 6, 6)]},
        {"category_id": 3, "segmentation": [box(3, 3, 4, 4)]},
    )
    found = drawn(path, tmp_path / "masks")
    assert found[0, 3] == 1  # Of one class.
    np.testing.assert_array_equal(np.argwhere(found == 255), [[2, 2], [2, 3], [3, 2], [3, 3]])
    assert found[5, 5] == 3


def test_classes_of_a_legend_have_its_ids_and_others_are_background(
    write: Write, tmp_path: Path
) -> None:
    names = ["bicycle", "bird", "boat", "bottle", "bus", "cat", "chair", "cow", "dining table",
             "dog", "horse", "motorcycle", "person", "potted plant", "sheep", "couch", "tv", "zebra"]  # fmt: skip
    more = [{"id": 100 + one, "name": name} for one, name in enumerate(names)]
    path = write(
        {"category_id": 5, "segmentation": [box(0, 0, 2, 2)]},
        {"category_id": 116, "segmentation": [box(3, 0, 5, 2)]},
        {"category_id": 117, "segmentation": [box(6, 0, 8, 2)]},
        categories=[*CATEGORIES, *more],
    )
    found = drawn(path, tmp_path / "masks", classes="voc")
    assert (found[0, 0], found[0, 4], found[0, 7]) == (1, 20, 0)  # Aeroplane, tvmonitor, none.
    own = tmp_path / "own.txt"
    own.write_text("background\nzebra\n")
    assert drawn(path, tmp_path / "own", classes=str(own))[0, 7] == 1
    own.write_text("zebra\nbackground\n")
    with pytest.raises(UsageError, match="'zebra' is first, expected 'background'"):
        convert_instances(path, tmp_path / "own", str(own))
    own.write_text("background\nunicorn\n")
    with pytest.raises(UsageError, match="unicorn are no categories"):
        convert_instances(path, tmp_path / "own", str(own))


def test_every_annotation_that_cannot_be_drawn_is_named(write: Write, tmp_path: Path) -> None:
    square = [box(0, 0, 2, 2)]
    path = write(
        {"category_id": 3, "segmentation": []},
        {"category_id": 3, "segmentation": [[1, 2, 3, 4]]},
        {"category_id": 9, "segmentation": square},
        {"category_id": 3, "segmentation": square, "image_id": 99},
        {"category_id": 3},
        {"category_id": 3, "segmentation": [[0, 0, 1e9, 0, 1, 1]]},
        {"category_id": 3, "segmentation": {"size": [9, 6], "counts": [54]}},
        {"category_id": 3, "segmentation": {"size": [6, 9], "counts": [50, 99]}},
        {"category_id": 3, "segmentation": square},
    )
    with pytest.raises(FormatError, match="8 of 9 annotations") as caught:
        convert_instances(path, tmp_path / "masks")
    told = str(caught.value).splitlines()[1:]
    reasons = ("no polygon", "no polygon", "of category 9", "of image 99", "no segmentation",
               "points far away", r"a mask of [9, 6], its picture is 6x9", "do not fill")  # fmt: skip
    for number, (line, reason) in enumerate(zip(told, reasons, strict=True)):
        assert line.strip().startswith(f"annotation {number}: ")
        assert reason in line
    assert not (tmp_path / "masks").exists()


def test_what_is_no_file_of_instances_is_refused(write: Write, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    for text in ("[1, 2]", '{"images": []}', "not JSON"):
        other.write_text(text)
        with pytest.raises(FormatError, match=r"other.json: is no JSON of COCO's instances"):
            convert_instances(other, tmp_path / "masks")
    size = [{"id": 10, "file_name": "a.jpg", "height": 0, "width": 9}]
    with pytest.raises(FormatError, match="a.jpg is 0x9"):
        convert_instances(write(images=size), tmp_path / "masks")
    with pytest.raises(StorageError, match="cannot be read"):
        convert_instances(tmp_path, tmp_path / "masks")
    with pytest.raises(UsageError, match="no such file"):
        convert_instances(tmp_path / "none.json", tmp_path / "masks")
    longer = mask.encode(np.asfortranarray(np.eye(50, dtype=np.uint8)))["counts"].decode()
    torn = {"category_id": 3, "segmentation": {"size": [6, 9], "counts": longer}}
    with pytest.raises(ZooError, match=r"train/a.jpg: Invalid RLE"):
        convert_instances(write(torn), tmp_path / "masks")


def test_masks_that_are_there_are_replaced_when_asked_only(write: Write, tmp_path: Path) -> None:
    path, masks = write(), tmp_path / "masks"
    convert_instances(path, masks)
    for name in ("b.png", "classes.txt"):
        (masks / name).write_text("mine")
    with pytest.raises(UsageError, match=r"masks: has 3 of the files to write:\n.*classes\.txt"):
        convert_instances(path, masks)
    assert (masks / "b.png").read_text() == "mine"
    convert_instances(path, masks, overwrite=True)
    assert "mine" not in (masks / "classes.txt").read_text()


def test_a_name_is_one_line_of_the_classes(write: Write, tmp_path: Path) -> None:
    categories = [{"id": 3, "name": "traffic\n light "}]
    convert_instances(write(categories=categories), tmp_path / "masks")
    assert (tmp_path / "masks" / "classes.txt").read_text() == "background\ntraffic light\n"

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deeplab_zoo.proto.errors import FormatError, MismatchError, StorageError, UsageError
from deeplab_zoo.zoo.data.dataset import (
    Dataset,
    Sample,
    binarise,
    demand_apart,
    minus,
    only,
    union,
    without,
)
from deeplab_zoo.zoo.data.images import read_mask
from deeplab_zoo.zoo.data.layouts import fuse_voc_sbd, open_dataset
from deeplab_zoo.zoo.data.legend import VOC, legend
from deeplab_zoo.zoo.data.scan import check

Put = Callable[..., None]


def ids(dataset: Dataset) -> list[str]:
    return [sample.id for sample in dataset.samples]


def demand_all_there(dataset: Dataset) -> None:
    """Every picture and mask exists, is read, and fits."""
    assert check(dataset).problems == ()


def test_voc_is_recognised_from_each_folder_it_is_known_by(voc: Path) -> None:
    for path in (voc, voc.parent):
        found = open_dataset(path, "train")
        assert (found.name, found.split, found.legend) == ("voc", "train", VOC)
        assert ids(found) == ["a1", "a2", "a3", "a4"]
        demand_all_there(found)
    assert ids(open_dataset(voc, "train+val")) == ["a1", "a2", "a3", "a4", "b1", "b2"]


def test_augmented_masks_are_taken_for_augmented_lists(voc: Path, put_pair: Put) -> None:
    for one in ("a1", "s1"):
        put_pair(f"VOC2012/JPEGImages/{one}.jpg", f"VOC2012/SegmentationClassAug/{one}.png", 9)
    found = open_dataset(voc, "train_aug")
    assert {sample.label.parent.name for sample in found.samples} == {"SegmentationClassAug"}
    assert "SegmentationClass" in open_dataset(voc, "train").samples[0].label.parts
    demand_all_there(found)


def test_scribbles_over_voc(voc: Path, put: Put) -> None:
    for number in range(4):
        drawn = np.full((5 + number, 7), 255, np.uint8)
        drawn[1, 2:4], drawn[4] = 15, 254
        put(f"VOC2012/pascal_2012_scribble/a{number + 1}.png", drawn)
    found = open_dataset(voc, "train", labels="pascal_2012_scribble")
    report = check(found)
    assert report.problems == ()
    assert report.pixels[15] == 8
    assert set(read_mask(found.samples[0].label, found.legend).ravel()) == {15, 254, 255}


def write_sbd(root: Path, put: Put, train: list[str], val: list[str]) -> None:
    io = pytest.importorskip("scipy.io")
    for folder in ("img", "cls"):
        (root / folder).mkdir(parents=True)
    for split, names in {"train": train, "val": val}.items():
        (root / f"{split}.txt").write_text("\n".join(names))
        for one in names:
            put(f"{root.name}/img/{one}.jpg")
            seen = np.full((5, 7), 3, np.uint8)
            io.savemat(root / "cls" / f"{one}.mat", {"GTcls": {"Segmentation": seen}})


def test_sbd_is_read_and_fused_with_voc_without_leaks(voc: Path, put: Put, tmp_path: Path) -> None:
    # SBD has VOC's own training images too, and among its training images VOC's validation.
    write_sbd(tmp_path / "sbd", put, ["s1", "a1", "b1"], ["s2", "b2"])
    sbd = open_dataset(tmp_path / "sbd", "train+val")
    assert sbd.name == "sbd"
    demand_all_there(sbd)
    fused = fuse_voc_sbd(voc, tmp_path / "sbd")
    assert ids(fused) == ["a1", "a2", "a3", "a4", "s1", "s2"]
    assert fused.samples[0].label.suffix == ".png"
    demand_all_there(fused)
    held_out = fuse_voc_sbd(voc, tmp_path / "sbd", "val")
    assert ids(held_out) == ["b1", "b2"]
    demand_apart(fused, held_out)
    with pytest.raises(UsageError, match="expected train or val"):
        fuse_voc_sbd(voc, tmp_path / "sbd", "test")


def test_a_leak_is_an_error_that_names_it(voc: Path) -> None:
    everything, held_out = open_dataset(voc, "train+val"), open_dataset(voc, "val")
    with pytest.raises(MismatchError, match="2 samples are in voc train.val .*\n  b1\n  b2"):
        demand_apart(everything, held_out)
    demand_apart(minus(everything, held_out), held_out)


@pytest.mark.golden
def test_the_published_lists_are_apart(shared: Path) -> None:
    lists = {
        name: tuple(Sample(one, Path(), None) for one in text.split())
        for name in ("train_aug", "val")
        if (text := (shared / "data" / "voc" / f"{name}.txt").read_text())
    }
    train, val = (Dataset("voc", name, found, VOC) for name, found in lists.items())
    assert (len(train.samples), len(val.samples)) == (10582, 1449)
    demand_apart(train, val)


def test_class_filters_go_by_what_the_masks_show(voc: Path) -> None:
    dataset = open_dataset(voc, "train")
    present = check(dataset).present
    assert ids(only(dataset, present, "person")) == ["a2", "a4"]
    assert ids(without(dataset, present, "person")) == ["a1", "a3"]
    assert ids(only(dataset, present, "boat")) == []


def test_binary_masks_keep_their_void(voc: Path) -> None:
    dataset = binarise(open_dataset(voc, "train"), "person")
    report = check(dataset)
    assert dataset.legend.names == ("not person", "person")
    assert report.pixels[1] == 14
    assert report.unjudged == 14
    assert report.present == ({0}, {0, 1}, {0}, {0, 1})


def test_datasets_of_other_classes_do_not_join(voc: Path) -> None:
    dataset = open_dataset(voc, "train")
    with pytest.raises(MismatchError, match="voc: 21 classes, voc: 2 classes"):
        union(dataset, binarise(dataset, "person"))


@pytest.mark.parametrize("slash", ["", "/"])
def test_drsleeps_list_of_pairs(voc: Path, slash: str) -> None:
    path = voc.parent / "list.txt"
    lines = [
        f"{slash}JPEGImages/{one}.jpg {slash}SegmentationClass/{one}.png" for one in ("a2", "a3")
    ]
    path.write_text("\n".join(lines) + "\n\n")
    found = open_dataset(path, images=voc)
    assert (found.name, ids(found), found.legend) == ("list", ["a2", "a3"], VOC)
    demand_all_there(found)


def test_isht7s_list_of_ids_and_two_folders(voc: Path) -> None:
    path = voc / "my_list.txt"
    path.write_text("a3\na1\n")
    found = open_dataset(path, images="JPEGImages", labels="SegmentationClass")
    assert ids(found) == ["a3", "a1"]
    demand_all_there(found)
    with pytest.raises(UsageError, match="needs the folder of the pictures"):
        open_dataset(path)


def test_a_list_without_labels_is_of_pictures_alone(voc: Path) -> None:
    path = voc / "my_list.txt"
    path.write_text("JPEGImages/a3.jpg\n")
    found = open_dataset(path)
    assert found.samples == (Sample("a3", voc / "JPEGImages/a3.jpg", None),)
    demand_all_there(found)


def test_pictures_of_one_name_in_several_folders_keep_apart(tmp_path: Path, put: Put) -> None:
    for folder in ("bonn", "ulm"):
        put(f"{folder}/1.jpg")
    (tmp_path / "list.txt").write_text("bonn/1.jpg\n/ulm/1.jpg\n")
    assert ids(open_dataset(tmp_path / "list.txt", classes=2)) == ["bonn/1", "ulm/1"]


def test_files_of_the_same_name_are_not_chosen_between(tmp_path: Path, put: Put) -> None:
    for name in ("images/x.jpg", "images/x.png", "labels/x.png"):
        put(name)
    with pytest.raises(MismatchError, match="same name:\n  x.jpg and x.png"):
        open_dataset(tmp_path, classes=2)


def test_a_list_of_file_names_finds_the_masks_too(tmp_path: Path, put_pair: Put) -> None:
    put_pair("images/x.png", "labels/x.png", 1)
    (tmp_path / "train.txt").write_text("x.png\n")
    found = open_dataset(tmp_path, classes=2)
    assert found.samples[0].label == tmp_path / "labels" / "x.png"
    demand_all_there(found)


def test_two_folders(tmp_path: Path, put_pair: Put) -> None:
    for one in ("x", "y"):
        put_pair(f"photos/{one}.png", f"masks/{one}.png", 1)
    found = open_dataset(tmp_path, images="photos", labels="masks", classes=["flat", "roof"])
    assert ids(found) == ["x", "y"]
    demand_all_there(found)
    (tmp_path / "masks" / "y.png").rename(tmp_path / "masks" / "z.png")
    with pytest.raises(MismatchError) as error:
        open_dataset(tmp_path, images="photos", labels="masks", classes=2)
    assert "2 files have no counterpart" in str(error.value)
    assert "y.png: no mask" in str(error.value)
    assert "z.png: no picture" in str(error.value)


def test_folders_with_a_folder_for_each_split_and_a_file_of_classes(
    tmp_path: Path, put_pair
) -> None:
    (tmp_path / "classes.txt").write_text("flat\nroof\n")
    for split, one in (("train", "x"), ("val", "y")):
        put_pair(f"images/{split}/{one}.jpg", f"labels/{split}/{one}.png", 1)
    assert ids(open_dataset(tmp_path, "val")) == ["y"]
    assert open_dataset(tmp_path).legend.names == ("flat", "roof")


def test_lists_beside_the_folders_are_not_ignored(tmp_path: Path, put_pair: Put) -> None:
    for one in ("x", "y"):
        put_pair(f"images/{one}.jpg", f"labels/{one}.png", 1)
    (tmp_path / "val.txt").write_text("y\n")
    assert ids(open_dataset(tmp_path, "val", classes=2)) == ["y"]
    with pytest.raises(UsageError, match="has no split 'train', expected one of val"):
        open_dataset(tmp_path, "train", classes=2)
    with pytest.raises(UsageError, match="has no split '', expected one of val"):
        open_dataset(tmp_path, "", classes=2)
    put_pair("images/train/z.jpg", "labels/train/z.png", 1)
    assert ids(open_dataset(tmp_path, "train", classes=2)) == ["z"]


@pytest.mark.golden
def test_camvid(shared: Path) -> None:
    root = shared / "data" / "camvid"
    train, val = open_dataset(root, "train"), open_dataset(root, "val")
    assert (len(train.samples), len(val.samples)) == (367, 101)
    assert train.legend.names[9:] == ("pedestrian", "bicyclist")
    demand_apart(train, val)
    report = check(val)
    assert report.problems == ()
    assert sum(report.pixels) + report.unjudged == 101 * 480 * 360


@pytest.mark.parametrize(("kind", "value"), [("labelIds", 26), ("labelTrainIds", 13)])
def test_cityscapes(tmp_path: Path, put_pair: Put, kind: str, value: int) -> None:
    for city in ("bonn", "aachen"):
        stem = f"{city}_000000_000019"
        put_pair(
            f"leftImg8bit/val/{city}/{stem}_leftImg8bit.png",
            f"gtFine/val/{city}/{stem}_gtFine_{kind}.png",
            value,
            255,
        )
    found = open_dataset(tmp_path, "val")
    assert ids(found) == ["aachen_000000_000019", "bonn_000000_000019"]
    assert found.legend.names[13] == "car"
    assert check(found).pixels[13] == 14
    demand_all_there(found)
    with pytest.raises(UsageError, match="no split 'train', expected one of val"):
        open_dataset(tmp_path, "train")


def test_a_city_without_masks_does_not_change_how_the_others_are_read(
    tmp_path: Path, put: Put, put_pair: Put
) -> None:
    put("leftImg8bit/val/aachen/a_leftImg8bit.png")
    (tmp_path / "gtFine" / "val" / "aachen").mkdir(parents=True)
    put_pair("leftImg8bit/val/bonn/b_leftImg8bit.png", "gtFine/val/bonn/b_gtFine_labelIds.png", 26)
    report = check(open_dataset(tmp_path, "val"))
    assert report.present == (set(), {13})
    assert "a_gtFine_labelIds.png: no such file" in report.problems[0]


@pytest.mark.parametrize("masks", ["stuffthingmaps", "annotations"])
def test_coco_stuff(tmp_path: Path, put_pair: Put, masks: str) -> None:
    put_pair("images/train2017/000000000009.jpg", f"{masks}/train2017/000000000009.png", 181, 255)
    for split in ("train", "train2017"):
        found = open_dataset(tmp_path, split)
        assert (found.name, len(found.legend.names)) == ("coco-stuff", 182)
        demand_all_there(found)
    with pytest.raises(UsageError, match="no split 'val', expected one of train2017"):
        open_dataset(tmp_path, "val")


def test_folders_named_like_cocos_but_without_its_years_are_anybodys(
    tmp_path: Path, put_pair: Put
) -> None:
    put_pair("images/train/x.jpg", "annotations/train/x.png", 1)
    with pytest.raises(UsageError, match="is none of the layouts"):
        open_dataset(tmp_path)
    found = open_dataset(tmp_path, images="images", labels="annotations", classes=2)
    assert (found.name, ids(found)) == ("folders", ["x"])


def test_coco_stuff_10k(tmp_path: Path, put: Put) -> None:
    io = pytest.importorskip("scipy.io")
    put("images/COCO_train2014_000000000077.jpg")
    for folder in ("annotations", "imageLists"):
        (tmp_path / folder).mkdir()
    name = "COCO_train2014_000000000077"
    (tmp_path / "imageLists" / "train.txt").write_text(name)
    seen = np.full((5, 7), 182, np.uint16)
    io.savemat(tmp_path / "annotations" / f"{name}.mat", {"S": seen})
    found = open_dataset(tmp_path, "train")
    assert found.name == "coco-stuff-10k"
    assert check(found).pixels[181] == 35


def test_a_layout_can_be_forced_and_must_exist(voc: Path) -> None:
    assert open_dataset(voc, layout="voc").name == "voc"
    with pytest.raises(UsageError, match="layout 'vocc' is unknown, expected one of voc, sbd"):
        open_dataset(voc, layout="vocc")


def test_what_cannot_be_opened_says_why(tmp_path: Path, voc: Path, put: Put) -> None:
    put("somewhere/photo.jpg")
    (tmp_path / "empty.txt").write_text("\n\n")
    (tmp_path / "twice.txt").write_text("a\nb\na\n")
    (tmp_path / "three.txt").write_text("a.jpg b.png c.png\n")
    (tmp_path / "some.txt").write_text("a.jpg a.png\nb.jpg\n")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    for path, kind, complaint in (
        (tmp_path / "none", UsageError, "none: no such file or folder"),
        (tmp_path / "somewhere", UsageError, r"is none of the layouts .* \(it holds photo.jpg\)"),
        (tmp_path / "empty.txt", FormatError, "empty.txt: names no image"),
        (tmp_path / "twice.txt", FormatError, "more than once:\n  a: 2 times"),
        (tmp_path / "three.txt", FormatError, "neither all .image. nor .*\n  a.jpg b.png c.png"),
        (tmp_path / "some.txt", FormatError, "neither all .image. nor .*\n  b.jpg"),
        (tmp_path / "bytes.txt", FormatError, "is a binary file, expected a list of"),
    ):
        with pytest.raises(kind, match=complaint):
            open_dataset(path, classes=2)
    with pytest.raises(StorageError, match="no such folder"):
        open_dataset(voc, images="none", labels="none", classes=legend(["a"]))
    with pytest.raises(UsageError, match="no split 'tset', expected one of train, train_aug, val"):
        open_dataset(voc, "tset")
    (tmp_path / "sbd" / "img").mkdir(parents=True)
    (tmp_path / "sbd" / "cls").mkdir()
    (tmp_path / "sbd" / "val.txt").write_text("x")
    with pytest.raises(UsageError, match="no split 'train', expected one of val"):
        open_dataset(tmp_path / "sbd", "train")
    put("two/images/x.png")
    put("two/labels/x.png")
    with pytest.raises(UsageError, match="which classes"):
        open_dataset(tmp_path / "two")

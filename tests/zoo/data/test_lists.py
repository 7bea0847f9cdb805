from collections.abc import Callable
from pathlib import Path

import pytest

from deeplab_zoo.proto.errors import FormatError, MismatchError, StorageError, ZooError
from deeplab_zoo.zoo.data.dataset import Dataset
from deeplab_zoo.zoo.data.layouts import open_dataset
from deeplab_zoo.zoo.data.lists import by_stem, read_list
from deeplab_zoo.zoo.data.scan import check

Put = Callable[..., None]


def opened(root: Path, text: str) -> Dataset:
    """The training list of a folder; every picture and mask is read."""
    (root / "train.txt").write_text(text, encoding="utf-8")
    found = open_dataset(root, classes=2)
    assert check(found).problems == ()
    return found


def ids(dataset: Dataset) -> list[str]:
    return [sample.id for sample in dataset.samples]


def test_names_with_spaces_and_umlauts_are_read(tmp_path: Path, put_pair: Put) -> None:
    for name in ("my photo", "Müllers Hütte", "plain"):
        put_pair(f"images/{name}.png", f"labels/{name}.png", 1)
    assert ids(opened(tmp_path, "my photo\t\nMüllers Hütte\t\nplain\n")) == [
        "my photo", "Müllers Hütte", "plain",
    ]  # fmt: skip
    pairs = "images/my photo.png\tlabels/my photo.png\nimages/plain.png labels/plain.png\n"
    assert ids(opened(tmp_path, pairs)) == ["my photo", "plain"]
    with pytest.raises(FormatError, match=r"train.txt: lines .*\n  my photo\nNames that have sp"):
        opened(tmp_path, "plain\nmy photo\n")


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path, put_pair: Put) -> None:
    put_pair("images/x.jpg", "labels/x.png", 1)
    assert ids(opened(tmp_path, "\ufeffx\n")) == ["x"]


@pytest.mark.parametrize("suffix", ["", ".png"])
def test_ids_may_lie_in_folders_whatever_the_pictures_suffix(
    tmp_path: Path, put_pair: Put, suffix: str
) -> None:
    for city in ("bonn", "ulm"):
        put_pair(f"images/{city}/1.png", f"labels/{city}/1.png", 1)
    found = opened(tmp_path, f"bonn/1{suffix}\nulm/1{suffix}\n")
    assert ids(found) == ["bonn/1", "ulm/1"]
    assert found.samples[1].label == tmp_path / "labels" / "ulm" / "1.png"


def test_folders_of_another_place_in_a_list_are_passed_over(tmp_path: Path, put_pair: Put) -> None:
    put_pair("images/x.jpg", "labels/x.png", 1)
    assert ids(opened(tmp_path, "/JPEGImages/x.jpg\n")) == ["x"]


def test_a_list_in_a_folder_may_have_pairs(tmp_path: Path, put_pair: Put) -> None:
    put_pair("images/x.jpg", "labels/x_gt.png", 1)
    assert ids(opened(tmp_path, "images/x.jpg labels/x_gt.png\n")) == ["x"]


def test_pictures_of_one_name_are_not_chosen_between(tmp_path: Path, put_pair: Put) -> None:
    for split in ("train", "val"):
        put_pair(f"images/{split}/1.jpg", f"labels/{split}/1.png", 1)
    with pytest.raises(
        MismatchError, match=r"train\+val: images have the same name:\n  1: .*1.jpg"
    ):
        open_dataset(tmp_path, "train+val", classes=2)
    (tmp_path / "list.txt").write_text("images/train/1.jpg\nimages/train/1.png\n")
    with pytest.raises(MismatchError, match=r"list train: .*\n  images/train/1: "):
        open_dataset(tmp_path / "list.txt", classes=2)


def test_a_list_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes("Hütte\n".encode("latin-1"))
    with pytest.raises(FormatError, match="byte 1 is not UTF-8, expected a list of images"):
        read_list(path)
    path.write_text("a\n", encoding="utf-16")
    with pytest.raises(FormatError, match="is a binary file, expected a list of images"):
        read_list(path)
    with pytest.raises(ZooError, match="is a folder, expected a file"):
        read_list(tmp_path)


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(StorageError, match=r"x: cannot be read \(Not a directory\)"):
        by_stem(tmp_path / "x", [".png"])

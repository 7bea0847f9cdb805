from collections.abc import Callable
from pathlib import Path

import pytest

from deeplab_zoo.proto.errors import MismatchError
from deeplab_zoo.zoo.data.dataset import demand_apart
from deeplab_zoo.zoo.data.layouts import open_dataset

Put = Callable[..., None]


def test_equal_names_in_two_folders_are_no_leak_unless_they_are_one_file(
    tmp_path: Path, put_pair: Put
) -> None:
    for place in ("train", "val"):
        put_pair(f"{place}/images/0001.png", f"{place}/labels/0001.png", 1)
    train, val = (open_dataset(tmp_path / place, classes=2) for place in ("train", "val"))
    demand_apart(train, val)
    (tmp_path / "val" / "images" / "0001.png").unlink()
    (tmp_path / "val" / "images" / "0001.png").symlink_to(train.samples[0].image)
    with pytest.raises(MismatchError, match=r"1 samples are in folders train .*\n  0001"):
        demand_apart(train, val)


def test_a_picture_of_voc_is_known_by_its_id_wherever_it_lies(voc: Path, tmp_path: Path) -> None:
    train = open_dataset(voc, "train")
    other = voc.rename(tmp_path / "copy")
    with pytest.raises(MismatchError, match="4 samples are in voc train"):
        demand_apart(train, open_dataset(other, "train"))

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplab_zoo.proto.errors import FormatError, UsageError, ZooError
from deeplab_zoo.zoo.data.convert_masks import convert_masks
from deeplab_zoo.zoo.data.images import read_mask
from deeplab_zoo.zoo.data.legend import CAMVID, CITYSCAPES_IDS, VOC

IDS = np.array([[0, 2, 20], [15, 255, 5]], np.uint8)


def colours_of(ids: np.ndarray) -> np.ndarray:
    table = np.zeros((256, 3), np.uint8)
    for colour, value in VOC.ink:
        table[value] = colour
    return table[ids]


def test_a_folder_of_colour_masks_becomes_ids(tmp_path: Path) -> None:
    source, target = tmp_path / "colours", tmp_path / "made" / "ids"
    source.mkdir()
    for name in ("a", "b"):
        Image.fromarray(colours_of(IDS)).save(source / f"{name}.png")
    told: list[tuple[int, int]] = []
    written = list(convert_masks(source, target, VOC, progress=lambda *one: told.append(one)))
    assert told == [(1, 2), (2, 2)]
    assert written == [target / "a.png", target / "b.png"]
    for path in written:
        with Image.open(path) as picture:
            assert picture.mode == "L"
            assert (np.asarray(picture) == IDS).all()


def test_a_grey_picture_is_undone_where_no_two_classes_share_a_grey(tmp_path: Path) -> None:
    grey, out = tmp_path / "grey.png", tmp_path / "ids.png"
    Image.fromarray(colours_of(IDS)).convert("L").save(grey)
    list(convert_masks(grey, out, VOC, grey=True))
    assert (read_mask(out, VOC) == IDS).all()


def test_a_grey_of_two_classes_is_not_guessed(tmp_path: Path) -> None:
    # Aeroplane (128, 0, 0) and potted plant (0, 64, 0) both have luminance 38.
    grey = tmp_path / "grey.png"
    Image.fromarray(colours_of(np.array([[0, 1, 16]], np.uint8))).convert("L").save(grey)
    with pytest.raises(FormatError, match="38 is aeroplane or pottedplant"):
        list(convert_masks(grey, tmp_path / "ids.png", VOC, grey=True))
    assert not (tmp_path / "ids.png").exists()


def test_renumbered_values_leave_as_class_ids(tmp_path: Path) -> None:
    Image.fromarray(np.array([[7, 26, 0]], np.uint8)).save(tmp_path / "x.png")
    list(convert_masks(tmp_path / "x.png", tmp_path / "y.png", CITYSCAPES_IDS))
    with Image.open(tmp_path / "y.png") as picture:
        assert np.asarray(picture).tolist() == [[0, 13, 255]]


def test_masks_that_cannot_be_read_are_named_and_the_others_written(tmp_path: Path) -> None:
    source = tmp_path / "masks"
    source.mkdir()
    Image.fromarray(IDS).save(source / "bad.png")
    Image.fromarray(IDS % 11).save(source / "good.png")
    with pytest.raises(FormatError, match=r"1 of 2 masks not converted:\n.*bad.png"):
        list(convert_masks(source, tmp_path / "out", CAMVID))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.png"]


def test_what_is_read_is_never_written_over(tmp_path: Path) -> None:
    Image.fromarray(IDS).save(tmp_path / "x.png")
    for path in (tmp_path, tmp_path / "x.png"):
        with pytest.raises(UsageError, match="expected another place"):
            list(convert_masks(path, path, VOC))


def test_what_is_there_is_replaced_when_asked_only(tmp_path: Path) -> None:
    Image.fromarray(IDS).save(tmp_path / "x.png")
    out = tmp_path / "ids.png"
    out.write_bytes(b"mine")
    with pytest.raises(UsageError, match="has 1 of the files to write"):
        list(convert_masks(tmp_path / "x.png", out, VOC))
    assert out.read_bytes() == b"mine"
    with pytest.raises(ZooError, match="is a folder, expected the name of a file"):
        list(convert_masks(tmp_path / "x.png", tmp_path, VOC))
    list(convert_masks(tmp_path / "x.png", out, VOC, overwrite=True))
    assert (read_mask(out, VOC) == IDS).all()

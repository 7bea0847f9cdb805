import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from deeplab_zoo.proto.errors import FormatError, StorageError, UsageError
from deeplab_zoo.zoo.data.images import read_mask
from deeplab_zoo.zoo.data.legend import CAMVID, SCRIBBLE, VOC
from deeplab_zoo.zoo.data.scribbles import scribble, scribble_masks


def random(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def scene(height: int = 150, width: int = 210) -> np.ndarray:
    """Two discs of a class, a thin bar, a comb on a ground, and void around one of them."""
    y, x = np.mgrid[:height, :width]
    mask = np.zeros((height, width), np.uint8)
    mask[np.hypot(y - 50, x - 60) < 33] = 255
    mask[np.hypot(y - 50, x - 60) < 30] = 15
    mask[np.hypot(y - 120, x - 150) < 22] = 15
    mask[10:14, 120:200] = 5
    mask[100:140, 20:90] = 8
    mask[110:140, 20:90:4] = 0
    return mask


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.005, 0.03, 0.2])
def test_every_pixel_of_a_stroke_has_the_masks_own_class(seed: int, share: float) -> None:
    mask = scene()
    found = scribble(mask, random(seed), share)
    drawn = found != 255
    assert drawn.any()
    assert (found[drawn] == mask[drawn]).all()
    assert not drawn[mask == 255].any()


def test_no_class_is_reached_where_noise_leaves_no_middle() -> None:
    # Regions touch in corners only, and ways run along borders.
    mask = random(1).integers(0, 3, (60, 80)).astype(np.uint8)
    found = scribble(mask, random(), 0.1)
    drawn = found != 255
    assert (found[drawn] == mask[drawn]).all()


def test_every_region_has_a_stroke_and_the_pen_keeps_off_its_border() -> None:
    mask = scene()
    found = scribble(mask, random())
    for one in (0, 5, 8, 15):
        regions, count = ndimage.label(mask == one, np.ones((3, 3)))
        large = [n for n in range(1, count + 1) if (regions == n).sum() > mask.size / 2500]
        assert large
        assert all((found[regions == number] == one).any() for number in large)
    disc = mask == 15
    assert not (found == 15)[disc & ~ndimage.binary_erosion(disc, np.ones((3, 3)))].any()


def test_a_class_of_one_small_region_has_a_stroke_but_a_speck_has_none() -> None:
    mask = np.zeros((200, 300), np.uint8)
    mask[20:23, 20:23] = 3  # Nine pixels, all there is of the class.
    mask[40:42, 40:44] = 4  # Eight.
    mask[60:63, 60:64] = 5  # The smaller of two.
    mask[80:99, 80:99] = 5
    found = scribble(mask, random())
    assert set(np.unique(found)) == {0, 3, 5, 255}
    assert (found[60:63, 60:64] != 5).all()


@pytest.mark.parametrize("share", [0.01, 0.03, 0.05])
def test_the_share_of_pixels_is_about_what_was_asked_for(share: float) -> None:
    assert (scribble(scene(), random(), share) != 255).mean() == pytest.approx(share, rel=0.2)


def test_one_large_region_gets_several_strokes_of_one_width() -> None:
    found = scribble(np.full((240, 320), 7, np.uint8), random())
    drawn = found == 7
    assert drawn.mean() == pytest.approx(0.03, rel=0.2)
    # Wider than a line, and nowhere a blot.
    assert ndimage.binary_erosion(drawn, np.ones((2, 2))).any()
    assert not ndimage.binary_erosion(drawn, np.ones((8, 8))).any()


def test_a_stroke_goes_along_the_middle_of_a_long_region() -> None:
    mask = np.full((100, 200), 255, np.uint8)
    mask[30:61, 10:190] = 2
    y, x = np.nonzero(scribble(mask, random(), 0.02) == 2)
    assert np.ptp(x) > 0.7 * 180
    assert abs(y.mean() - 45) < 5
    assert np.abs(y - 45).max() < 14


def test_void_and_nothing_to_draw_on_stay_unlabelled() -> None:
    assert (scribble(np.full((9, 7), 255, np.uint8), random()) == 255).all()
    assert (scribble(np.zeros((2, 4), np.uint8), random()) == 255).all()
    assert (scribble(np.zeros((1, 30), np.uint8), random(), 1.0) == 0).any()
    assert (scribble(np.zeros((1, 1), np.uint8), random()) == 255).all()


def masks(folder: Path, count: int = 3) -> Path:
    folder.mkdir()
    for number in range(count):
        picture = Image.fromarray(scene(150 + number, 210))
        picture.save(folder / f"m{number}.png")
    return folder


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_scribbles_depend_on_mask_name_and_seed_alone(tmp_path: Path) -> None:
    source = masks(tmp_path / "masks")
    told: list[tuple[int, int]] = []
    written = list(
        scribble_masks(source, tmp_path / "a", VOC, progress=lambda *one: told.append(one))
    )
    assert [path.name for path in written] == ["m0.png", "m1.png", "m2.png"]
    assert told == [(1, 3), (2, 3), (3, 3)]
    # By two processes; alone, without the files before it; by another seed; by another name.
    list(scribble_masks(source, tmp_path / "b", VOC, workers=2))
    assert bytes_of(tmp_path / "b") == bytes_of(tmp_path / "a")
    list(scribble_masks(source / "m2.png", tmp_path / "m2.png", VOC))
    assert (tmp_path / "m2.png").read_bytes() == (tmp_path / "a" / "m2.png").read_bytes()
    list(scribble_masks(source, tmp_path / "c", VOC, seed=1))
    assert (tmp_path / "c" / "m0.png").read_bytes() != (tmp_path / "a" / "m0.png").read_bytes()
    (source / "m1.png").write_bytes((source / "m2.png").read_bytes())
    list(scribble_masks(source / "m1.png", tmp_path / "m1.png", VOC))
    assert (tmp_path / "m1.png").read_bytes() != (tmp_path / "m2.png").read_bytes()


def test_a_file_name_that_is_not_utf_8_is_drawn(tmp_path: Path) -> None:
    (source,) = masks(tmp_path / "masks", 1).iterdir()
    odd = source.rename(source.with_name(os.fsdecode(b"stra\xdfe.png")))
    (written,) = scribble_masks(odd.parent, tmp_path / "out", VOC)
    assert written.name == odd.name


def test_files_have_a_palette_and_are_read_by_the_legend_of_scribbles(tmp_path: Path) -> None:
    (path,) = scribble_masks(masks(tmp_path / "masks", 1) / "m0.png", tmp_path / "x.png", VOC)
    with Image.open(path) as picture:
        assert picture.mode == "P"
        assert picture.getpalette()[45:48] == list(VOC.colours[15])
    assert set(np.unique(read_mask(path, SCRIBBLE))) == {0, 5, 8, 15, 255}


def test_what_cannot_be_done_is_said_before_anything_is_written(tmp_path: Path) -> None:
    source, out = masks(tmp_path / "masks"), tmp_path / "out"
    with pytest.raises(UsageError, match="share: 0, expected more than 0"):
        list(scribble_masks(source, out, VOC, share=0))
    with pytest.raises(UsageError, match="is what is read"):
        list(scribble_masks(source, source, VOC))
    with pytest.raises(UsageError, match="lies in what is read, expected another place"):
        list(scribble_masks(source, source / "inside", VOC))
    with pytest.raises(StorageError, match="no such folder"):
        list(scribble_masks(tmp_path / "none", out, VOC))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match=r"empty: holds no masks \(\.png"):
        list(scribble_masks(tmp_path / "empty", out, VOC))
    assert not out.exists()
    out.mkdir()
    (out / "m1.png").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"1 of the files to write:\n.*m1.png\n.*--overwrite"):
        list(scribble_masks(source, out, VOC))
    assert bytes_of(out) == {"m1.png": b"mine"}
    assert len(list(scribble_masks(source, out, VOC, overwrite=True))) == 3
    assert (out / "m1.png").read_bytes() != b"mine"


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_masks_are_named_and_the_others_written(tmp_path: Path, workers: int) -> None:
    source = masks(tmp_path / "masks", 2)
    (source / "bad.png").write_bytes(b"no picture")
    Image.fromarray(np.full((5, 7), 77, np.uint8)).save(source / "odd.png")
    with pytest.raises(FormatError, match=r"2 of 4 masks not(.|\n)*bad.png(.|\n)*odd.png: has the"):
        list(scribble_masks(source, tmp_path / "out", VOC, workers=workers))
    assert sorted(bytes_of(tmp_path / "out")) == ["m0.png", "m1.png"]


def test_errors_survive_the_way_from_another_process() -> None:
    assert str(pickle.loads(pickle.dumps(FormatError("x: is damaged")))) == "x: is damaged"


@pytest.mark.golden
def test_camvid_is_drawn_on_in_every_large_class(shared: Path) -> None:
    for name in ("0001TP_006690", "0006R0_f02640", "0016E5_04590"):
        mask = read_mask(shared / "data" / "camvid" / "labels" / f"{name}.png", CAMVID)
        found = scribble(mask, random())
        drawn = found != 255
        assert (found[drawn] == mask[drawn]).all()
        assert drawn.mean() == pytest.approx(0.03, rel=0.1)
        sizes = np.bincount(mask[mask != 255].ravel())
        assert set(np.flatnonzero(sizes > 100)) <= set(np.unique(found))

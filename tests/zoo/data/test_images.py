from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deeplab_zoo.proto.errors import FormatError
from deeplab_zoo.zoo.data.images import luminance, read_mask, read_photo
from deeplab_zoo.zoo.data.legend import CAMVID, CITYSCAPES_IDS, VOC, colormap, legend

IDS = np.array([[0, 1, 20], [15, 255, 2]], np.uint8)


def colours_of(ids: np.ndarray) -> np.ndarray:
    return np.array(colormap(256), np.uint8)[ids]


def with_palette(ids: np.ndarray) -> Image.Image:
    picture = Image.frombytes("P", ids.shape[::-1], ids.tobytes())
    picture.putpalette(np.array(colormap(256), np.uint8).ravel().tolist())
    return picture


@pytest.mark.parametrize("kind", ["ids", "palette", "colours", "grey rgb", "16 bit", "alpha"])
def test_a_mask_is_read_as_ids_however_it_is_kept(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "mask.png"
    picture = {
        "ids": Image.fromarray(IDS),
        "palette": with_palette(IDS),
        "colours": Image.fromarray(colours_of(IDS)),
        "grey rgb": Image.fromarray(np.repeat(IDS[..., None], 3, 2)),
        "16 bit": Image.fromarray(IDS.astype(np.uint16)),
        "alpha": Image.fromarray(colours_of(IDS)).convert("RGBA"),
    }[kind]
    picture.save(path)
    assert (read_mask(path, VOC) == IDS).all()


def test_colours_follow_the_legends_renumbering(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray(np.array([[(128, 64, 128), (0, 0, 142), (0, 0, 0)]], np.uint8)).save(path)
    assert read_mask(path, CITYSCAPES_IDS).tolist() == [[0, 13, 255]]


def test_colours_that_are_all_grey_are_colours_still(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    for greys, known, ids in (
        ([0, 0], CAMVID, [255, 255]),  # Black is void there, and 0 is sky.
        ([0, 128], CAMVID, [255, 0]),
        ([0, 128], VOC, [0, 7]),
        ([0, 15], VOC, [0, 15]),  # No class has the colour (15, 15, 15).
        ([0, 255], legend(["ground", "house"], [(0, 0, 0), (255, 255, 255)]), [0, 1]),
    ):
        Image.fromarray(np.repeat(np.array([greys], np.uint8)[..., None], 3, 2)).save(path)
        assert read_mask(path, known).tolist() == [ids]


def test_a_colour_of_several_classes_is_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray(np.array([[(9, 8, 7), (0, 0, 0)]], np.uint8)).save(path)
    known = legend(["a", "b", "c"], [(0, 0, 0), (9, 8, 7), (9, 8, 7)])
    with pytest.raises(
        FormatError, match=r"1 colours .*: \(9, 8, 7\).* several classes one colour"
    ):
        read_mask(path, known)


def test_a_grey_picture_of_the_palette_is_refused_with_the_cure(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray(colours_of(IDS)).convert("L").save(path)
    with pytest.raises(FormatError, match=r"mask.png: is a grey picture .* labels convert"):
        read_mask(path, VOC)


def test_our_grey_is_pillows() -> None:
    for colour in (*colormap(256), *CITYSCAPES_IDS.colours):
        assert luminance(colour) == Image.new("RGB", (1, 1), colour).convert("L").getpixel((0, 0))


def test_labels_out_of_range_are_named(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray(IDS).save(path)
    with pytest.raises(FormatError, match=r"labels 15, 20, expected 3 classes \(0..2\) and 255"):
        read_mask(path, legend(["a", "b", "c"]))
    Image.fromarray(np.array([[0, 300]], np.uint16)).save(path)
    with pytest.raises(FormatError, match="labels from 0 to 300"):
        read_mask(path, VOC)


def test_a_colour_of_no_class_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray(np.array([[(0, 0, 0), (1, 2, 3)]], np.uint8)).save(path)
    with pytest.raises(FormatError, match=r"1 colours that are no class's: \(1, 2, 3\)"):
        read_mask(path, VOC)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "1"])
def test_photos_of_any_8_bit_mode_become_rgb(tmp_path: Path, mode: str) -> None:
    picture = Image.new("RGB", (7, 5), (255, 255, 255)).convert(mode)
    path = tmp_path / f"photo.{'tif' if mode == 'CMYK' else 'png'}"
    picture.save(path)
    found = read_photo(path)
    assert found.shape == (5, 7, 3)
    assert (found == 255).all()


def test_damage_is_named(tmp_path: Path) -> None:
    good = tmp_path / "good.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)).save(good)
    cut, html, deep = (tmp_path / name for name in ("cut.jpg", "page.jpg", "deep.png"))
    cut.write_bytes(good.read_bytes()[:-900])
    html.write_text("<html>not found</html>")
    Image.fromarray(np.full((3, 4), 1000, np.uint16)).save(deep)
    for path, complaint in (
        (cut, "cut.jpg: is damaged: image file is truncated"),
        (html, "page.jpg: is not a picture"),
        (deep, "deep.png: has pixels of mode I;16"),
        (tmp_path, "cannot be read: Is a directory"),
        (tmp_path / "none.jpg", "none.jpg: no such file"),
    ):
        with pytest.raises(FormatError, match=complaint):
            read_photo(path)


def test_damage_that_trips_the_decoder_is_named_too(tmp_path: Path) -> None:
    path = tmp_path / "photo.tif"
    Image.new("RGB", (7, 5)).save(path)
    # The strip's offset (tag 273, a long) becomes text: Pillow raises a TypeError.
    whole = path.read_bytes()
    assert whole.count(b"\x11\x01\x04\x00") == 1
    path.write_bytes(whole.replace(b"\x11\x01\x04\x00", b"\x11\x01\x02\x00"))
    with pytest.raises(FormatError, match="photo.tif: is damaged"):
        read_photo(path)


def test_what_pillow_finds_too_large_is_not_simply_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (7, 5)).save(tmp_path / "aerial.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(FormatError, match=r"aerial.png: .*tiles: Image size \(35 pixels\)"):
        read_photo(tmp_path / "aerial.png")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@given(data=st.data(), kind=st.sampled_from(["photo.jpg", "mask.png"]))
@settings(max_examples=80, deadline=None)
def test_any_damage_is_a_format_error_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, kind: str
) -> None:
    path = tmp_path_factory.getbasetemp() / kind
    values = np.random.default_rng(0).integers(0, 21, (12, 9, 3), np.uint8)
    Image.fromarray(values if kind.startswith("photo") else values[..., 0]).save(path)
    whole = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=3)):
        whole[place] = data.draw(st.integers(0, 255))
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        found = read_photo(path) if kind.startswith("photo") else read_mask(path, VOC)
    except FormatError as error:
        assert str(error).startswith(f"{path}: ")
    else:
        assert found.dtype == np.uint8


def test_mat_masks_of_sbd_and_coco_stuff(tmp_path: Path) -> None:
    io = pytest.importorskip("scipy.io")
    sbd, stuff, other = (tmp_path / f"{name}.mat" for name in ("sbd", "stuff", "other"))
    io.savemat(sbd, {"GTcls": {"Segmentation": IDS % 21, "Boundaries": 0}})
    io.savemat(stuff, {"S": np.array([[0, 1, 182]], np.uint16)})
    io.savemat(other, {"T": IDS})
    assert (read_mask(sbd, VOC) == IDS % 21).all()
    assert read_mask(stuff, legend([str(one) for one in range(182)])).tolist() == [[255, 0, 181]]
    with pytest.raises(FormatError, match="has no variable 'GTcls'"):
        read_mask(other, VOC)
    for held, complaint in (
        ({"S": np.array([[0, 300]], np.uint16)}, "labels from 255.0 to 299.0"),
        ({"GTcls": {"Segmentation": np.array([[0, 257]], np.uint16)}}, "labels from 0 to 257"),
        ({"S": np.ones((2, 3, 4), np.uint8)}, r"of shape \(2, 3, 4\), expected class ids"),
        ({"S": np.array([[1.5, 2]])}, r"float64 of shape \(1, 2\)"),
        ({"GTcls": {"Segmentation": np.array([[1, np.nan]])}}, r"float64 of shape \(1, 2\)"),
    ):
        io.savemat(other, held)
        with pytest.raises(FormatError, match=complaint):
            read_mask(other, VOC)
    assert (read_mask(sbd.rename(tmp_path / "sbd.MAT"), VOC) == IDS % 21).all()
    (tmp_path / "sbd.MAT").rename(sbd)
    sbd.write_bytes(sbd.read_bytes()[:150])
    with pytest.raises(FormatError, match="sbd.mat: is damaged"):
        read_mask(sbd, VOC)


@pytest.mark.golden
def test_a_photo_of_voc_and_its_mask(shared: Path) -> None:
    folder = shared / "data" / "voc"
    photo = read_photo(folder / "2007_000129.jpg")
    ids = read_mask(folder / "2007_000129.png", VOC)
    assert photo.shape == (500, 334, 3)
    assert ids.shape == (500, 334)
    assert {VOC.names[one] for one in np.unique(ids) if one < 21} == {
        "background", "bicycle", "person",
    }  # fmt: skip

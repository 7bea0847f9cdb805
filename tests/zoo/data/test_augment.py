from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from deeplab_zoo.converters.numerics import CAFFE_V2, JACCARD_SEGMENT, PROFILES
from deeplab_zoo.proto.errors import UsageError
from deeplab_zoo.zoo.data.augment import (
    AUGMENTATIONS,
    Augmentation,
    Draw,
    apply,
    augmentation,
    draw,
    generator,
)

TRAINING = [name for name in AUGMENTATIONS if name != "none"]


def coordinates(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture whose red is its row and green its column (times four), and a mask of the row
    or, drawn apart, the column."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([4 * y, 4 * x, np.full_like(y, 255)], -1).astype(np.uint8)
    return image, np.stack([y, x]).astype(np.uint8)


@pytest.mark.parametrize("name", TRAINING)
@given(
    size=st.tuples(st.integers(2, 60), st.integers(2, 60)),
    seed=st.integers(0, 10**6),
    crop=st.integers(1, 50),
)
@settings(max_examples=25, deadline=None)
def test_picture_and_mask_move_together(
    name: str, size: tuple[int, int], seed: int, crop: int
) -> None:
    row = AUGMENTATIONS[name]
    # The same ways at a size where a coordinate fits a byte; blur would mix coordinates.
    way = replace(
        row, crop=crop if row.crop else 0, blur=False,
        squash=crop if row.squash else 0, base=30 if row.base else 0,
    )  # fmt: skip
    image, places = coordinates(*size)
    drawn = draw(way, size, generator(seed, 0, 0))
    pixels, rows = apply(way, drawn, image, places[0], CAFFE_V2)
    columns = apply(way, drawn, image, places[1], CAFFE_V2)[1]
    assert pixels.shape[1:] == rows.shape == columns.shape
    if way.crop:
        assert rows.shape == (crop, crop)
    inside = rows != way.pad_label
    assert (inside == (columns != way.pad_label)).all()
    assert inside.any()
    blue, green, red = pixels + np.array(CAFFE_V2.mean, np.float32)[:, None, None]
    # Nothing was interpolated with padding: blue is 255 all over the picture.
    np.testing.assert_allclose(blue[inside], 255, atol=1e-3)
    # Bilinear and nearest look at most half a source pixel apart (top_left: one), squashing
    # does it twice, and averaging takes a pixel's rim for its middle at the borders.
    ratio = max(1.0, *(one / way.squash for one in size)) if way.squash else 1.0
    shrink = max(1.0, *(a / b for a, b in zip(size, drawn.size, strict=True)))
    slack = {"half_pixel": 0.5, "top_left": 1.0, "antialias": 0.5 + shrink / 2}[way.resize]
    slack = slack + 1.01 * ratio if way.squash else slack + 0.01
    slack += 0.5 if way.resize == "antialias" else 0.0  # Two roundings to 8 bits, over four.
    assert np.abs(red / 4 - rows)[inside].max() <= slack
    assert np.abs(green / 4 - columns)[inside].max() <= slack


@pytest.mark.parametrize("name", PROFILES)
def test_nothing_drawn_is_the_network_s_input_of_the_photo(name: str) -> None:
    from deeplab_zoo.zoo.models.inference import prepare

    image = coordinates(6, 9)[0]
    way, numerics = AUGMENTATIONS["none"], PROFILES[name]
    drawn = draw(way, (6, 9), generator(0, 0, 0))
    assert drawn == Draw((6, 9))
    pixels, label = apply(way, drawn, image, None, numerics)
    assert label is None
    assert (pixels == prepare(image, numerics)[0].numpy()).all()


@pytest.mark.parametrize(
    ("side", "value", "top", "left"),
    [("end", "mean", 0, 0), ("around", "mean", 1, 2), ("end", "black", 0, 0), ("around", "black", 1, 2)],
)  # fmt: skip
def test_padding_goes_where_and_has_the_colour_that_the_way_says(
    side: str, value: str, top: int, left: int
) -> None:
    way = Augmentation("x", crop=8, mirror=False, pad_side=side, pad_value=value, pad_label=254)
    image, places = coordinates(6, 4)
    drawn = draw(way, (6, 4), generator(0, 0, 0))
    pixels, rows = apply(way, drawn, image, places[0], JACCARD_SEGMENT)
    inside = rows != 254
    window = np.zeros((8, 8), bool)
    window[top : top + 6, left : left + 4] = True
    assert (inside == window).all()
    assert (rows[window].reshape(6, 4) == places[0]).all()
    outside = np.asarray(JACCARD_SEGMENT.mean, np.float32) * (0 if value == "mean" else -1)
    assert (pixels[:, ~window] == outside[:, None]).all()
    red = pixels[0][window].reshape(6, 4) + np.float32(JACCARD_SEGMENT.mean[0])
    np.testing.assert_allclose(red, image[..., 0], atol=1e-4)  # float32 of 0..255, and back


@pytest.mark.parametrize("side", ["end", "around"])
@pytest.mark.parametrize("width", [4, 7, 13])
def test_a_mirrored_crop_has_its_padding_mirrored_too(side: str, width: int) -> None:
    way = Augmentation("x", crop=7, pad_side=side, pad_mirrors=True)
    image, places = coordinates(5, width)
    corner = (0, 4) if width == 13 else (0, 0)
    plain, flipped = (
        apply(way, Draw((5, width), corner, mirror=one), image, places[1], CAFFE_V2)
        for one in (False, True)
    )
    assert (flipped[0] == plain[0][..., ::-1]).all()
    assert (flipped[1] == plain[1][..., ::-1]).all()
    picture_first = replace(way, pad_mirrors=False)
    found = apply(picture_first, Draw((5, width), mirror=True), image, places[1], CAFFE_V2)[1]
    assert found[2, (7 - width) // 2 if side == "around" and width < 7 else 0] == width - 1


def test_a_mirror_reverses_columns_only() -> None:
    way = Augmentation("x", crop=0)
    image, places = coordinates(5, 7)
    plain, flipped = (
        apply(way, Draw((5, 7), mirror=one), image, places[1], CAFFE_V2) for one in (False, True)
    )
    assert (flipped[0] == plain[0][..., ::-1]).all()
    assert (flipped[1] == plain[1][..., ::-1]).all()


def test_blur_is_pillows_on_the_crop() -> None:
    image = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    way = AUGMENTATIONS["none"]
    pixels, _ = apply(way, Draw((9, 12), blur=0.8), image, None, CAFFE_V2)
    soft = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(0.8)), np.float32)
    expected = soft.transpose(2, 0, 1)[::-1] - np.array(CAFFE_V2.mean, np.float32)[:, None, None]
    assert (pixels == expected).all()


def drawn_by(name: str, size: tuple[int, int], count: int = 400) -> list[Draw]:
    return [draw(AUGMENTATIONS[name], size, generator(7, 0, one)) for one in range(count)]


@pytest.mark.parametrize("name", ["caffe", "kazuto1011"])
def test_the_fixed_scales_all_occur_and_no_others(name: str) -> None:
    heights = {one.size for one in drawn_by(name, (375, 501))}
    assert heights == {(187, 250), (281, 375), (375, 501), (468, 626), (562, 751)}


@pytest.mark.parametrize(
    ("name", "low", "high"), [("drsleep", 500, 1500), ("jaccard-segment", 500, 1500)]
)
def test_continuous_scales_fill_their_range(name: str, low: int, high: int) -> None:
    sides = [one.size[0] for one in drawn_by(name, (1000, 2000))]
    assert low <= min(sides) < low + 30
    assert high - 30 < max(sides) <= high
    assert abs(np.mean(sides) - 1000) < 50


def test_isht7_squashes_and_does_not_crop() -> None:
    sizes = {one.size for one in drawn_by("isht7", (375, 500))}
    assert all(height == width for height, width in sizes)
    assert 160 <= min(sizes)[0] < 170
    assert 407 < max(sizes)[0] <= 417
    way = AUGMENTATIONS["isht7"]
    image, places = coordinates(20, 50)
    pixels, label = apply(way, Draw((200, 200)), image, places[0], CAFFE_V2)
    assert pixels.shape == (3, 200, 200)
    assert label.max() == 19


def test_squashing_works_on_every_grid() -> None:
    for mode in ("half_pixel", "top_left", "antialias"):
        way = Augmentation("x", crop=0, squash=16, resize=mode)
        pixels, _ = apply(way, Draw((12, 12)), coordinates(20, 50)[0], None, CAFFE_V2)
        red = pixels[2] + np.float32(CAFFE_V2.mean[2])
        assert (np.diff(red[:, 3]) > 0).all()


def test_rloss_draws_the_length_of_the_shorter_side() -> None:
    found = drawn_by("rloss", (500, 375), 800)
    short = [one.size[1] for one in found]
    assert min(short) >= 256
    assert min(short) < 270
    assert 1012 < max(short) <= 1026
    assert all(one.size[0] == one.size[1] * 500 // 375 for one in found)
    blurs = [one.blur for one in found]
    assert 0.4 < np.mean([one > 0 for one in blurs]) < 0.6
    assert 0.9 < max(blurs) < 1


def test_half_are_mirrored_and_the_crop_goes_everywhere() -> None:
    found = drawn_by("caffe", (375, 501), 600)
    assert 0.43 < np.mean([one.mirror for one in found]) < 0.57
    corners = [one.corner for one in found if one.size == (375, 501)]
    assert {corner[0] for corner in corners} <= set(range(55))
    assert min(corners)[0] < 5
    assert max(corners)[0] > 49
    assert max(corner[1] for corner in corners) > 160


def test_a_sample_s_draw_depends_on_seed_position_and_index() -> None:
    way = AUGMENTATIONS["rloss"]
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0)]
    found = [draw(way, (375, 500), generator(*key)) for key in keys]
    assert found[0] == found[4]
    assert len(set(found)) == 4


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(UsageError, match="augmentation 'cafe' is unknown, expected one of none"):
        augmentation("cafe")

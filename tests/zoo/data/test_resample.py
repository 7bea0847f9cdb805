import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deeplab_zoo.converters.numerics import TF_SLIM, TORCH_HALFPIXEL
from deeplab_zoo.zoo.data.resample import Grid, Mode, mask, photo
from deeplab_zoo.zoo.models.resampling import resize


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def whole(image: np.ndarray, height: int, width: int, mode: Mode) -> np.ndarray:
    rows, columns = image.shape[:2]
    return photo(image, Grid(rows, height, 0, height), Grid(columns, width, 0, width), mode)


SIZES = [(23, 40), (7, 9), (40, 61), (17, 31)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["half_pixel", "top_left"])
def test_the_grids_are_those_of_the_profiles(mode: Mode, size: tuple[int, int]) -> None:
    image = picture(17, 31)
    numerics = {"half_pixel": TORCH_HALFPIXEL, "top_left": TF_SLIM}[mode]
    tensor = torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float32))
    expected = resize(tensor, size, numerics)[0].permute(1, 2, 0).numpy()
    # torch computes positions up to 31 in float32: off by 2^-20, times a slope of 255 twice.
    np.testing.assert_allclose(whole(image, *size, mode), expected, atol=5e-4)


@pytest.mark.parametrize("size", SIZES)
def test_the_half_pixel_grid_is_opencvs(size: tuple[int, int]) -> None:
    cv2 = pytest.importorskip("cv2")
    image = picture(17, 31)
    expected = cv2.resize(image.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)
    # Float32 weights on values up to 255: an error of 2^-24 each, a few times.
    np.testing.assert_allclose(whole(image, *size, "half_pixel"), expected, atol=2e-4)


@pytest.mark.parametrize("size", SIZES)
def test_antialias_is_pillows(size: tuple[int, int]) -> None:
    image = picture(17, 31)
    expected = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
    assert (whole(image, *size, "antialias") == np.asarray(expected)).all()


def test_nearest_on_the_top_left_grid_is_tensorflows() -> None:
    # floor(target * in / out), tf.image.resize_nearest_neighbor of TensorFlow 1.
    ids = np.arange(5 * 7, dtype=np.uint8).reshape(5, 7)
    found = mask(ids, Grid(5, 8, 0, 8), Grid(7, 3, 0, 3), "top_left")
    assert found.tolist() == ids[[0, 0, 1, 1, 2, 3, 3, 4]][:, [0, 2, 4]].tolist()


@pytest.mark.parametrize("mode", ["half_pixel", "top_left", "antialias"])
def test_a_window_at_the_picture_s_own_size_is_its_pixels(mode: Mode) -> None:
    image = picture(17, 31)
    found = photo(image, Grid(17, 17, 3, 11), Grid(31, 31, 4, 30, flip=True), mode)
    assert found.dtype == np.float32
    assert (found == image[3:11, 1:27][:, ::-1]).all()


def test_nearest_on_the_half_pixel_grid_is_torchs_exact_one() -> None:
    ids = np.arange(15 * 14, dtype=np.uint8).reshape(15, 14)
    tensor = torch.from_numpy(ids)[None, None].float()
    for size in ((8, 3), (31, 20), (15, 14), (6, 40)):
        expected = torch.nn.functional.interpolate(tensor, size, mode="nearest-exact")
        found = mask(
            ids, Grid(15, size[0], 0, size[0]), Grid(14, size[1], 0, size[1]), "half_pixel"
        )
        assert (found == expected[0, 0].byte().numpy()).all()


grids = st.tuples(
    st.integers(1, 24), st.integers(1, 40), st.floats(0, 1), st.floats(0, 1), st.booleans()
)


def grid_of(source: int, scaled: int, low: float, high: float, flip: bool) -> Grid:
    start = int(low * (scaled - 1))
    return Grid(source, scaled, start, start + 1 + int(high * (scaled - 1 - start)), flip)


@given(rows=grids, columns=grids, mode=st.sampled_from(["half_pixel", "top_left", "antialias"]))
@settings(max_examples=80, deadline=None)
def test_a_window_is_cut_from_the_scaled_and_mirrored_whole(rows, columns, mode: Mode) -> None:
    image = picture(rows[0], columns[0])
    ids = image[..., 0]
    grids = [grid_of(*one) for one in (rows, columns)]
    all_of_it = [Grid(one.source, one.scaled, 0, one.scaled) for one in grids]
    places = np.ix_(*(one.places() for one in grids))
    scaled = photo(image, *all_of_it, mode)
    # Pillow takes the window's box in float32 and rounds each of two passes to 8 bits.
    slack = 2 if mode == "antialias" else 0
    assert np.abs(photo(image, *grids, mode) - scaled[places]).max() <= slack
    assert (mask(ids, *grids, mode) == mask(ids, *all_of_it, mode)[places]).all()

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from deeplab_zoo import DenseCRFLoss, ZooError
from deeplab_zoo.cli.predict import predict as command
from deeplab_zoo.zoo.data.dataset import Dataset
from deeplab_zoo.zoo.evaluation.heatmap import CAPTION, Reach, gradients, hot, reach_of, sheet
from deeplab_zoo.zoo.evaluation.inputs import find
from deeplab_zoo.zoo.evaluation.predict import predict

Make = Callable[..., torch.nn.Module]
REACH = Reach(sigma_rgb=20, sigma_xy=9, scale=1)


def halves() -> tuple[torch.Tensor, np.ndarray]:
    """A dark and a bright half, and probabilities that put the border two pixels off."""
    photo = np.full((12, 20, 3), 40, np.uint8)
    photo[:, 10:] = 200
    shares = torch.full((2, 12, 20), 0.1)
    shares[0, :, :12] = 0.9
    shares[1, :, 12:] = 0.9
    return shares, photo


def test_the_loss_pulls_pixels_to_the_class_of_their_like() -> None:
    shares, photo = halves()
    found = gradients(shares, photo, REACH)
    assert (found.shape, found.dtype) == ((2, 12, 20), np.float32)
    # Columns 10 and 11 are bright, so that they are pulled to class 1, though they are 0 now.
    assert (found[1, :, 10:12] < found[0, :, 10:12]).all()
    assert (found[0, :, :9] < found[1, :, :9]).all()


def test_gradients_are_those_of_the_loss_by_differences() -> None:
    shares, photo = halves()
    found = gradients(shares, photo, REACH)
    loss = DenseCRFLoss(1e-8, 20, 9, 1)
    image = torch.from_numpy(photo).permute(2, 0, 1)[None].float()

    def value(step: float) -> float:
        moved = shares.double()[None].clone()
        moved[0, 1, 5, 11] += step
        return float(loss(image, moved))

    assert found[1, 5, 11] == pytest.approx((value(0.01) - value(-0.01)) / 0.02, rel=1e-4)


def test_hot_goes_from_black_over_red_and_yellow_to_white() -> None:
    painted = hot(np.array([0.0, 0.1825, 0.365, 0.746, 1.0], np.float32))
    assert painted.tolist() == [
        [0, 0, 0], [128, 0, 0], [255, 0, 0], [255, 255, 0], [255, 255, 255],
    ]  # fmt: skip


def test_a_sheet_has_the_photo_and_a_map_of_each_class_on_its_own_scale() -> None:
    photo = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    found = np.zeros((4, 4, 6), np.float32)
    found[0, 1, 2], found[2, 3, 5] = -1e-9, -5.0
    page = np.array(sheet(photo, found, ("a", "b", "c", "d")))
    step = 4 + CAPTION
    assert page.shape == (2 * step, 3 * 6, 3)
    tiles = [
        page[row * step + CAPTION : (row + 1) * step, column * 6 : (column + 1) * 6]
        for row in range(2) for column in range(3)
    ]  # fmt: skip
    assert (tiles[0] == photo).all()
    for tile, place in ((tiles[1], (1, 2)), (tiles[3], (3, 5))):
        assert tile[place].tolist() == [255, 255, 255]
        assert tile.sum() == 3 * 255
    assert not tiles[2].any()
    assert not tiles[4].any()
    assert (page[:CAPTION] < 128).any()  # The captions.


def test_predict_writes_the_sheet_and_the_numbers(toy: Make, data: Dataset, tmp_path: Path) -> None:
    photo = data.samples[2].image
    out = tmp_path / "out"
    predict(toy(), find([str(photo)]), out, kinds=("heatmap", "gradients", "npy"), reach=REACH)
    maps = np.load(out / f"{photo.stem}-gradients.npy")
    with Image.open(photo) as picture:
        pixels = np.array(picture.convert("RGB"))
    assert maps.shape == (5, *pixels.shape[:2])
    assert (maps <= 0).all()  # More of any class always lowers this loss.
    shares = torch.from_numpy(np.load(out / f"{photo.stem}-probabilities.npy"))
    np.testing.assert_array_equal(maps, gradients(shares, pixels, REACH))
    shown = np.array(Image.open(out / f"{photo.stem}-heatmap.png"))
    names = [f"class {one}" for one in range(5)]
    np.testing.assert_array_equal(shown, np.array(sheet(pixels, maps, names)))


def test_parameters_that_cannot_be_are_refused() -> None:
    assert reach_of({}) == Reach(15, 80, 1)
    assert reach_of({"sigma_xy": 100, "scale": 0.5}) == Reach(15, 100, 0.5)
    with pytest.raises(ZooError, match="sigma, expected some of sigma_rgb, sigma_xy, scale"):
        reach_of({"sigma": 3})
    for wrong in ({"sigma_rgb": 0.0}, {"scale": 2.0}, {"sigma_xy": math.nan}, {"scale": math.nan}):
        with pytest.raises(ZooError, match="sigmas above 0 and a scale up to 1"):
            reach_of(wrong)
    found = CliRunner().invoke(command, ["m", "x", "--crf-parameters", "pos_w=1,pos_w=2"])
    assert "'pos_w=1,pos_w=2', expected each name once" in found.output
    found = CliRunner().invoke(command, ["m", "x", "--heatmap-parameters", "sigma=3"])
    assert isinstance(found.exception, ZooError)

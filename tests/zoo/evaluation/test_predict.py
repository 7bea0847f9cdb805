from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deeplab_zoo import ZooError
from deeplab_zoo.zoo.data.dataset import Dataset
from deeplab_zoo.zoo.data.legend import VOC
from deeplab_zoo.zoo.evaluation.evaluate import Work
from deeplab_zoo.zoo.evaluation.inputs import find
from deeplab_zoo.zoo.evaluation.paint import overlay, palette
from deeplab_zoo.zoo.evaluation.predict import legend_for, predict
from deeplab_zoo.zoo.evaluation.protocol import Protocol
from deeplab_zoo.zoo.models import inference

Make = Callable[..., torch.nn.Module]


@pytest.fixture
def photos(data: Dataset) -> Path:
    return data.samples[0].image.parent


def test_results_have_their_pictures_names_sizes_and_values(
    toy: Make, photos: Path, tmp_path: Path
) -> None:
    (photos / "deep").mkdir()
    (photos / "p6.png").rename(photos / "deep" / "p6.png")
    model, told = toy(21), []
    done = predict(
        model, find([str(photos)]), tmp_path / "out",
        work=Work(batch_size=2, progress=lambda *now: told.append(now)),
        kinds=("mask", "colour", "overlay", "npz", "npy"),
    )  # fmt: skip
    assert len(done.written) == 35
    assert told[-1] == (7, 7)
    for name in ("p0", "deep/p6"):
        photo = np.array(Image.open(photos / f"{name}.png"))
        ids = inference.predict(model, photo, model.numerics)
        out = tmp_path / "out" / name
        mask = Image.open(f"{out}.png")
        assert mask.mode == "P"
        np.testing.assert_array_equal(mask, ids)
        colours = np.array(mask.convert("RGB"))
        np.testing.assert_array_equal(colours, np.array(VOC.colours)[ids])
        np.testing.assert_array_equal(Image.open(f"{out}-colour.png"), colours)
        mixed = np.array(Image.open(f"{out}-overlay.png")).astype(float)
        np.testing.assert_allclose(mixed, 0.45 * photo + 0.55 * colours, atol=0.51)  # Rounded.
        shares = np.load(f"{out}-probabilities.npy")
        assert shares.shape == (21, *ids.shape)
        np.testing.assert_allclose(shares.sum(0), 1, rtol=1e-5)
        np.testing.assert_array_equal(shares.argmax(0), ids)
        np.testing.assert_array_equal(np.load(f"{out}-probabilities.npz")["probabilities"], shares)


def test_probabilities_are_computed_only_if_they_are_wanted(
    toy: Make, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("softmax")

    monkeypatch.setattr(torch.Tensor, "softmax", fail)
    kinds = ("mask", "colour", "overlay")
    predict(toy(), find([str(photos / "p2.png")]), tmp_path, kinds=kinds)
    with pytest.raises(AssertionError, match="softmax"):
        predict(toy(), find([str(photos / "p3.png")]), tmp_path, kinds=("npy",))


def test_equal_predictions_give_equal_files(toy: Make, photos: Path, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        predict(toy(), find([str(photos / "p2.png")]), tmp_path / folder, kinds=("mask", "npz"))
    for name in ("p2.png", "p2-probabilities.npz"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_damaged_picture_is_named_or_counted(toy: Make, photos: Path, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(photos / "p3.jpg")
    (photos / "p3.jpg").write_bytes((photos / "p3.jpg").read_bytes()[:500])
    (photos / "p3.png").unlink()
    with pytest.raises(ZooError, match="p3.jpg: is damaged"):
        predict(toy(), find([str(photos)]), tmp_path / "one")
    done = predict(toy(), find([str(photos)]), tmp_path / "two", skip_bad=True)
    assert len(done.written) == 6
    assert len(done.skipped) == 1
    with pytest.raises(ZooError, match="not one of 1 pictures"):
        predict(toy(), find([str(photos / "p3.jpg")]), tmp_path / "three", skip_bad=True)


def test_nothing_is_overwritten_unasked(toy: Make, photos: Path, tmp_path: Path) -> None:
    model, one = toy(), find([str(photos / "p1.png")])
    predict(model, one, tmp_path / "out")
    with pytest.raises(ZooError, match="p1.png: exists"):
        predict(model, one, tmp_path / "out")
    predict(model, one, tmp_path / "out", overwrite=True)
    with pytest.raises(ZooError, match="p1.png: is a picture to segment"):
        predict(model, one, photos, overwrite=True)
    (photos / "p2.png").rename(photos / "p1-colour.png")
    both = find([str(photos / "p1.png"), str(photos / "p1-colour.png")])
    with pytest.raises(ZooError, match=r"p1-colour.png: of .*p1.png and of .*p1-colour.png"):
        predict(model, both, tmp_path / "new", kinds=("mask", "colour"))
    with pytest.raises(ZooError, match="no folder to write into"):
        predict(model, one, photos / "p1.png")
    with pytest.raises(ZooError, match="predictions are of whole pictures"):
        predict(model, one, tmp_path / "new", Protocol(crop=17))
    with pytest.raises(ZooError, match="expected some of mask"):
        predict(model, one, tmp_path / "new", kinds=("masks",))


def test_colours_are_the_datasets_of_so_many_classes() -> None:
    assert legend_for(21) == VOC
    assert legend_for(7).colours == VOC.colours[:7]
    assert legend_for(11).names[0] == "sky"
    with pytest.raises(ZooError, match="voc has 21, the model 5"):
        legend_for(5, "voc")


def test_void_leaves_the_photo_as_it_is() -> None:
    photo = np.full((2, 3, 3), 100, np.uint8)
    ids = np.array([[255, 1, 0], [255, 255, 2]], np.uint8)
    seen = overlay(photo, ids, palette(VOC.colours))
    np.testing.assert_array_equal(seen[ids == 255], 100)
    assert seen[0, 1].tolist() == [115, 45, 45]

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from deeplab_zoo import DeepLabV2, DeepLabV2Config, ZooError
from deeplab_zoo.converters.numerics import CAFFE_V2, PROFILES, TF_SLIM, TORCH_HALFPIXEL, Numerics
from deeplab_zoo.zoo.evaluation.protocol import (
    Protocol,
    decide,
    describe,
    score,
    starts,
)
from deeplab_zoo.zoo.models.inference import predict, prepare, scoring
from deeplab_zoo.zoo.models.resampling import resize, scaled

Make = Callable[..., torch.nn.Module]
SMALL = replace(CAFFE_V2, test_size=33)


def photo(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


def images(batch: int, height: int, width: int, numerics: Numerics = SMALL) -> torch.Tensor:
    return torch.cat(
        [prepare(photo(height + one, width)[:height], numerics) for one in range(batch)]
    )


@pytest.mark.parametrize("name", PROFILES)
def test_the_default_is_what_the_model_predicts_by_itself(
    name: str, tiny_multi: DeepLabV2Config
) -> None:
    torch.manual_seed(1)
    model = DeepLabV2(tiny_multi, PROFILES[name]).eval()
    model.numerics = replace(model.numerics, test_size=min(65, model.numerics.test_size))
    for parameter in model.classifier.parameters():
        parameter.data.mul_(100)
    model.backbone.conv1.weight.data.mul_(model.numerics.std[0])
    shot = photo(50, 71)
    with scoring(model):
        found = decide(score(model, prepare(shot, model.numerics), Protocol()))[0]
    assert len(found.unique()) > 1
    np.testing.assert_array_equal(found, model.predict(shot))


def test_scores_are_padded_upsampled_and_cropped_before_the_largest_wins(toy: Make) -> None:
    model, x = toy(numerics=SMALL), images(2, 19, 41)
    with scoring(model):
        found = score(model, x, Protocol())
        low = model(functional.pad(x, (0, 65 - 41, 0, 33 - 19)))
    high = functional.interpolate(low, size=(33, 65), mode="bilinear", align_corners=True)
    torch.testing.assert_close(found, high[..., :19, :41], rtol=0, atol=0)
    grown = functional.interpolate(low.argmax(1)[:, None].float(), size=(33, 65))[:, 0, :19, :41]
    assert (decide(found) != grown).any()


@pytest.mark.parametrize(("size", "height"), [(None, 33), (0, 19), (49, 49), (25, 33)])
def test_images_are_padded_as_asked(toy: Make, size: int | None, height: int) -> None:
    model = toy(numerics=SMALL)
    seen = []
    model.register_forward_hook(lambda _, given, __: seen.append(given[0].shape[-2]))
    with scoring(model):
        assert score(model, images(1, 19, 41), Protocol(size)).shape == (1, 5, 19, 41)
    assert seen == [height]


@pytest.mark.parametrize("average", ["scores", "probabilities"])
@pytest.mark.parametrize("numerics", [SMALL, TF_SLIM, TORCH_HALFPIXEL])
def test_scales_and_mirror_images_are_averaged(toy: Make, average: str, numerics: Numerics) -> None:
    model, x = toy(numerics=numerics), images(2, 35, 41, numerics)
    scales = (0.5, 1.0, 1.25)
    parts = []
    with scoring(model):
        found = score(model, x, Protocol(0, scales, flip=True, average=average))
        for scale in scales:
            for mirrored in (False, True):
                y = scaled(x, scale, numerics)
                y = torch.flip(y, [3]) if mirrored else y
                part = resize(model(y), y.shape[-2:], numerics)
                part = part.softmax(1) if average == "probabilities" else part
                part = torch.flip(part, [3]) if mirrored else part
                parts.append(resize(part, (35, 41), numerics))
    torch.testing.assert_close(found, sum(parts) / 6)
    if average == "probabilities":
        torch.testing.assert_close(found.sum(1), torch.ones(2, 35, 41))


@pytest.mark.parametrize("window", [41, 64])
def test_a_window_that_covers_the_image_changes_nothing(toy: Make, window: int) -> None:
    model, x = toy(numerics=SMALL), images(2, 19, 41)
    with scoring(model):
        whole, windowed = (score(model, x, Protocol(window=side)) for side in (0, window))
    torch.testing.assert_close(windowed, whole, rtol=0, atol=0)


def test_windows_are_averaged_where_they_overlap(toy: Make) -> None:
    model, x = toy(numerics=TF_SLIM), images(2, 17, 40, TF_SLIM)
    total, times = torch.zeros(2, 5, 17, 40), torch.zeros(17, 40)
    with scoring(model):
        found = score(model, x, Protocol(window=24, overlap=0.5))
        for left in (0, 8, 16):  # A step of 12 at most, three windows, evenly.
            part = resize(model(x[..., left : left + 24]), (17, 24), TF_SLIM)
            total[..., left : left + 24] += part
            times[:, left : left + 24] += 1
    torch.testing.assert_close(found, total / times)


@given(st.integers(1, 90), st.integers(0, 200), st.floats(0, 0.95))
def test_windows_cover_a_side_and_share_enough(window: int, more: int, overlap: float) -> None:
    size = window + more
    found = starts(size, window, overlap)
    assert (found[0], found[-1]) == (0, size - window)
    step = max(1, int(window * (1 - overlap)))
    assert all(0 < after - before <= step for before, after in pairwise(found))


def test_one_class_wins_by_the_largest_score_or_by_its_sign() -> None:
    scores = torch.tensor([[-2.0, 1.0, 3.0], [-1.0, 2.0, -4.0]]).view(1, 2, 1, 3)
    assert decide(scores).tolist() == [[[1, 1, 0]]]
    assert decide(scores, 0).tolist() == [[[0, 0, 1]]]
    assert decide(scores, 0, by_sign=True).tolist() == [[[0, 1, 1]]]
    assert decide(scores[:, 1:]).tolist() == [[[0, 1, 0]]]


def test_a_network_of_one_class_is_judged_by_sign_and_has_no_probabilities(toy: Make) -> None:
    model, shot = toy(1), photo(19, 41)
    with scoring(model):
        found = decide(score(model, prepare(shot, SMALL), Protocol()))[0]
        assert found.unique().tolist() == [0, 1]
        np.testing.assert_array_equal(found, predict(model, shot, SMALL))
        with pytest.raises(ZooError, match="needs several"):
            score(model, images(1, 19, 41), Protocol(average="probabilities"))


def test_afterwards_each_part_is_in_the_mode_it_was_in(toy: Make) -> None:
    model = torch.nn.Sequential(net := toy(), torch.nn.BatchNorm2d(5))
    model.config = net.config  # type: ignore[assignment]
    model.train()[1].eval()
    with scoring(model):
        assert not model.training
    assert [part.training for part in model] == [True, False]
    predict(model, photo(19, 41), SMALL)
    assert [part.training for part in model] == [True, False]


def test_bf16_is_near_and_comes_back_as_float32(toy: Make) -> None:
    model, x = toy(), images(1, 19, 41)
    with scoring(model):
        exact = score(model, x, Protocol())
    with scoring(model, "bf16"):
        rough = score(model, x, Protocol())
    assert rough.dtype == torch.float32
    assert not torch.equal(rough, exact)
    torch.testing.assert_close(rough, exact, rtol=0.05, atol=0.2)  # Eight bits of precision.
    model.precision = "fp32"  # As an optimised one, which would be compiled once more.
    with scoring(model, "bf16"):
        assert torch.equal(score(model, x, Protocol()), exact)


@pytest.mark.parametrize(
    "wrong",
    [{"scales": ()}, {"scales": (1, 0)}, {"scales": (float("nan"), 1)},
     {"scales": (1, float("inf"))}, {"size": -1},
     {"crop": -5}, {"window": -2}, {"overlap": 1.0},
     {"overlap": float("nan")}],
)  # fmt: skip
def test_what_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ZooError, match="expected"):
        Protocol(**wrong)


def test_a_line_says_what_the_protocol_is() -> None:
    assert describe(Protocol(), CAFFE_V2) == "padded to 513"
    assert describe(Protocol(), TF_SLIM) == "original size"
    assert describe(Protocol(), TF_SLIM, (1, 0.75)) == "network of scales 1, 0.75; original size"
    assert describe(Protocol(crop=97), CAFFE_V2) == "centre crop of 97, padded to 513"
    assert describe(Protocol(crop=97, flip=True), TF_SLIM) == (
        "centre crop of 97; mirrored too; scores averaged"
    )
    assert describe(Protocol(321, (0.5, 1), flip=True, window=200), TF_SLIM) == (
        "padded to 321; scales 0.5, 1; mirrored too; windows of 200, 33% shared; scores averaged"
    )


def test_classes_that_no_byte_can_tell_apart_are_not_decided() -> None:
    with pytest.raises(ZooError, match="scores: 257 classes, a mask holds 256 at most"):
        decide(torch.zeros(1, 257, 2, 3))
    assert decide(torch.eye(256)[None, :, :, None])[0, 255].item() == 255

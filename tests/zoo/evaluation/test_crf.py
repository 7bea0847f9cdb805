from collections.abc import Callable

import numpy as np
import pytest
import torch

from deeplab_zoo import ZooError
from deeplab_zoo.converters.numerics import TF_SLIM
from deeplab_zoo.zoo.crf.dense import DenseCRF
from deeplab_zoo.zoo.evaluation.protocol import Crf, Protocol, crf_of, score
from deeplab_zoo.zoo.models.inference import prepare, scoring

Make = Callable[..., torch.nn.Module]


def test_the_crf_sees_the_averaged_probabilities_and_the_photo(toy: Make) -> None:
    photo = np.random.default_rng(1).integers(0, 256, (17, 23, 3), np.uint8)
    model, x = toy(numerics=TF_SLIM), prepare(photo, TF_SLIM)
    with scoring(model):
        plain = score(model, x, Protocol(average="probabilities", flip=True))
        found = score(model, x, Protocol(average="probabilities", flip=True, crf=Crf(3, bi_rgb=9)))
    crf = DenseCRF(-plain.clone().log())
    crf.add_pairwise_gaussian(1.0, 3.0)
    images = torch.from_numpy(photo.transpose(2, 0, 1).copy())[None].float()
    crf.add_pairwise_bilateral(67.0, 9.0, images, 4.0)
    torch.testing.assert_close(found.clone(), crf.inference(3), rtol=0, atol=1e-6)
    assert (found - plain).abs().max() > 0.01


def test_parameters_go_by_name() -> None:
    assert crf_of({"bi_xy": 49, "iterations": 5}) == Crf(iterations=5, bi_xy=49)
    with pytest.raises(ZooError, match="bi_yx, expected some of iterations, pos_w"):
        crf_of({"bi_yx": 49})
    with pytest.raises(ZooError, match="sigmas above 0"):
        crf_of({"bi_xy": 0})
    with pytest.raises(ZooError, match="sigmas above 0"):
        crf_of({"bi_rgb": float("nan")})
    with pytest.raises(ZooError, match="finite weights"):
        crf_of({"pos_w": float("inf")})
    for iterations in (2.5, float("nan"), float("inf")):
        with pytest.raises(ZooError, match="expected a whole number"):
            crf_of({"iterations": iterations})

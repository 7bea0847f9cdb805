"""Losses that are means over pixels: binary ones, cross entropy, scribbles, focal."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from deeplab_zoo import ZooError
from deeplab_zoo.zoo.losses.binary import BinaryCrossEntropyLoss, HingeLoss, SoftJaccardLoss
from deeplab_zoo.zoo.losses.entropy import CrossEntropyLoss, FocalLoss, PartialCrossEntropyLoss

BINARY = [HingeLoss, BinaryCrossEntropyLoss, SoftJaccardLoss]
MANY = [CrossEntropyLoss, FocalLoss]


def binary(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (2, 4, 5), generator=generator)
    logits = torch.randn(2, 4, 5, generator=generator, dtype=torch.float64) * 2
    return logits, labels.masked_fill(labels == 2, 255)


def many() -> tuple[Tensor, Tensor]:
    logits = torch.randn(
        2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    labels = torch.randint(0, 4, (2, 4, 5), generator=torch.Generator().manual_seed(1))
    return logits, labels.masked_fill(labels == 3, 255)


def test_hinge_and_logistic_loss_are_means_over_the_valid_pixels() -> None:
    logits, labels = binary()
    x, y = logits[labels != 255], 2 * labels[labels != 255] - 1
    torch.testing.assert_close(HingeLoss()(logits, labels), (1 - x * y).clamp(0).mean())
    expected = (1 + (-x * y).exp()).log().mean()
    torch.testing.assert_close(BinaryCrossEntropyLoss()(logits, labels), expected)


def test_the_logistic_loss_is_stable_at_large_logits() -> None:
    logits = torch.tensor([[[1e4, -1e4, 1e4]]]).requires_grad_()
    loss = BinaryCrossEntropyLoss()(logits, torch.tensor([[[1, 0, 0]]]))
    loss.backward()
    assert loss.detach() == pytest.approx(1e4 / 3)
    assert BinaryCrossEntropyLoss()(torch.tensor([[[-torch.inf]]]), torch.zeros(1, 1, 1)) == 0
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.tensor([[[0, 0, 1 / 3]]]))


def test_soft_jaccard_is_one_less_iou_of_probabilities_of_each_image() -> None:
    logits, labels = binary()
    each = []
    for x, y in zip(logits, labels, strict=True):
        p, t = x[y != 255].sigmoid(), y[y != 255]
        each.append(1 - (p * t).sum() / (p + t - p * t).sum())
    torch.testing.assert_close(SoftJaccardLoss()(logits, labels), sum(each) / 2)
    labels[1] = 255
    torch.testing.assert_close(SoftJaccardLoss()(logits, labels), each[0])


def test_cross_entropy_is_the_librarys_with_weights_and_void() -> None:
    logits, labels = many()
    weight = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    expected = functional.cross_entropy(logits, labels, weight, ignore_index=255)
    torch.testing.assert_close(CrossEntropyLoss(weight=weight)(logits, labels), expected)
    expected = functional.cross_entropy(logits, labels, ignore_index=255)
    torch.testing.assert_close(CrossEntropyLoss()(logits, labels.to(torch.uint8)), expected)
    torch.testing.assert_close(FocalLoss(gamma=0, alpha=0.5)(logits, labels), expected / 2)


def test_focal_loss_weighs_each_pixel_by_how_wrong_it_is() -> None:
    logits, labels = many()
    right = logits.softmax(1).gather(1, labels.clamp(max=2)[:, None])[:, 0][labels != 255]
    expected = -((1 - right) ** 2 * right.log()).mean()
    torch.testing.assert_close(FocalLoss()(logits, labels), expected)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_has_a_gradient_where_a_pixel_is_right_beyond_doubt(gamma: float) -> None:
    logits = torch.tensor([100.0, -100.0]).view(1, 2, 1, 1).requires_grad_()
    FocalLoss(gamma=gamma)(logits, torch.zeros(1, 1, 1)).backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_scribbles_count_where_they_are() -> None:
    logits, labels = many()
    labels[0, 0] = 254  # Padding, in rloss.
    marked = labels < 3
    expected = functional.cross_entropy(logits.movedim(1, -1)[marked], labels[marked])
    torch.testing.assert_close(PartialCrossEntropyLoss()(logits, labels), expected)
    with pytest.raises(ZooError, match=r"labels: 254 at \(0, 0, 0\)"):
        PartialCrossEntropyLoss(unlabelled=(255,))(logits, labels)


@pytest.mark.parametrize("build", [*BINARY, *MANY, PartialCrossEntropyLoss])
def test_without_a_valid_pixel_the_loss_is_zero_and_has_a_gradient(
    build: Callable[[], nn.Module],
) -> None:
    logits = torch.randn((2, 4, 5) if build in BINARY else (2, 3, 4, 5)).requires_grad_()
    loss = build()(logits, torch.full((2, 4, 5), 255))
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("build", [*BINARY, *MANY])
def test_images_without_a_pixel_cost_nothing(build: Callable[[], nn.Module]) -> None:
    logits = torch.zeros((2, 0, 5) if build in BINARY else (2, 3, 0, 5))
    assert build()(logits, torch.zeros(2, 0, 5)) == 0


@pytest.mark.parametrize("build", [*BINARY, *MANY])
def test_gradients_are_those_of_finite_differences(build: Callable[[], nn.Module]) -> None:
    logits, labels = binary() if build in BINARY else many()
    logits = logits[..., :2, :3].contiguous().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: build()(x, labels[:, :2, :3]), logits)


@pytest.mark.parametrize("build", [*BINARY, *MANY])
def test_half_precision_is_computed_in_float32(build: Callable[[], nn.Module]) -> None:
    logits, labels = binary() if build in BINARY else many()
    logits = logits.bfloat16()
    loss = build()(logits, labels)
    assert loss.dtype == torch.float32
    assert loss == build()(logits.float(), labels)


@pytest.mark.parametrize("build", BINARY)
def test_one_channel_may_be_there_and_void_pixels_may_hold_anything(
    build: Callable[[], nn.Module],
) -> None:
    logits, labels = binary()
    expected = build()(logits, labels)
    other = logits.masked_fill(labels == 255, 1e30)
    torch.testing.assert_close(build()(other[:, None], labels), expected)


@pytest.mark.parametrize("build", [*BINARY, *MANY])
def test_what_does_not_fit_is_named(build: Callable[[], nn.Module]) -> None:
    logits, labels = binary() if build in BINARY else many()
    with pytest.raises(ZooError, match=r"labels: shape \(2, 4, 4\), expected \(2, 4, 5\)"):
        build()(logits, labels[..., 1:])
    labels[1, 2, 3] = 7
    with pytest.raises(ZooError, match=r"labels: 7 at \(1, 2, 3\), expected 0\.\.[12] or 255"):
        build()(logits, labels)
    logits[..., 1, 2] = torch.nan
    labels[1, 2, 3] = 0
    with pytest.raises(ZooError, match="logits: nan at"):
        build()(logits, labels)


@pytest.mark.parametrize("build", [*BINARY, *MANY])
def test_axes_that_are_missing_are_named(build: Callable[[], nn.Module]) -> None:
    with pytest.raises(ZooError, match=r"shape \(5,\), expected \(batch, "):
        build()(torch.zeros(5), torch.zeros(5))


@pytest.mark.parametrize("build", [*BINARY, *MANY])
def test_infinite_logits_are_named_also_where_labels_are_void(
    build: Callable[[], nn.Module],
) -> None:
    logits, labels = binary() if build in BINARY else many()
    logits[..., 1, 2], labels[:, 1, 2] = torch.inf, 255
    with pytest.raises(ZooError, match="logits: inf at"):
        build()(logits, labels)


@pytest.mark.parametrize("weight", [[1.0, -1.0], [0.0, 0.0], [1.0, torch.nan], 2.0, [[1.0, 1.0]]])
def test_weights_that_cannot_be_are_refused(weight: Any) -> None:
    with pytest.raises(ZooError, match=r"weight: .*expected a number for each class"):
        CrossEntropyLoss(weight=weight)


def test_labels_between_classes_are_no_scribbles() -> None:
    with pytest.raises(ZooError, match=r"labels: 1\.5 at"):
        PartialCrossEntropyLoss()(torch.zeros(1, 3, 1, 2), torch.tensor([[[254, 1.5]]]))


@pytest.mark.parametrize("build", [*BINARY, *MANY])
def test_unchecked_labels_stop_nothing_and_make_the_loss_not_a_number(
    build: Callable[..., nn.Module],
) -> None:
    logits, labels = binary() if build in BINARY else many()
    labels[1, 2, 3] = 7
    assert build(validate=False)(logits, labels).isnan()

"""Where there is little to count: no pixel, one, a void image, absent classes."""

import pytest
import torch

from deeplab_zoo import LovaszHingeLoss, LovaszSoftmaxLoss, lovasz_softmax

from .scores import gradient, labelled, softmaxed


def test_no_valid_pixel_gives_zero_with_a_gradient_of_zeros() -> None:
    for shape in [(2, 4, 3, 5), (0, 4, 3, 5), (2, 4, 0, 5)]:
        labels = torch.full((shape[0], *shape[2:]), 255)
        for module in (LovaszSoftmaxLoss(), LovaszSoftmaxLoss("all", per_image=True)):
            loss, grad = gradient(lambda x: module(x, labels), torch.randn(shape))  # noqa: B023
            assert loss == 0
            assert torch.equal(grad, torch.zeros(shape))
        loss, grad = gradient(lambda x: LovaszHingeLoss()(x, labels), torch.randn(labels.shape))  # noqa: B023
        assert loss == 0
        assert not grad.any()


def test_a_void_image_counts_as_zero_in_the_mean_over_images() -> None:
    probas, labels = softmaxed(2, 3, 4, 5), labelled(2, 4, 5, classes=3)
    labels[1] = 255
    both = lovasz_softmax(probas, labels, per_image=True, ignore=255)
    assert both == lovasz_softmax(probas[:1], labels[:1], per_image=True, ignore=255) / 2


def test_void_pixels_may_hold_anything() -> None:
    probas, labels = softmaxed(2, 3, 4, 5), labelled(2, 4, 5, classes=3, void=0.3)
    other = torch.where((labels == 255)[:, None], 1 / 3, probas)
    assert lovasz_softmax(probas, labels, ignore=255) == lovasz_softmax(other, labels, ignore=255)


def test_absent_classes_count_only_where_all_are_asked_for() -> None:
    probas, labels = softmaxed(1, 3, 4, 5), torch.zeros(1, 4, 5, dtype=torch.long)
    present = lovasz_softmax(probas, labels)
    everyone = lovasz_softmax(probas, labels, "all")
    absent = [probas[:, 1].max(), probas[:, 2].max()]  # The first false pixel is all the loss.
    assert everyone * 3 == pytest.approx(float(present + sum(absent)), rel=1e-6)
    assert lovasz_softmax(probas, labels, [1, 2]) == pytest.approx(float(sum(absent)) / 2, rel=1e-6)


@pytest.mark.parametrize("label", [0, 1])
def test_one_pixel(label: int) -> None:
    probas = torch.tensor([0.3, 0.7]).view(1, 2, 1, 1)
    loss, grad = gradient(lambda x: lovasz_softmax(x, torch.tensor([[[label]]])), probas)
    assert loss == pytest.approx([0.7, 0.3][label])
    assert grad.flatten().tolist() == [[-1.0, 0.0], [0.0, -1.0]][label]

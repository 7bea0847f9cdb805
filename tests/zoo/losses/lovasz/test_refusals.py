"""Labels, scores and settings that cannot be are named with their place."""

from typing import Any

import pytest
import torch

from deeplab_zoo import LovaszSoftmaxLoss, ZooError, lovasz_hinge, lovasz_softmax

from .scores import labelled, softmaxed


@pytest.mark.parametrize(
    ("shape", "label", "classes", "message"),
    [
        ((2, 3, 4, 5), 7, "present", r"labels: 7 at \(1, 2, 3\), expected 0\.\.2 or 9"),
        ((2, 3, 4, 5), -1, "present", r"labels: -1 at \(1, 2, 3\)"),
        ((2, 3, 4, 6), 0, "present", r"labels: shape \(2, 4, 5\), expected \(2, 4, 6\)"),
        ((2, 3, 4, 5), 0, "some", "classes: 'some'"),
        ((2, 3, 4, 5), 0, [1, 3], r"classes: \[1, 3\], expected different ones of 0\.\.2"),
        ((2, 3, 4, 5), 0, [], r"classes: \[\]"),
        ((2, 3, 4, 5), 0, 1, "classes: 1, expected 'present', 'all' or a list of whole"),
        ((2, 3, 4, 5), 0, [0.9], r"classes: \[0\.9\], expected"),
        ((2, 4, 5), 0.5, [1], r"labels: 0\.5 at \(1, 2, 3\)"),
        ((2, 4, 5), 0, "present", r"expected the label they are of"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(
    shape: tuple[int, ...], label: float, classes: Any, message: str
) -> None:
    labels = torch.zeros(2, 4, 5)
    labels[1, 2, 3] = label
    with pytest.raises(ZooError, match=message):
        lovasz_softmax(torch.full(shape, 1 / 3), labels, classes, ignore=9)


def test_labels_other_than_zero_and_one_are_no_binary_labels() -> None:
    with pytest.raises(
        ZooError, match=r"labels: 2 at \(0, 0, 1\) and 1 more, expected 0\.\.1\. Name"
    ):
        lovasz_hinge(torch.zeros(1, 1, 3), torch.tensor([[[0, 2, 5]]]))


def test_what_is_no_probability_is_named_with_its_place() -> None:
    probas, labels = softmaxed(2, 3, 4, 5), labelled(2, 4, 5, classes=3)
    with pytest.raises(
        ZooError, match=r"probabilities: -?\d.* at .* more, expected 0\.\.1\. Logits"
    ):
        lovasz_softmax(probas.logit(), labels)
    probas[1, :, 2, 3] *= 0.5
    with pytest.raises(ZooError, match=r"the classes sum to 0\.5 at \(1, 2, 3\), expected 1"):
        lovasz_softmax(probas, labels)
    probas[0, 2, 1, 1] = torch.nan
    with pytest.raises(ZooError, match=r"probabilities: nan at \(0, 2, 1, 1\), expected 0\.\.1"):
        lovasz_softmax(probas, labels)
    with pytest.raises(ZooError, match=r"logits: nan at \(0, 2, 1, 1\), expected numbers"):
        LovaszSoftmaxLoss()(probas, labels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_unchecked_bad_input_makes_the_loss_not_a_number(dtype: torch.dtype) -> None:
    # As on a GPU, where to check is to wait.
    probas, labels = softmaxed(2, 3, 4, 5, dtype=dtype), labelled(2, 4, 5, classes=3)
    strange = labels.clone()
    strange[1, 2, 3] = 3
    assert lovasz_softmax(probas, strange, validate=False).isnan()
    assert lovasz_hinge(probas[:, 0], strange, validate=False).isnan()
    probas[0, 1, 2, 3] = -torch.nan
    assert lovasz_softmax(probas, labels, validate=False).isnan()


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ZooError, match="reduction: 'avg', expected 'mean', 'sum' or 'none'"):
        LovaszSoftmaxLoss(reduction="avg")  # type: ignore[arg-type]
    with pytest.raises(ZooError, match="weight: 2 values, expected 3, one per class"):
        LovaszSoftmaxLoss(weight=[1.0, 2.0])(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2))
    with pytest.raises(ZooError, match=r"weight: \[1.0, -2.0\], expected a number for each class"):
        LovaszSoftmaxLoss(weight=[1.0, -2.0])


def test_the_softmax_of_one_channel_is_refused_and_so_are_missing_axes() -> None:
    with pytest.raises(ZooError, match=r"\(2, 1, 4, 5\), whose softmax is 1 everywhere"):
        LovaszSoftmaxLoss(classes=[1])(torch.zeros(2, 1, 4, 5), torch.zeros(2, 4, 5))
    with pytest.raises(ZooError, match=r"scores: shape \(5, 3\), expected \(batch, classes,"):
        LovaszSoftmaxLoss()(torch.zeros(5, 3), torch.zeros(5))
    with pytest.raises(ZooError, match=r"logits: shape \(\), expected \(batch,"):
        lovasz_hinge(torch.tensor(1.0), torch.tensor(1))

"""Labels beyond the classes, and what each class weighs."""

import pytest
import torch

from deeplab_zoo.proto.errors import MismatchError

from .texts import given_input, net_of, one, run

LABELLED = given_input(2, 3, 2, 2) + given_input(2, 1, 2, 2, name="label")


@pytest.mark.parametrize(
    ("kind", "label", "settings"),
    [
        ("SoftmaxWithLoss", 3.0, ""),
        ("SoftmaxWithLoss", -1.0, "loss_param { ignore_label: 255 }"),
        ("Accuracy", 254.0, "accuracy_param { ignore_label: 255 }"),
        ("SegAccuracy", 7.0, ""),
    ],
)
def test_a_label_beyond_the_classes_is_told(kind: str, label: float, settings: str) -> None:
    net = net_of(LABELLED + one(kind, settings, bottoms="data label"))
    labels = torch.zeros(2, 1, 2, 2)
    data = torch.randn(2, 3, 2, 2)
    net({"data": data, "label": labels})
    labels[1, 0, 0, 1] = label
    with pytest.raises(MismatchError, match=rf"'l'.*: {kind} of 3 classes: labels \[{label:.0f}\]"):
        net({"data": data, "label": labels})


def test_a_label_beyond_the_classes_of_vectors_is_told() -> None:
    vectors = given_input(2, 3) + given_input(2, name="label")
    for kind in ("HingeLoss", "MultinomialLogisticLoss"):
        net = net_of(vectors + one(kind, bottoms="data label"))
        with pytest.raises(MismatchError, match=r"labels \[5\] in 'label', expected 0 to 2"):
            net({"data": torch.rand(2, 3), "label": torch.tensor([1.0, 5.0])})


WEIGHTS = "class_weighting: 0.5 class_weighting: 2 class_weighting: 3"


def test_segnets_class_weights_multiply_and_do_not_divide() -> None:
    data, labels = torch.randn(2, 3, 2, 2), torch.tensor([0, 1, 2, 9, 1, 1, 9, 0.0])
    inputs = {"data": data, "label": labels.reshape(2, 1, 2, 2)}
    words = f"loss_param {{ ignore_label: 9 weight_by_label_freqs: true {WEIGHTS} }}"
    found = run(LABELLED + one("SoftmaxWithLoss", words, bottoms="data label"), **inputs)["out"]
    chances = torch.softmax(data.double(), 1).permute(0, 2, 3, 1).reshape(8, 3)
    share = (0.5, 2.0, 3.0)
    each = [
        -share[int(label)] * torch.log(chances[at, int(label)]).item()
        for at, label in enumerate(labels)
        if label != 9
    ]
    assert found.item() == pytest.approx(sum(each) / 6, rel=1e-6)
    plain = run(
        LABELLED
        + one("SoftmaxWithLoss", f"loss_param {{ {WEIGHTS} ignore_label: 9 }}", "data label"),
        **inputs,
    )["out"]
    assert plain.item() != pytest.approx(found.item(), rel=1e-3)  # Without the switch.


def test_class_weights_of_another_number_are_refused() -> None:
    words = f"loss_param {{ weight_by_label_freqs: true {WEIGHTS} }}"
    with pytest.raises(MismatchError, match="3 classes, as class_weighting has"):
        net_of(
            given_input(2, 4, 2, 2)
            + given_input(2, 1, 2, 2, name="label")
            + one("SoftmaxWithLoss", words, bottoms="data label")
        )

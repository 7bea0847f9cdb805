"""Losses by name: every row builds and trains; sums are told apart; the IoU metrics."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from deeplab_zoo import ZooError
from deeplab_zoo.zoo.losses.iou import iou, iou_binary
from deeplab_zoo.zoo.losses.registry import LOSSES, NAMES, build_loss


@pytest.mark.parametrize("name", NAMES)
def test_every_loss_builds_and_has_a_gradient(name: str) -> None:
    binary = name in LOSSES and LOSSES[name].binary
    logits = torch.randn((2, 1, 4, 5) if binary else (2, 3, 4, 5)).requires_grad_()
    labels = torch.randint(0, 2 if binary else 3, (2, 4, 5))
    labels[0, 0] = 255
    options = {} if name == "partial-ce" else {"ignore_index": 255}
    loss = build_loss(name, **options)
    total = loss(logits, labels)
    total.backward()
    assert total > 0
    assert logits.grad is not None
    assert logits.grad.any()
    assert not logits.grad[0, :, 0].any()


def test_every_option_of_the_table_exists() -> None:
    values = {"weight": [1.0, 2, 3], "unlabelled": (255,), "classes": "all", "method": "path"}
    numbers = {"ignore_index": 9, "gamma": 1.0, "alpha": 0.5, "lam": 2.0, "max_steps": 3}
    flags = {"per_image": True, "distributed": False, "validate": True}
    known = {**values, **numbers, **flags}
    for name, row in LOSSES.items():
        build_loss(name, **{option: known[option] for option in row.options})


def test_a_sum_shows_its_weighted_parts() -> None:
    logits, labels = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    loss = build_loss("ce+lovasz", (0.5, 2.0), ignore_index=255, classes="all")
    parts = loss.parts(logits, labels)
    assert list(parts) == ["ce", "lovasz"]
    torch.testing.assert_close(parts["ce"], 0.5 * build_loss("ce")(logits, labels))
    expected = 2 * build_loss("lovasz", classes="all")(logits, labels)
    torch.testing.assert_close(parts["lovasz"], expected)
    torch.testing.assert_close(loss(logits, labels), parts["ce"] + parts["lovasz"])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dice", {}, "loss: 'dice', expected one of ce, "),
        ("ce+ce", {}, r"loss: 'ce\+ce'"),
        ("ce+hinge", {}, r"'ce\+hinge' mixes losses of two classes with losses of many"),
        ("ce", {"gamma": 2}, "loss: 'ce' has no option gamma, expected ignore_index,"),
        ("ce+lovasz", {"weights": [1.0]}, "loss: 1 weights for 'ce"),
        ("ce", {"weights": [float("nan")]}, r"loss: weights \[nan\], expected finite"),
    ],
)
def test_what_does_not_exist_is_named(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ZooError, match=message):
        build_loss(name, **options)  # type: ignore[arg-type]


def test_the_names_are_known_without_torch() -> None:
    code = "import sys; from deeplab_zoo.zoo.losses.registry import NAMES; assert not {'torch', 'numba', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_image_iou_is_the_mean_of_the_images() -> None:
    labels = torch.tensor([[[1, 1, 0, 255]], [[0, 0, 0, 0]]])
    preds = torch.tensor([[[1, 0, 1, 1]], [[0, 0, 0, 0]]])
    assert iou_binary(preds, labels, ignore=255) == pytest.approx(100 * (1 / 3 + 1) / 2)
    assert iou_binary(preds, labels, EMPTY=0.0, ignore=255) == pytest.approx(100 / 6)
    assert iou_binary(preds, labels, ignore=255, per_image=False) == pytest.approx(100 / 3)
    assert iou_binary(preds, labels) == pytest.approx(100 * (1 / 4 + 1) / 2)
    with pytest.raises(ZooError, match="predictions: not whole numbers, expected classes"):
        iou_binary(preds * 0.9, labels)


@pytest.mark.parametrize("per_image", [True, False])
def test_the_iou_of_each_class_counts_sets_of_pixels(per_image: bool) -> None:
    random = np.random.default_rng(0)
    labels, preds = random.integers(0, 4, (2, 3, 6, 5))
    labels[random.random(labels.shape) < 0.2] = 255
    groups = [(labels[i], preds[i]) for i in range(3)] if per_image else [(labels, preds)]
    expected = np.zeros(5)
    for label in range(5):  # The last one is absent.
        for truth, guess in groups:
            inside = {(int(i), "t") for i in np.flatnonzero(truth == label)}
            found = {(int(i), "t") for i in np.flatnonzero((guess == label) & (truth != 255))}
            union = len(inside | found)
            expected[label] += 100 / len(groups) * (len(inside & found) / union if union else 1)
    result = iou(torch.from_numpy(preds), torch.from_numpy(labels), 5, 1.0, 255, per_image)
    np.testing.assert_allclose(result, expected, rtol=1e-5)
    assert len(iou(torch.from_numpy(preds), torch.from_numpy(labels), 5, ignore=0)) == 4
    with pytest.raises(ZooError, match="predictions: shape"):
        iou(torch.zeros(1, 2, 3), torch.zeros(1, 3, 2), 2)

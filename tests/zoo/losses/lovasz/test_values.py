"""The Lovász hinge and softmax are the original's and the definition's, gradients too."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import deeplab_zoo.zoo.losses.extension as extension_module
from deeplab_zoo import LovaszHingeLoss, LovaszSoftmaxLoss, lovasz_hinge, lovasz_softmax

from .scores import gradient, labelled, naive, softmaxed

LOVASZ = Path(__file__).parents[3] / "golden" / "tf" / "lovasz"
CASES = json.loads((LOVASZ / "index.json").read_text())["losses"]
# Labels of 255 that nobody called void: the original returns an int, TensorFlow's nan.
MENDED = {"softmax_sigmoid_present", "softmax_void_not_ignored"}


@pytest.mark.parametrize(
    "case", [c for c in CASES if c["case"] not in MENDED], ids=lambda c: c["case"]
)
def test_values_and_gradients_are_those_of_the_original(case: dict[str, Any]) -> None:
    data = np.load(LOVASZ / f"{case['case']}.npz")
    labels = torch.from_numpy(data["labels"])
    options = {key: case[key] for key in ("per_image", "ignore", "classes") if key in case}
    function = lovasz_hinge if case["kind"] == "hinge" else lovasz_softmax
    loss, grad = gradient(lambda x: function(x, labels, **options), torch.from_numpy(data["input"]))
    # 2e-7 of a growth of at most 1: the original takes differences of float32 losses.
    np.testing.assert_allclose(loss, data["torch_patched_stable_sort_loss"], rtol=1e-6)
    np.testing.assert_allclose(grad, data["torch_patched_stable_sort_grad"], atol=2e-7)


@pytest.mark.golden
def test_the_original_on_a_voc_sized_output_through_a_softmax(shared: Path) -> None:
    data = np.load(shared / "golden" / "tf" / "lovasz" / "softmax_voc_41x41.npz")
    module = LovaszSoftmaxLoss(per_image=True)
    labels = torch.from_numpy(data["labels"])
    loss, grad = gradient(lambda x: module(x, labels), torch.from_numpy(data["input"]))
    np.testing.assert_allclose(loss, data["torch_patched_stable_sort_loss"], rtol=1e-6)
    np.testing.assert_allclose(grad, data["torch_patched_stable_sort_grad"], atol=1e-7)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_loss_is_the_naive_definition(data: st.DataObject) -> None:
    images, classes = data.draw(st.integers(1, 3)), data.draw(st.integers(2, 4))
    pixels, seed = data.draw(st.integers(1, 9)), data.draw(st.integers(0, 10**6))
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    # Scores in quarters have many ties.
    scores = softmaxed(images, classes, pixels, seed=seed, dtype=dtype)
    if data.draw(st.booleans()):
        scores = torch.nn.functional.one_hot(scores.argmax(1), classes).movedim(2, 1).to(dtype)
        scores = scores * 0.5 + 0.5 / classes
    labels = labelled(images, pixels, classes=classes, seed=seed, void=0.2)
    per_image = data.draw(st.booleans())
    groups = range(images) if per_image else [slice(None)]
    expected = []
    for group in groups:
        flat, truth = scores.movedim(1, 0)[:, group].reshape(classes, -1), labels[group].reshape(-1)
        flat, truth = flat[:, truth != 255], truth[truth != 255]
        present = [naive(flat[c], truth, c, 0) for c in range(classes) if (truth == c).any()]
        expected.append(sum(present) / max(1, len(present)))
    found = lovasz_softmax(scores, labels, per_image=per_image, ignore=255)
    assert found == pytest.approx(sum(expected) / len(expected), abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-6, 6), st.sampled_from([0, 1, 255])), min_size=1, max_size=12),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_the_hinge_is_the_naive_definition(
    pixels: list[tuple[int, int]], dtype: torch.dtype
) -> None:
    logits = torch.tensor([[value / 2 for value, _ in pixels]], dtype=dtype)
    labels = torch.tensor([[label for _, label in pixels]])
    expected = naive(logits[labels != 255], labels[labels != 255], 1, 1.0)
    assert lovasz_hinge(logits, labels, ignore=255) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("per_image", [True, False])
@pytest.mark.parametrize("classes", ["present", "all", [0, 2, 3]])
def test_the_gradient_is_that_of_finite_differences(per_image: bool, classes: Any) -> None:
    logits = torch.randn(2, 5, 2, 3, dtype=torch.float64).requires_grad_()
    labels = labelled(2, 2, 3, classes=4, void=0.2)
    module = LovaszSoftmaxLoss(classes, per_image, weight=[1.0, 2, 0.5, 3, 1])
    assert torch.autograd.gradcheck(lambda x: module(x, labels), logits)
    hinge = LovaszHingeLoss(per_image)
    binary = (labels % 2).masked_fill(labels == 255, 255)
    assert torch.autograd.gradcheck(lambda x: hinge(x, binary), logits[:, 0])


def test_the_gradient_of_the_gradient_is_that_of_finite_differences() -> None:
    logits = torch.randn(1, 3, 1, 4, dtype=torch.float64).requires_grad_()
    labels = labelled(1, 1, 4, classes=3)
    assert torch.autograd.gradgradcheck(lambda x: LovaszSoftmaxLoss()(x, labels), logits)


@pytest.mark.parametrize("per_image", [True, False])
@pytest.mark.parametrize("classes", ["present", "all", [1, 2, 5]])
@pytest.mark.parametrize("budget", [1, 1 << 30])
def test_the_batched_sort_and_the_packed_keys_agree(
    per_image: bool, classes: Any, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Float64 goes the way of a GPU, in one piece and class by class.
    monkeypatch.setattr(extension_module, "SORT_BYTES", budget)
    scores = softmaxed(3, 6, 7, 5)
    scores[:, :, 2:4] = scores[:, :, :1]  # Equal errors, of different labels.
    labels = labelled(3, 7, 5, classes=4, void=0.3)
    results = [
        gradient(lambda x: lovasz_softmax(x, labels, classes, per_image, 255), scores.to(dtype))
        for dtype in (torch.float32, torch.float64)
    ]
    np.testing.assert_allclose(*(value for value, _ in results), rtol=1e-6)
    np.testing.assert_allclose(*(grad for _, grad in results), atol=1e-7)


def test_a_single_class_is_named_by_its_label() -> None:
    probability, labels = softmaxed(2, 3, 4, 5)[:, 1], labelled(2, 4, 5, classes=3)
    truth = (labels == 2).reshape(-1)
    expected = naive(probability.reshape(-1), truth, 1, 0)
    assert lovasz_softmax(probability, labels, [2]) == pytest.approx(expected, rel=1e-6)


def test_reductions_and_weights_are_means_of_the_losses_of_each_class() -> None:
    logits, labels = torch.randn(3, 4, 5, 6), labelled(3, 5, 6, classes=3)

    def make(**options: Any) -> Tensor:
        loss: Tensor = LovaszSoftmaxLoss(per_image=True, **options)(logits, labels)
        return loss

    each = make(reduction="none")
    assert each.shape == (3, 4)
    assert not each[:, 3].any()
    torch.testing.assert_close(make(), each[:, :3].mean())
    torch.testing.assert_close(make(reduction="sum"), each[:, :3].mean(1).sum())
    weight = torch.tensor([1.0, 2, 3, 100])
    torch.testing.assert_close(make(weight=weight), ((each * weight).sum(1) / 6).mean())
    hinge = LovaszHingeLoss(reduction="none")(logits[:, 0], labels % 2)
    torch.testing.assert_close(hinge.mean(), LovaszHingeLoss()(logits[:, :1], labels % 2))

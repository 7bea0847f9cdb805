"""The Lovász hinge and softmax: against the original's values, a naive definition, the corners."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import deeplab_zoo.zoo.losses.extension as extension_module
from deeplab_zoo import (
    LovaszHingeLoss,
    LovaszSoftmaxLoss,
    ZooError,
    lovasz_hinge,
    lovasz_softmax,
)

LOVASZ = Path(__file__).parents[2] / "golden" / "tf" / "lovasz"
CASES = json.loads((LOVASZ / "index.json").read_text())["losses"]
# Labels of 255 that nobody called void: the original returns an int, TensorFlow's nan.
MENDED = {"softmax_sigmoid_present", "softmax_void_not_ignored"}


def naive(scores: Tensor, labels: Tensor, label: int, margin: float) -> float:
    """The definition: the Jaccard loss of each set of largest errors, times the error's drop."""
    truth = [int(one) == label for one in labels]
    errors = [
        max(0.0, 1 - s if t else s + margin) for s, t in zip(scores.tolist(), truth, strict=True)
    ]
    order = sorted(range(len(errors)), key=lambda i: -errors[i])
    loss, before = 0.0, 0.0
    for rank in range(len(order)):
        wrong = set(order[: rank + 1])
        missed = sum(truth[i] for i in wrong)
        jaccard = 1 - (sum(truth) - missed) / (sum(truth) + len(wrong) - missed)
        loss, before = loss + errors[order[rank]] * (jaccard - before), jaccard
    return loss


def softmaxed(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype).mul(2).softmax(1)


def labelled(*shape: int, classes: int, seed: int = 1, void: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, shape, generator=generator)
    return labels.masked_fill(torch.rand(shape, generator=generator) < void, 255)


def gradient(loss: Callable[[Tensor], Tensor], scores: Tensor) -> tuple[Tensor, Tensor]:
    scores = scores.detach().clone().requires_grad_()
    value = loss(scores)
    (found,) = torch.autograd.grad(value, scores)
    return value.detach(), found


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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    logits = torch.randn(2, 4, 30, 20).to(dtype)
    labels = labelled(2, 30, 20, classes=4)
    module = LovaszSoftmaxLoss()
    loss, grad = gradient(lambda x: module(x, labels), logits)
    exact, wanted = gradient(lambda x: module(x, labels), logits.float())
    assert loss.dtype == torch.float32
    assert loss == exact
    assert grad.dtype == dtype
    # Rounded once, when it returns to the logits.
    np.testing.assert_allclose(grad.float(), wanted, rtol=2**-7, atol=1e-6)


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


@pytest.mark.parametrize("layout", ["channels_last", "strided", "expanded"])
def test_any_memory_layout_gives_the_same(layout: str) -> None:
    logits = torch.randn(2, 4, 6, 7)
    other = {
        "channels_last": logits.to(memory_format=torch.channels_last),
        "strided": torch.stack([logits, -logits], -1)[..., 0],
        "expanded": logits[:1].expand(2, -1, -1, -1),
    }[layout]
    labels = labelled(2, 6, 7, classes=4).mT.contiguous().mT
    expected = gradient(lambda x: LovaszSoftmaxLoss()(x, labels), other.contiguous())
    found = other.detach().requires_grad_()
    loss = LovaszSoftmaxLoss()(found, labels)
    (grad,) = torch.autograd.grad(loss, found)
    assert loss == expected[0]
    torch.testing.assert_close(grad, expected[1], rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_labels_of_any_integer_type(dtype: torch.dtype) -> None:
    probas, labels = softmaxed(2, 3, 4, 5), labelled(2, 4, 5, classes=3)
    assert lovasz_softmax(probas, labels.to(dtype)) == lovasz_softmax(probas, labels)
    binary = labels % 2
    assert lovasz_hinge(probas[:, 0], binary.bool()) == lovasz_hinge(probas[:, 0], binary)
    assert lovasz_hinge(probas[:, 0], binary.float()) == lovasz_hinge(probas[:, 0], binary)


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


def test_compiles_without_a_graph_break() -> None:
    torch._dynamo.reset()
    labels = labelled(2, 5, 6, classes=4, void=0.2)
    binary = (labels % 2).masked_fill(labels == 255, 255)
    # Dynamo and the autograd graph; the code that inductor makes of the softmax is not at stake.
    for module, truth, shape in [
        (LovaszSoftmaxLoss(weight=[1.0, 2, 3, 4]), labels, (2, 4, 5, 6)),
        (LovaszHingeLoss(), binary, (2, 5, 6)),
    ]:
        compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
        logits = torch.randn(shape)
        expected = gradient(lambda x: module(x, truth), logits)  # noqa: B023
        found = gradient(lambda x: compiled(x, truth), logits)  # noqa: B023
        torch.testing.assert_close(found, expected)


def test_the_operator_keeps_its_promises() -> None:
    scores = softmaxed(2, 3, 4, 5).unsqueeze(0).flatten(3).requires_grad_()
    labels = labelled(1, 2, 20, classes=3).int()
    torch.library.opcheck(
        torch.ops.deeplab_zoo.lovasz_extension.default, (scores, labels, [0, 1, 2], 0, 0.0, True)
    )


def test_modules_copy_and_keep_no_state_of_the_weights() -> None:
    module = LovaszSoftmaxLoss(weight=[1.0, 2.0])
    assert module.state_dict() == {}
    assert torch.equal(copy.deepcopy(module).double().weight, torch.tensor([1.0, 2.0]).double())


@pytest.mark.parametrize(
    ("shape", "label", "classes", "message"),
    [
        ((2, 3, 4, 5), 7, "present", r"labels: 7 at \(1, 2, 3\), expected 0\.\.2 or 9"),
        ((2, 3, 4, 5), -1, "present", r"labels: -1 at \(1, 2, 3\)"),
        ((2, 3, 4, 6), 0, "present", r"labels: shape \(2, 4, 5\), expected \(2, 4, 6\)"),
        ((2, 3, 4, 5), 0, "some", "classes: 'some'"),
        ((2, 3, 4, 5), 0, [1, 3], r"classes: \[1, 3\], expected different ones of 0\.\.2"),
        ((2, 3, 4, 5), 0, [], r"classes: \[\]"),
        ((2, 4, 5), 0, "present", r"expected the label they are of"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(
    shape: tuple[int, ...], label: int, classes: Any, message: str
) -> None:
    labels = torch.zeros(2, 4, 5, dtype=torch.long)
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


@pytest.mark.parametrize("per_image", [True, False])
@pytest.mark.parametrize("classes", ["present", "all", [0, 1, 3]])
def test_off_the_cpu_no_value_is_read_back(per_image: bool, classes: Any) -> None:
    # Tensors that have no values: whoever asks for one fails.
    logits = torch.empty(2, 4, 5, 6, device="meta", requires_grad=True)
    labels = torch.empty(2, 5, 6, device="meta", dtype=torch.long)
    LovaszSoftmaxLoss(classes, per_image)(logits, labels).backward()
    LovaszHingeLoss(per_image)(logits[:, 0], labels).backward()
    grouped = logits.detach().flatten(2)[None], labels.flatten(1)[None].int()
    found = extension_module.batched(*grouped, [0, 1, 3], 0, 0.0, True)
    assert [tensor.shape for tensor in found] == [(1, 4), (1, 4), (1, 2, 4, 30)]
    with pytest.raises(RuntimeError, match="meta tensors"):
        LovaszSoftmaxLoss(validate=True)(logits, labels)

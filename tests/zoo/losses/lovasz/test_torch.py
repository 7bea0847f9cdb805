"""Layouts, types, compilation, copies: what PyTorch asks of a loss."""

import copy
from typing import Any

import numpy as np
import pytest
import torch

import deeplab_zoo.zoo.losses.extension as extension_module
from deeplab_zoo import LovaszHingeLoss, LovaszSoftmaxLoss, lovasz_hinge, lovasz_softmax

from .scores import gradient, labelled, softmaxed


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

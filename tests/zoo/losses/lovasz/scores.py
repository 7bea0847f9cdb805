"""Scores, labels and gradients of a test; the definition of the loss, naively."""

from collections.abc import Callable

import torch
from torch import Tensor


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

"""Caffe's solver as a torch optimizer, and the optimizers by name."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from ...proto.errors import UsageError


class CaffeSGD(Optimizer):
    """Momentum with the learning rate inside the buffer, as Caffe's SGDSolver.

    ``v = momentum * v + lr * (g + weight_decay * w)``, ``w = w - v``. PyTorch's SGD multiplies
    by the rate of the present update when it applies the buffer, which is another thing as
    soon as the rate moves. A group's ``lr`` is its ``lr_mult`` times the base rate, its
    ``weight_decay`` includes the ``decay_mult``; gradients are the mean over ``iter_size``.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update the weights."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights: list[Tensor] = [one for one in group["params"] if one.grad is not None]
            if not weights:
                continue
            for one in weights:
                if "velocity" not in self.state[one]:
                    self.state[one]["velocity"] = torch.zeros_like(one)
            buffers = [self.state[one]["velocity"] for one in weights]
            steps = [one.grad for one in weights if one.grad is not None]
            if group["weight_decay"]:
                steps = list(torch._foreach_add(steps, weights, alpha=group["weight_decay"]))
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, steps, alpha=group["lr"])
            torch._foreach_sub_(weights, buffers)
        return loss


def make_solver(
    name: str, groups: list[dict[str, Any]], lr: float, momentum: float, *, nesterov: bool = False
) -> Optimizer:
    """Return ``caffe``, ``sgd``, ``adam`` or ``adamw`` for groups of `parameter_groups`."""
    if name == "caffe":
        return CaffeSGD(groups, lr, momentum)
    if name == "sgd":
        return SGD(groups, lr, momentum, nesterov=nesterov)
    if name == "adam":
        return Adam(groups, lr)
    if name == "adamw":
        return AdamW(groups, lr)
    raise UsageError(f"solver {name!r} is unknown, expected caffe, sgd, adam or adamw.")


def set_rate(solver: Optimizer, rate: float) -> None:
    """Give every group the base rate times its factor."""
    for group in solver.param_groups:
        group["lr"] = rate * group["factor"]

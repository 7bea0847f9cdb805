"""The proximal operator of the Lovász hinge: errors and labels in, better errors out.

With the errors ``m = 1 - logit * (2 label - 1)`` of an image, it minimises over ``x``

    ``F(x) + lam / 2 * |x - m|**2``,

``F`` being the Lovász extension of the Jaccard loss, at ``max(x, 0)``.
`prox_lovasz_hinge` solves it exactly (`solver.minimise`); `duality_gap` proves of any ``x`` how
far it is from the minimum. ``method="path"`` is the approximation of Berman and Blaschko
(arXiv:1705.08790v1): the errors keep the order they start with, which the true solution leaves.
"""

import math
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...proto.errors import MismatchError, UsageError
from .binary import one_channel
from .checks import check_labels, check_numbers
from .lovasz import Reduction, check_reduction, lovasz_hinge, reduced
from .solver import descend, minimise, shrunk

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Method = Literal["exact", "path"]


def prox_lovasz_hinge(
    margins: Tensor,
    labels: Tensor,
    lam: float,
    method: Method = "exact",
    *,
    ignore: int | None = None,
    max_steps: int = 20,
    eps: float = 1e-6,
) -> Tensor:
    """Return the errors that minimise the Lovász hinge plus ``lam / 2`` times the squared step.

    Parameters
    ----------
    margins
        The errors ``1 - logit * (2 label - 1)``: (pixels,), (height, width), or
        (batch, height, width), each image by itself.
    labels
        The same shape; 0, 1 or ``ignore``, whose errors stay as they are.
    lam
        What a step costs; the larger, the shorter it is.
    method
        ``"exact"``, or ``"path"`` as the original does, in float64.
    ignore
        The label of void pixels.
    max_steps
        Of the path: how many times errors meet each other or zero before it ends.
    eps
        Of the path: the distance at which they have met.

    Returns
    -------
    errors in the shape, type and device of ``margins``. The work is done on the CPU.

    Raises
    ------
    MismatchError
        Shapes differ; labels or errors are not what they should be.
    UsageError
        ``lam`` is not positive, or there is no such method.

    """
    if method not in ("exact", "path"):
        raise UsageError(f"method: {method!r}, expected 'exact' or 'path'.")
    found = torch.empty_like(margins, memory_format=torch.contiguous_format)
    images = zip(found.view(_images(found)), *_arrays(margins, labels, lam, ignore), strict=True)
    for target, image, foreground, void in images:
        x = image.copy()
        x[~void] = (
            minimise(image[~void], foreground[~void], lam)
            if method == "exact"
            else _path(image[~void], foreground[~void], lam, max_steps, eps)
        )
        target.copy_(torch.from_numpy(x))
    return found


def duality_gap(
    x: Tensor, margins: Tensor, labels: Tensor, lam: float, *, ignore: int | None = None
) -> float:
    """Return a bound on how far ``x`` is from the minimum, the largest of the images.

    The problem's dual maximises ``s . m - |s|**2 / (2 lam)`` over the vectors ``s >= 0`` whose
    sum over any set of pixels is at most the Jaccard loss of getting these wrong. At the minimum
    ``lam (m - x)`` is one. Near it, two are tried: this step scaled until it is one, and this
    step no larger, pixel by pixel, than the slope of the hinge at ``x``.
    """
    if x.shape != margins.shape:
        raise MismatchError(f"x: shape {tuple(x.shape)}, expected {tuple(margins.shape)}.")
    gaps = [0.0]
    solutions = x.detach().cpu().double().reshape(_images(margins)).numpy()
    images = zip(solutions, *_arrays(margins, labels, lam, ignore), strict=True)
    for solution, image, foreground, void in images:
        solution, image, foreground = solution[~void], image[~void], foreground[~void]
        order, growth = _ranked(solution, foreground)
        slope = np.empty_like(growth)
        slope[order] = growth
        value = growth @ np.maximum(solution[order], 0)
        step = lam * (image - solution)
        duals = shrunk(np.maximum(step, 0), foreground), np.clip(step, 0, slope)
        # Primal less dual, without the large squares that both contain.
        gaps.append(min(value - s @ solution + np.sum((step - s) ** 2) / (2 * lam) for s in duals))
    return float(max(gaps))


def _images(tensor: Tensor) -> tuple[int, int]:
    """Return (images, pixels): only three axes or more have images."""
    return (tensor.shape[0], -1) if tensor.dim() > 2 and tensor.numel() else (1, tensor.numel())


def _arrays(
    margins: Tensor, labels: Tensor, lam: float, ignore: int | None
) -> tuple[Array, Mask, Mask]:
    """Return errors, foreground and void of checked input, each (images, pixels)."""
    if not (lam > 0 and 0 < 1 / lam < math.inf):
        raise UsageError(f"lam: {lam}, expected a positive number.")
    if not margins.is_floating_point():
        raise MismatchError(f"margins: {margins.dtype}, expected a floating type.")
    if margins.shape != labels.shape:
        raise MismatchError(
            f"labels: shape {tuple(labels.shape)}, expected {tuple(margins.shape)} as the margins."
        )
    check_labels(labels, 2, ignore)
    check_numbers(margins, "margins", finite=True)
    shape = _images(margins)
    values = margins.detach().cpu().double().reshape(shape).numpy()
    marks = labels.cpu().long().reshape(shape).numpy()
    void = np.zeros_like(marks, bool) if ignore is None else marks == ignore
    return values, (marks == 1) & ~void, void


def _ranked(values: Array, foreground: Mask) -> tuple[NDArray[np.intp], Array]:
    """Return the order of falling values, and the growth of the Jaccard loss along it."""
    order = np.argsort(-values, kind="stable")
    hit = foreground[order]
    lost = hit.cumsum()
    losses = np.arange(1, len(hit) + 1) / np.maximum(
        hit.sum() + np.arange(1, len(hit) + 1) - lost, 1
    )
    return order, np.diff(losses, prepend=0.0)


def _path(margins: Array, foreground: Mask, lam: float, max_steps: int, eps: float) -> Array:
    """Follow the errors down from where they are, for the time ``1 / lam``."""
    order, speeds = _ranked(margins, foreground)
    x = np.empty_like(margins)
    x[order] = descend(margins[order], speeds, 1 / lam, max_steps, eps)
    return x


class _Proximal(torch.autograd.Function):
    """The Lovász hinge, whose gradient is the proximal step instead of its slope."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, lam: float, options: dict[str, Any]
    ) -> Tensor:
        sign = torch.where(labels == 1, 1.0, -1.0).to(logits.dtype)
        margins = 1 - logits * sign
        step = margins - prox_lovasz_hinge(margins, labels, lam, **options)
        ctx.save_for_backward(-sign * step)
        losses = [
            lovasz_hinge(image, target, ignore=options["ignore"], validate=False)
            for image, target in zip(logits[:, None], labels[:, None], strict=True)
        ]
        return torch.stack(losses) if losses else logits.new_zeros(0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (step,) = ctx.saved_tensors
        return step * gradients[0].view(-1, *[1] * (step.dim() - 1)), None, None, None


class ProximalLovaszHingeLoss(nn.Module):
    """The Lovász hinge per image, trained by proximal steps instead of gradients.

    Its value is that of `LovaszHingeLoss`. Its gradient is the step from the errors to
    `prox_lovasz_hinge`, so that plain gradient descent with a learning rate of 1 does the step:
    jaccardSegment's ``--proximal``, whose advice is a rate of 1 and ``lam`` in place of its
    inverse. Its defaults are here: 0.5 (``--proxreg``) and 30 (``--maxproxsteps``).

    Parameters
    ----------
    lam
        What a step costs; an attribute that may change while training.
    method
        ``"exact"`` or ``"path"``, see `prox_lovasz_hinge`.
    max_steps
        Of the path.
    ignore_index
        The label of void pixels, or None.
    reduction
        ``"mean"`` or ``"sum"`` over the images, or ``"none"``.

    """

    def __init__(
        self,
        lam: float = 0.5,
        method: Method = "exact",
        max_steps: int = 30,
        ignore_index: int | None = 255,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        self.lam = lam
        self.method = method
        self.max_steps = max_steps
        self.ignore_index = ignore_index
        self.reduction = reduction

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of logits (batch, height, width) or (batch, 1, height, width)."""
        logits = one_channel(logits, labels)
        if logits.dim() == 2:  # Rows of pixels are images here, but one image for the operator.
            logits, labels = logits[:, None], labels[:, None]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        check_numbers(logits, finite=True)
        options = {"method": self.method, "max_steps": self.max_steps, "ignore": self.ignore_index}
        losses: Tensor = _Proximal.apply(  # type: ignore[no-untyped-call]
            logits, labels, self.lam, options
        )
        return reduced(losses, self.reduction)

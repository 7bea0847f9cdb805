"""Where a segmentation loss pulls: its gradient in the segmentation, as pictures."""

from collections.abc import Callable

import torch
from torch import Tensor


def gradient_maps(loss: Callable[[Tensor], Tensor], segmentations: Tensor) -> Tensor:
    """Return the gradient of a loss in segmentations (batch, classes, height, width).

    What rloss's inference draws class by class: where it is negative, the loss wants more of the
    class. For a DenseCRF loss: ``gradient_maps(lambda s: crf_loss(images, s, rois), s)``.
    """
    with torch.inference_mode(False), torch.enable_grad():
        leaf = segmentations.detach().clone().requires_grad_()
        gradients = torch.autograd.grad(loss(leaf), leaf)
    return gradients[0]


def gradient_heatmap(loss: Callable[[Tensor], Tensor], segmentations: Tensor) -> Tensor:
    """Return the length of each pixel's gradient over the classes, (batch, height, width)."""
    lengths: Tensor = torch.linalg.vector_norm(gradient_maps(loss, segmentations), dim=1)
    return lengths

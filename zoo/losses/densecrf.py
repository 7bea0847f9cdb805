"""Images and segmentations become a loss: how far pixels that look alike are labelled apart.

Tang, Perazzi, Djelouah, Ben Ayed, Schroers, Boykov 2018, "On Regularized Losses for
Weakly-supervised CNN Segmentation".
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ...proto.errors import UsageError
from ..lattice.features import bilateral_features
from ..lattice.permutohedral import Backend, PermutohedralLattice

_TINY = 1e-20


class DenseCRFLoss(nn.Module):
    """The relaxed Potts energy of a fully connected CRF, ``-weight * sum_k S_k' A S_k / batch``.

    ``A`` is the Gaussian filter over positions (sigma_xy pixels of the full image) and colours
    (sigma_rgb), ``S_k`` the probabilities of class k inside the regions of interest. Because the
    probabilities sum to one, this is ``S' A (1 - S)``, the cost of unequal labels, less a constant
    of the image; so it is negative, and in the millions: weights of 2e-9 are usual.

    Images, segmentations and regions are first scaled by ``scale_factor``: nearest, bilinear,
    nearest.

    ``gradient="true"`` is that of the value, ``-(A + A') S``, which costs one more blur;
    ``"original"`` is that of Tang's programs, ``-2 A S``, off by the filter's asymmetry.
    ``normalisation="pixel"`` divides ``A S`` by the kernel's sum over the region at each pixel, so
    that the value is at most the number of pixels whatever the sigmas.
    ``from_logits`` takes the softmax over classes first.
    """

    def __init__(
        self,
        weight: float,
        sigma_rgb: float,
        sigma_xy: float,
        scale_factor: float,
        *,
        from_logits: bool = False,
        normalisation: Literal["none", "pixel"] = "none",
        gradient: Literal["true", "original"] = "true",
        backend: Backend = "auto",
        deterministic: bool = False,
    ) -> None:
        super().__init__()
        if normalisation not in ("none", "pixel"):
            raise UsageError(f"normalisation: {normalisation!r}, expected 'none' or 'pixel'")
        if gradient not in ("true", "original"):
            raise UsageError(f"gradient: {gradient!r}, expected 'true' or 'original'")
        if not math.isfinite(weight):
            raise UsageError(f"weight: {weight}, expected a finite number")
        if not 0 < scale_factor <= 1:
            raise UsageError(f"scale_factor: {scale_factor}, expected more than 0, at most 1")
        self.weight = weight
        self.sigma_rgb = sigma_rgb
        self.sigma_xy = sigma_xy
        self.scale_factor = scale_factor
        self.from_logits = from_logits
        self.normalisation = normalisation
        self.gradient = gradient
        self.backend: Backend = backend
        self.deterministic = deterministic

    def forward(self, images: Tensor, segmentations: Tensor, rois: Tensor | None = None) -> Tensor:
        """Return the loss, a scalar.

        Takes images (batch, 3, height, width) in 0..255, probabilities (or logits) (batch,
        classes, height, width), and regions (batch, height, width), 1 inside and 0 outside, by
        default everywhere inside; `rois_from_labels` and `rois_from_images` make them.
        """
        _check(images, segmentations, rois, self.scale_factor)
        wide = torch.promote_types(segmentations.dtype, torch.float32)
        probabilities = (
            segmentations.softmax(1, dtype=wide) if self.from_logits else segmentations.to(wide)
        )
        images = images.detach().to(probabilities.device, torch.float32)
        regions = images.new_ones(len(images), 1, *images.shape[2:]) if rois is None else rois
        regions = regions.reshape(len(images), 1, *images.shape[2:]).to(probabilities)
        if self.scale_factor != 1:
            scale = self.scale_factor
            images = F.interpolate(images, scale_factor=scale)
            probabilities = F.interpolate(
                probabilities, scale_factor=scale, mode="bilinear", align_corners=False
            )
            regions = F.interpolate(regions, scale_factor=scale)

        lattice = PermutohedralLattice(
            bilateral_features(images, self.sigma_xy * self.scale_factor, self.sigma_rgb),
            backend=self.backend,
            deterministic=self.deterministic,
        )
        inside = (probabilities * regions).flatten(2).transpose(1, 2)
        near = partial(self._near, lattice, regions.flatten(2).transpose(1, 2))
        energy: Tensor = _Energy.apply(inside, near)  # type: ignore[no-untyped-call]
        if not energy.detach().isfinite():
            raise UsageError(_not_finite("segmentations", segmentations))
        return -self.weight / len(images) * energy

    def _near(self, lattice: PermutohedralLattice, region: Tensor, inside: Tensor) -> Tensor:
        """Return half of the gradient of the energy ``S' A S``, or ``S' D A S``."""
        if self.normalisation == "none":
            whole = self.gradient == "true"
            return lattice.symmetric(inside) if whole else lattice.filter(inside)
        scale = 1 / (lattice.filter(region) + _TINY)
        near = scale * lattice.filter(inside)
        if self.gradient == "true":
            near = (near + lattice.adjoint(scale * inside)) / 2
        return near

    def extra_repr(self) -> str:
        """Return the parameters, for printing."""
        return (
            f"weight={self.weight}, sigma_rgb={self.sigma_rgb}, sigma_xy={self.sigma_xy}, "
            f"scale_factor={self.scale_factor}"
        )


class _Energy(torch.autograd.Function):
    """``S' near(S)``, whose gradient is 2 near(S): kept from the forward."""

    @staticmethod
    def forward(ctx: Any, inside: Tensor, near: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.near, result = near, near(inside)
        ctx.save_for_backward(inside, result)
        return (inside * result).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        inside, result = ctx.saved_tensors
        if torch.is_grad_enabled():  # A second derivative is wanted, through the filter.
            result = ctx.near(inside)
        return 2 * gradients[0] * result, None


def rois_from_labels(labels: Tensor, padding: int = 254) -> Tensor:
    """Return the regions of rloss's PyTorch program: everything but the label of the padding."""
    return (labels != padding).float()


def rois_from_images(images: Tensor) -> Tensor:
    """Return the regions of rloss's Caffe layer, for images (batch, 3, height, width).

    The images have Caffe's mean subtracted and are padded with zeros: a pixel is inside if any of
    its channels is not zero once cut to an integer, so that a few of the mean's colour fall out.
    """
    return (images.trunc() != 0).any(1).float()


def _check(images: Tensor, segmentations: Tensor, rois: Tensor | None, scale: float) -> None:
    if segmentations.dim() != 4 or not all(segmentations.shape):
        raise UsageError(
            f"segmentations: shape {tuple(segmentations.shape)}, expected (batch, classes, "
            "height, width), none of them 0"
        )
    if not segmentations.is_floating_point():
        raise UsageError(f"segmentations: {segmentations.dtype}, expected a floating type")
    batch, _, height, width = segmentations.shape
    problems = []
    if images.dim() != 4 or (images.shape[0], *images.shape[2:]) != (batch, height, width):
        problems.append(f"images: shape {tuple(images.shape)}, expected ({batch}, 3, {height}, ")
        problems[-1] += f"{width}) as the segmentations"
    if rois is not None and tuple(rois.shape) != (batch, height, width):
        problems.append(f"rois: shape {tuple(rois.shape)}, expected ({batch}, {height}, {width})")
    elif rois is not None and len(wrong := ((rois != 0) & (rois != 1)).nonzero()):
        place = tuple(wrong[0].tolist())
        problems.append(f"rois: {rois[place].item():g} at (image, y, x) = {place}, expected 0 or 1")
    if min(height, width) * scale < 1:
        problems.append(f"scale_factor: {scale} leaves nothing of {height}x{width} pixels")
    if problems:
        raise UsageError("\n".join(problems))
    if not images.isfinite().all():
        raise UsageError(_not_finite("images", images))


def _not_finite(name: str, given: Tensor) -> str:
    places = (~given.detach().isfinite()).nonzero().tolist()
    if not places:
        return f"{name}: too large, their energy is not finite"
    place = tuple(places[0])
    return (
        f"{name}: {given[place].item()} at (image, channel, y, x) = {place}, expected finite "
        "numbers"
    )

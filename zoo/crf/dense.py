"""Unary energies and kernels between pixels become probabilities: `DenseCRF`."""

import torch
from torch import Tensor

from ...proto.errors import UsageError
from ..lattice.features import Sigmas, bilateral_features, position_features
from ..lattice.permutohedral import Backend, PermutohedralLattice
from ..lattice.threads import conduct
from .pairwise import Compatibility, Normalization, Pairwise, compatibility_matrix, cost, pairwise


class DenseCRF:
    """Mean-field inference in a fully connected CRF, for a batch of images.

    Krähenbühl, Koltun 2011, "Efficient Inference in Fully Connected CRFs with Gaussian Edge
    Potentials". The methods are pydensecrf's ``DenseCRF2D``, and so are the values::

        crf = DenseCRF(-probabilities.log())        # (batch, classes, height, width)
        crf.add_pairwise_gaussian(sxy=3, compat=3)
        crf.add_pairwise_bilateral(sxy=80, srgb=13, images=images, compat=10)
        q = crf.inference(10)                       # (batch, classes, height, width)

    ``compat`` is a Potts weight, a vector (the diagonal) or a matrix (classes, classes) of costs,
    a tensor or an array; unlike in pydensecrf a matrix need not be symmetric: row l has the costs
    of class l.
    On the unary's device; differentiable in the unary and in compatibility tensors.
    """

    def __init__(
        self, unary: Tensor, *, backend: Backend = "auto", deterministic: bool = False
    ) -> None:
        if unary.dim() != 4 or not all(unary.shape):
            raise UsageError(
                f"unary: shape {tuple(unary.shape)}, expected (batch, classes, height, width), "
                "none of them 0"
            )
        if unary.dtype not in (torch.float32, torch.float64):
            raise UsageError(f"unary: {unary.dtype}, expected float32 or float64; convert it")
        conduct(_check, unary.detach())
        self._unary = unary.flatten(2).transpose(1, 2)
        self._size = unary.shape
        self._backend: Backend = backend
        self._deterministic = deterministic
        self._terms: list[Pairwise] = []

    def add_pairwise_gaussian(
        self, sxy: Sigmas, compat: Compatibility, normalization: Normalization = "symmetric"
    ) -> None:
        """Add the kernel of positions, with sxy pixels or (x, y) of them as its sigma."""
        *_, height, width = self._size
        features = conduct(position_features, height, width, sxy, self._unary)
        self._add(features, compat, normalization)

    def add_pairwise_bilateral(
        self,
        sxy: Sigmas,
        srgb: Sigmas,
        images: Tensor,
        compat: Compatibility,
        normalization: Normalization = "symmetric",
    ) -> None:
        """Add the kernel of positions and colours of images (batch, channels, height, width)."""
        batch, _, height, width = self._size
        if images.dim() != 4 or images.shape[0] != batch or images.shape[2:] != (height, width):
            raise UsageError(
                f"images: shape {tuple(images.shape)}, expected ({batch}, channels, {height}, "
                f"{width}) as the unary"
            )
        self._add(conduct(bilateral_features, images, sxy, srgb), compat, normalization)

    def add_pairwise_energy(
        self, features: Tensor, compat: Compatibility, normalization: Normalization = "symmetric"
    ) -> None:
        """Add the kernel of any features (batch or 1, height * width, d), d at most 8."""
        batch, _, height, width = self._size
        if features.dim() != 3 or features.shape[0] not in (1, batch):
            raise UsageError(
                f"features: shape {tuple(features.shape)}, expected ({batch}, {height * width}, d)"
            )
        if features.shape[1] != height * width:
            raise UsageError(
                f"features: {features.shape[1]} pixels, expected {height} * {width} of the unary"
            )
        self._add(features, compat, normalization)

    def _add(self, features: Tensor, compat: Compatibility, normalization: Normalization) -> None:
        unary = self._unary
        checked = compatibility_matrix(compat, unary.shape[2], unary)
        lattice = PermutohedralLattice(
            features.to(unary.device), backend=self._backend, deterministic=self._deterministic
        )
        term = conduct(pairwise, lattice, checked, normalization, unary.dtype)
        self._terms.append(term)

    def inference(self, iterations: int) -> Tensor:
        """Return the probabilities (batch, classes, height, width) after some iterations."""
        if iterations < 0:
            raise UsageError(f"iterations: {iterations}, expected 0 or more")
        if self._fits_the_fused_loop():
            from .meanfield import fused

            return self._image(conduct(fused, self._unary, self._terms, iterations))
        q = (-self._unary).softmax(2)
        for _ in range(iterations):
            q = self._next(q)
        return self._image(q)

    def start_inference(self) -> Tensor:
        """Return the probabilities of the unary alone."""
        return self._image((-self._unary).softmax(2))

    def step_inference(self, q: Tensor) -> Tensor:
        """Return the probabilities one iteration after q."""
        return self._image(self._next(self._rows(q)))

    def kl_divergence(self, q: Tensor) -> Tensor:
        """Return, per image, the divergence of q from the model, up to the model's constant."""
        rows = self._rows(q)
        each = rows * (rows.clamp_min(1e-20).log() + self._unary)
        for term in self._terms:
            each = each + rows * cost(term, rows)
        return each.sum((1, 2))

    def _next(self, q: Tensor) -> Tensor:
        energy = self._unary
        for term in self._terms:
            energy = energy + cost(term, q)
        return (-energy).softmax(2)

    def _fits_the_fused_loop(self) -> bool:
        learning = torch.is_grad_enabled() and self._unary.requires_grad
        return (
            bool(self._terms)
            and not learning
            and self._unary.dtype == torch.float32
            and all(term.lattice.backend == "numba" for term in self._terms)
            and all(isinstance(term.compatibility, float) for term in self._terms)
        )

    def _rows(self, q: Tensor) -> Tensor:
        if q.shape != self._size:
            raise UsageError(f"q: shape {tuple(q.shape)}, expected {tuple(self._size)}")
        return q.flatten(2).transpose(1, 2)

    def _image(self, rows: Tensor) -> Tensor:
        return rows.transpose(1, 2).reshape(self._size)


def _check(unary: Tensor) -> None:
    if torch.isfinite(unary.sum()):  # in a tenth of the time that all of them take
        return
    places = (~torch.isfinite(unary)).nonzero()
    if len(places):  # Else only the sum is too large.
        place = tuple(places[0].tolist())
        raise UsageError(
            f"unary: {unary[place].item()} at (image, class, y, x) = {place}, "
            "expected finite energies; clip probabilities before their logarithm"
        )

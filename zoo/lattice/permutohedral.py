"""Features become a `PermutohedralLattice`; it filters any number of values."""

from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor

from ...proto.errors import MissingDependencyError, UsageError
from . import exact, geometry, tensors
from .orders import Order
from .threads import conduct, each

Backend = Literal["auto", "numba", "torch", "exact"]

_FARTHEST = 2.0**40
"""Of features: float64 has a thousandth of a simplex left there, and at 2**53 none."""


class PermutohedralLattice:
    """Gaussian filtering of values between pixels that are near in feature space.

    Approximates ``out[i] = sum_j exp(-|f[i] - f[j]|**2 / 2) value[j]`` by the permutohedral
    lattice of Adams, Baek, Davis 2010, with the gain of Krähenbühl's program (``docs/lattice.md``
    has the errors). Every method maps values (batch, pixels, channels) to the same shape, for
    float32 and float64, and is differentiable in them; half precisions are computed in float32.
    Features of one image serve any batch of values.

    ``backend``: ``numba`` on the CPU, ``torch`` on any device, ``exact`` for the Gaussian itself
    at quadratic cost; ``auto`` is the first where the features are on the CPU, else the second.
    With ``deterministic``, equal input gives equal bits also on a GPU; a CPU always does so.
    """

    def __init__(
        self, features: Tensor, *, backend: Backend = "auto", deterministic: bool = False
    ) -> None:
        if features.is_floating_point() and features.element_size() < 4:
            features = features.float()
        self._bounds = conduct(_bounds, features)
        self.shape = features.shape[:2]
        self.device = features.device
        self.deterministic = deterministic
        self.backend, self._module = _module(backend, features.device)
        self._features = features.detach()
        self._built: dict[torch.dtype, Any] = {}

    def filter(self, values: Tensor) -> Tensor:
        """Return ``A v``."""
        return self._run(values, Order.FORWARD)

    def adjoint(self, values: Tensor) -> Tensor:
        """Return ``A' v``: blurred along the axes in reverse."""
        return self._run(values, Order.ADJOINT)

    def symmetric(self, values: Tensor) -> Tensor:
        """Return ``(A + A') v / 2`` for the price of a filter and one more blur."""
        return self._run(values, Order.SYMMETRIC)

    def built(self, dtype: torch.dtype) -> Any:
        """Return the backend's record of the lattice for values of a type."""
        if dtype not in self._built:
            build = self._module.build
            self._built[dtype] = build(self._features, self._bounds, dtype, self.deterministic)
        return self._built[dtype]

    def _run(self, values: Tensor, order: Order) -> Tensor:
        batch, pixels = self.shape
        fits = values.dim() == 3 and values.shape[1] == pixels and all(values.shape)
        if not fits or batch not in (1, values.shape[0]):
            raise UsageError(
                f"values: shape {tuple(values.shape)}, expected "
                f"({'batch' if batch == 1 else batch}, {pixels}, channels) as the features"
            )
        if values.device != self.device:
            raise UsageError(
                f"values: on {values.device}, expected {self.device} as the features; move them"
            )
        if not values.is_floating_point():
            raise UsageError(f"values: {values.dtype}, expected a floating type; convert them")
        wide = values if values.dtype == torch.float64 else values.float()
        return _filter(wide, self, order).to(values.dtype)


class _Filter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, lattice: PermutohedralLattice, order: Order) -> Tensor:
        ctx.lattice, ctx.order = lattice, order
        result: Tensor = lattice._module.apply(lattice.built(values.dtype), values, order)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None]:
        return _filter(gradients[0], ctx.lattice, ctx.order.transposed), None, None


def _filter(values: Tensor, lattice: PermutohedralLattice, order: Order) -> Tensor:
    with torch.autocast(values.device.type, enabled=False):  # The exact sums are matrix products.
        result: Tensor = _Filter.apply(values, lattice, order)  # type: ignore[no-untyped-call]
    return result


def _module(backend: Backend, device: torch.device) -> tuple[Backend, ModuleType]:
    if backend == "auto":
        backend = "numba" if device.type == "cpu" else "torch"
    if backend == "torch":
        return backend, tensors
    if backend == "exact":
        return backend, exact
    if backend != "numba":
        raise UsageError(f"backend: {backend!r}, expected auto, numba, torch or exact")
    if device.type != "cpu":
        raise UsageError(f"backend: numba runs on the CPU, the features are on {device}")
    try:
        from . import cpu
    except ImportError as error:
        raise MissingDependencyError(
            f"lattice on the CPU: {error}; install numba, or use backend='torch'"
        ) from error
    return backend, cpu


def _bounds(features: Tensor) -> geometry.Bounds:
    """Return the features' range once they are known to be good."""
    shape = tuple(features.shape)
    if len(shape) != 3 or not all(shape):
        raise UsageError(f"features: shape {shape}, expected (batch, pixels, d), none of them 0")
    if shape[2] > geometry.MAX_DIMENSIONS:
        raise UsageError(f"features: d = {shape[2]}, expected 1..{geometry.MAX_DIMENSIONS}")
    if not features.is_floating_point():
        raise UsageError(f"features: {features.dtype}, expected a floating type; convert them")
    if features.requires_grad:
        raise UsageError("features: require a gradient, which the lattice has not; detach() them")
    # Column by column, which is four times as fast as a reduction over all but the last axis.
    columns = each(lambda column: torch.stack(column.aminmax()), features.unbind(2))
    bounds = torch.stack(columns, 1).double().cpu()
    if not (bounds.abs() < _FARTHEST).all():
        batch, pixel, column = (~(features.abs() < _FARTHEST)).nonzero()[0].tolist()
        raise UsageError(
            f"features: {features[batch, pixel, column].item()} at image {batch}, pixel {pixel}, "
            f"dimension {column}, expected finite numbers, less than {_FARTHEST:.0e} sigmas"
        )
    low, high = bounds.numpy()
    return low, high

"""In which order a lattice is blurred along its axes, which makes it another linear map."""

from enum import Enum


class Order(Enum):
    """The filter, its adjoint, and their mean."""

    FORWARD = "forward"
    ADJOINT = "adjoint"
    SYMMETRIC = "symmetric"

    @property
    def transposed(self) -> "Order":
        """The order of the adjoint map."""
        return _TRANSPOSED[self]


_TRANSPOSED = {
    Order.FORWARD: Order.ADJOINT,
    Order.ADJOINT: Order.FORWARD,
    Order.SYMMETRIC: Order.SYMMETRIC,
}

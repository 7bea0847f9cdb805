"""Several losses of the same logits, with weights: their sum, and each of them to print."""

from collections.abc import Mapping

from torch import Tensor, nn


class Criterion(nn.Module):
    """A weighted sum of losses.

    ``criterion(logits, labels)`` is the sum; ``criterion.parts(logits, labels)`` are its terms,
    by name and already weighted, for those who print them: ``sum(parts.values())`` is the loss.
    """

    def __init__(self, losses: Mapping[str, nn.Module], weights: Mapping[str, float]) -> None:
        super().__init__()
        self.losses = nn.ModuleDict(losses)
        self.weights = dict(weights)

    def parts(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return each term, weighted."""
        return {
            name: self.weights[name] * loss(logits, labels) for name, loss in self.losses.items()
        }

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the sum."""
        terms = list(self.parts(logits, labels).values())
        return sum(terms[1:], terms[0])

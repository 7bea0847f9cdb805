"""Models, weights, and what one does with them. Knows torch."""

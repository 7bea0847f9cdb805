"""Is the converted model the same function as the original? Engines, comparison, report."""

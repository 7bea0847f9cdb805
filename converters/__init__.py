"""Records become one normal form (float32, PyTorch axis order) and state dicts."""

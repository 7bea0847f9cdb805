"""Gaussian filtering in any feature space, on the permutohedral lattice."""

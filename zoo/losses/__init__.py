"""Losses on logits and labels: Lovász and its proximal operator, entropies, margins, DenseCRF."""

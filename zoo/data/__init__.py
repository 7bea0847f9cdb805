"""Samples, labels, augmentation and sampling: everything before the network."""
